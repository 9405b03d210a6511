//! Where users reach the server, when the operator says so: the base of every absolute URL, of the links in pages and of
//! what may post a form.
//!
//! **Invariant:** it is an origin as browsers write it (lower case, no default port), and a path without a slash at its
//! end; `""` when the server is at the root of its host.

use std::fmt;
use std::str::FromStr;

use axum::http::Uri;

/// `https://HOST[:PORT][/PATH]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    origin: String,
    path: String,
}

impl PublicUrl {
    /// Scheme, host and port, as a browser's `Origin` has them.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// What stands before every path of the server; a proxy takes it off.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Whether users come over TLS.
    pub(crate) fn is_https(&self) -> bool {
        self.origin.starts_with("https:")
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.path)
    }
}

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('@') {
            // Not shown: what stands before it may be a password.
            return Err("a public URL has no user and no password: write it as `https://HOST`".to_owned());
        }
        let refused = |reason: &str| format!("public URL `{text}` is refused: {reason}");
        if text.contains(['?', '#']) {
            return Err(refused("leave out its query and its fragment"));
        }
        let uri: Uri = text
            .parse()
            .map_err(|_| refused("write it as `https://HOST` or `https://HOST:PORT/PATH`"))?;
        let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
        let default_port = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return Err(refused("it begins with `https://` or `http://`")),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| refused("it names no host"))?.to_ascii_lowercase();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let port = match uri.port_u16() {
            None if authority.len() > host.len() => return Err(refused("its port is none")),
            Some(0) => return Err(refused("its port is none")),
            port => port.filter(|&port| port != default_port),
        };
        let path = uri.path().trim_end_matches('/').to_owned();
        if !path.split('/').skip(1).all(is_plain) {
            return Err(refused(
                "its path has parts of letters, digits, `-`, `_` and `.` between single slashes",
            ));
        }
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        Ok(Self {
            origin: format!("{scheme}://{host}{port}"),
            path,
        })
    }
}

fn is_plain(part: &str) -> bool {
    let letters = part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    letters && !part.bytes().all(|b| b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_browsers_write_origins() {
        for (given, read) in [
            ("https://Reg.Lab", "https://reg.lab"),
            ("https://reg.lab:443/", "https://reg.lab"),
            ("http://reg.lab:8080", "http://reg.lab:8080"),
            ("http://[::1]:80/a", "http://[::1]/a"),
            ("https://lab.org/tools/fineline/", "https://lab.org/tools/fineline"),
        ] {
            assert_eq!(given.parse::<PublicUrl>().unwrap().to_string(), read);
        }
    }

    #[test]
    fn what_cannot_be_one_is_refused_by_name_and_never_shows_a_password() {
        for bad in [
            "",
            "reg.lab",
            "/x",
            "ftp://reg.lab",
            "https://",
            "https:///x",
            "https://reg.lab:0",
            "https://reg.lab:99999",
            "https://reg.lab:",
            "https://reg.lab/a?b=1",
            "https://reg.lab/#a",
            "https://reg.lab/a//b",
            "https://reg.lab/../a",
            "https://reg.lab/a%2fb",
            "https://reg lab",
            "https://reg.lab/\"",
        ] {
            let error = bad.parse::<PublicUrl>().expect_err(bad);
            assert!(error.contains(&format!("`{bad}` is refused")), "{error}");
        }
        let error = "https://me:secret@reg.lab".parse::<PublicUrl>().unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}
