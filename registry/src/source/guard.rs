//! Who may be connected to. A source's address is a user's word, and the server stands where the user does not: without a
//! guard it would fetch a cloud's metadata, or what listens on the loopback address, for whoever may write to a run.
//!
//! **Invariant:** an address is connected to only when it is public or its host is allowed by name. What is checked is what
//! is connected to: a name's addresses are checked as they are resolved, an address in a URL before it is used; no proxy
//! of the environment stands between, and no client follows a redirect by itself.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};

use super::address::is_public;
use super::{SourceError, told};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Until an answer in which no byte moves is given up. There is no limit on the whole.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A host that sources may reach although its addresses are not public: a name or an address, with or without a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHost {
    /// As a URL has it: in lower case, IPv6 in brackets.
    host: String,
    /// Any when absent.
    port: Option<u16>,
}

impl AllowedHost {
    fn is_of(&self, host: &str, port: Option<u16>) -> bool {
        self.host == host && (self.port.is_none() || self.port == port)
    }
}

impl FromStr for AllowedHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || {
            let text = told(text);
            format!("`{text}` is no host: write a name or an IP address, with `:PORT` where only that port is meant")
        };
        let (host, port) = match text.rsplit_once(':') {
            _ if text.parse::<Ipv6Addr>().is_ok() => (format!("[{text}]"), None),
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|port| *port != 0);
                (host.to_owned(), Some(port.ok_or_else(refused)?))
            }
            _ => (text.to_owned(), None),
        };
        // What a URL would take for something else, and what it would take for a name without meaning one.
        if host.is_empty() || host.contains(|c: char| "/?#@\\*%".contains(c) || c.is_whitespace()) {
            return Err(refused());
        }
        let url = Url::parse(&format!("http://{host}/")).map_err(|_| refused())?;
        let host = host_of(&url).ok_or_else(refused)?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Why an address is not connected to.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refusal(String);

impl Refusal {
    fn not_public(host: &str) -> Self {
        let host = told(host);
        Self(format!(
            "`{host}` has no public address: allow it by name with --source-allow {host}, if sources may read there"
        ))
    }

    /// What is behind an error, where the guard is.
    pub(super) fn behind<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(refusal) = error.downcast_ref() {
                return Some(refusal);
            }
            next = error.source();
        }
        None
    }
}

impl From<Refusal> for SourceError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.0)
    }
}

/// The way to other hosts.
#[derive(Debug)]
pub(super) struct Guard {
    allowed: Vec<AllowedHost>,
    /// For hosts that are not allowed by name: it resolves to public addresses only.
    public: Client,
    /// For hosts that are. It is another one since a resolver is not told the port.
    free: Option<Client>,
}

impl Guard {
    pub(super) fn new(allowed: &[AllowedHost]) -> Result<Self, SourceError> {
        let client = |resolver: Option<PublicOnly>| {
            let builder = Client::builder()
                .no_proxy()
                .redirect(Policy::none())
                .referer(false)
                .http1_only()
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(STALL_TIMEOUT)
                .user_agent(concat!("fineline/", env!("CARGO_PKG_VERSION")));
            let builder = match resolver {
                Some(resolver) => builder.dns_resolver(resolver),
                None => builder,
            };
            let refused = |error| SourceError::Refused(format!("can't make an HTTP client: {error}"));
            builder.build().map_err(refused)
        };
        Ok(Self {
            allowed: allowed.to_vec(),
            public: client(Some(PublicOnly))?,
            free: if allowed.is_empty() { None } else { Some(client(None)?) },
        })
    }

    /// The client that may go there. Every hop of a redirect asks anew.
    pub(super) fn client(&self, url: &Url) -> Result<&Client, Refusal> {
        if !matches!(url.scheme(), "http" | "https") {
            let scheme = told(url.scheme());
            return Err(Refusal(format!("`{scheme}` URLs are not read: give one of `https`")));
        }
        let host = host_of(url).ok_or_else(|| Refusal("the URL names no host: give it one".to_owned()))?;
        if !url.username().is_empty() || url.password().is_some() {
            let host = told(&host);
            return Err(Refusal(format!(
                "the URL of `{host}` has a user or a password: give the secret as such"
            )));
        }
        let port = url.port_or_known_default();
        if self.allowed.iter().any(|allowed| allowed.is_of(&host, port)) {
            return Ok(self.free.as_ref().unwrap_or(&self.public));
        }
        // No resolver is asked for what is an address already.
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if address.is_ok_and(|address| !is_public(address)) {
            return Err(Refusal::not_public(&host));
        }
        Ok(&self.public)
    }
}

/// A URL's host in the one form in which hosts are compared. The URL's parser has read addresses in odd spellings (`0x7f.1`).
fn host_of(url: &Url) -> Option<String> {
    let host = url.host_str()?.trim_end_matches('.').to_ascii_lowercase();
    (!host.is_empty()).then_some(host)
}

/// Resolves names to those of their addresses that are public.
#[derive(Debug)]
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let public: Vec<_> = found.iter().copied().filter(|at| is_public(at.ip())).collect();
            if public.is_empty() && !found.is_empty() {
                return Err(Refusal::not_public(name.as_str()).into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allowed: &[&str]) -> Guard {
        let allowed: Vec<_> = allowed.iter().map(|text| text.parse().unwrap()).collect();
        Guard::new(&allowed).unwrap()
    }

    fn refusal(guard: &Guard, url: &str) -> Option<String> {
        let url = Url::parse(url).unwrap();
        guard.client(&url).err().map(|refusal| refusal.to_string())
    }

    #[test]
    fn an_allowed_host_is_read_in_one_form() {
        for (text, shown) in [
            ("Minio.Lab", "minio.lab"),
            ("minio.lab.:9000", "minio.lab:9000"),
            ("10.0.0.7", "10.0.0.7"),
            ("0xa.7", "10.0.0.7"),
            ("fd00::0:1", "[fd00::1]"),
            ("[fd00::1]:443", "[fd00::1]:443"),
        ] {
            assert_eq!(text.parse::<AllowedHost>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            ":80",
            "http://lab",
            "lab/x",
            "me@lab",
            "*.lab",
            "lab:0",
            "lab:x",
            "a b",
            "[::1",
            ".",
        ] {
            let error = bad.parse::<AllowedHost>().unwrap_err();
            assert!(error.contains(&format!("`{bad}` is no host")), "{error}");
        }
    }

    #[test]
    fn an_address_that_is_not_public_is_refused_however_it_is_written() {
        let guard = guard(&[]);
        for url in [
            "http://169.254.169.254/latest/meta-data/",
            "http://127.0.0.1:8080/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://127.0.0.1./",
            "http://[::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://１２７.0.0.1/",
        ] {
            let refusal = refusal(&guard, url).unwrap_or_else(|| panic!("{url}"));
            assert!(refusal.contains("--source-allow "), "{refusal}");
        }
        assert_eq!(refusal(&guard, "https://1.1.1.1/"), None);
        assert_eq!(refusal(&guard, "https://huggingface.co/"), None);
    }

    #[test]
    fn what_is_no_plain_web_address_is_refused_without_its_secrets() {
        let guard = guard(&["lab"]);
        for url in [
            "file:///etc/passwd",
            "ftp://lab/",
            "http://me:hush@lab/",
            "http://hush@lab/",
        ] {
            let refusal = refusal(&guard, url).unwrap_or_else(|| panic!("{url}"));
            assert!(!refusal.contains("hush"), "{refusal}");
        }
    }

    #[test]
    fn a_host_is_allowed_by_its_name_and_port_and_by_nothing_else() {
        let guard = guard(&["127.0.0.1:9000", "10.0.0.7"]);
        for url in ["http://127.0.0.1:9000/", "http://10.0.0.7/", "https://10.0.0.7:1234/"] {
            assert_eq!(refusal(&guard, url), None, "{url}");
        }
        for url in [
            "http://127.0.0.1/",
            "http://127.0.0.1:9001/",
            "http://10.0.0.8/",
            "http://[::1]:9000/",
        ] {
            assert!(refusal(&guard, url).is_some(), "{url}");
        }
    }
}
