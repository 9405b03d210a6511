//! How a request reached the server: from whom, over which scheme, under which host.
//!
//! **Invariant:** forwarded headers are believed only from a proxy that the operator named (`--trusted-proxy`); from
//! anybody else they say nothing.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use axum::http::HeaderMap;
use axum::http::header::{FORWARDED, HOST};
use ipnet::IpNet;

use crate::app::Options;

/// A proxy, or a network of them, whose forwarded headers are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxy(IpNet);

impl TrustedProxy {
    fn holds(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl FromStr for TrustedProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network
            .map(Self)
            .map_err(|_| format!("`{text}` is no proxy: write its address (`10.0.0.7`) or a network (`10.0.0.0/24`)"))
    }
}

/// How a request reached the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Who sent it, as far as believed proxies tell.
    pub(crate) client: Option<IpAddr>,
    /// Scheme, host and port that the user's browser went to, as a browser's `Origin` has them.
    pub(crate) origin: String,
}

impl Reached {
    /// What the connection and the headers say; `peer` is who holds the connection.
    pub(crate) fn new(options: &Options, peer: Option<SocketAddr>, headers: &HeaderMap) -> Self {
        // An IPv4 peer of a socket that listens on `[::]` has an address of the other kind.
        let peer = peer.map(|peer| peer.ip().to_canonical());
        let trusted = |address: IpAddr| options.trusted_proxies.iter().any(|proxy| proxy.holds(address));
        let told = match peer {
            Some(peer) if trusted(peer) => Told::read(headers),
            _ => Told::default(),
        };
        // The nearest proxy wrote the last address; those before it count as long as proxies that we know wrote them.
        let foreign = told.clients.iter().rev().find(|address| !address.is_some_and(trusted));
        let client = foreign
            .copied()
            .unwrap_or_else(|| told.clients.first().copied().flatten());
        let host = told.host.or_else(|| text(headers, HOST.as_str())).unwrap_or_default();
        let scheme = if told.https { "https" } else { "http" };
        Self {
            client: client.or(peer),
            origin: format!("{scheme}://{}", host.to_ascii_lowercase()),
        }
    }

    /// Whether the user's browser came over TLS.
    pub(crate) fn is_https(&self) -> bool {
        self.origin.starts_with("https:")
    }
}

/// What a believed proxy tells.
#[derive(Debug, Default)]
struct Told {
    /// From the farthest to the nearest; `None` for what is no address (`unknown`, a name).
    clients: Vec<Option<IpAddr>>,
    https: bool,
    host: Option<String>,
}

impl Told {
    /// Either `X-Forwarded-*` or `Forwarded` (RFC 7239). A request with both bears what somebody before the proxy
    /// wrote, and nobody can say which: then neither is believed.
    fn read(headers: &HeaderMap) -> Self {
        let x = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
        match (
            x.iter().any(|name| headers.contains_key(*name)),
            headers.contains_key(FORWARDED),
        ) {
            (true, false) => Self {
                clients: list(headers, x[0]).iter().map(|client| address(client)).collect(),
                https: list(headers, x[1]).last().is_some_and(|scheme| scheme == "https"),
                host: list(headers, x[2]).pop(),
            },
            (false, true) => Self::read_forwarded(headers),
            _ => Self::default(),
        }
    }

    fn read_forwarded(headers: &HeaderMap) -> Self {
        let mut told = Self::default();
        for element in list(headers, FORWARDED.as_str()) {
            let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
            let pairs: Vec<_> = pairs
                .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"')))
                .collect();
            let find = |wanted: &str| pairs.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
            told.clients.push(find("for").and_then(address));
            told.https = find("proto") == Some("https");
            told.host = find("host").map(str::to_owned);
        }
        told
    }
}

/// The items of a header that is a list, however many lines it has.
fn list(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    let items = lines
        .flat_map(|line| line.split(','))
        .map(|item| item.trim().to_owned());
    items.filter(|item| !item.is_empty()).collect()
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// An address with or without a port, an IPv6 one with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(peer: &str, headers: &[(&'static str, &str)]) -> (String, String) {
        let options = Options {
            trusted_proxies: vec!["10.0.0.0/24".parse().unwrap(), "::1".parse().unwrap()],
            ..Options::default()
        };
        let mut map = HeaderMap::new();
        map.append("host", "Inner:8080".parse().unwrap());
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let reached = Reached::new(&options, Some(peer.parse().unwrap()), &map);
        (reached.client.unwrap().to_string(), reached.origin)
    }

    #[test]
    fn forwarded_headers_are_believed_from_a_named_proxy_alone() {
        let x = [
            ("x-forwarded-for", "198.51.100.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "reg.lab"),
        ];
        let forwarded = [("forwarded", "for=198.51.100.9;proto=https;host=reg.lab")];
        let believed = ("198.51.100.9".to_owned(), "https://reg.lab".to_owned());
        for proxy in ["10.0.0.7:1", "[::ffff:10.0.0.7]:1", "[::1]:1"] {
            assert_eq!(reached(proxy, &x), believed);
            assert_eq!(reached(proxy, &forwarded), believed);
        }
        for (other, ip) in [("10.0.1.7:1", "10.0.1.7"), ("127.0.0.1:1", "127.0.0.1")] {
            assert_eq!(reached(other, &x), (ip.to_owned(), "http://inner:8080".to_owned()));
            assert_eq!(
                reached(other, &forwarded),
                (ip.to_owned(), "http://inner:8080".to_owned())
            );
        }
    }

    #[test]
    fn what_a_client_wrote_before_the_proxy_is_not_believed() {
        let chain = [
            ("x-forwarded-for", "1.1.1.1, 198.51.100.9"),
            ("x-forwarded-for", "10.0.0.9"),
        ];
        assert_eq!(reached("10.0.0.7:1", &chain).0, "198.51.100.9");
        let both = [("x-forwarded-proto", "https"), ("forwarded", "proto=https;host=evil")];
        assert_eq!(reached("10.0.0.7:1", &both).1, "http://inner:8080");
        let chain = [(
            "forwarded",
            r#"for=1.1.1.1;proto=https, for="[2001:db8::1]:99";proto=http;host=reg.lab"#,
        )];
        assert_eq!(
            reached("10.0.0.7:1", &chain),
            ("2001:db8::1".to_owned(), "http://reg.lab".to_owned())
        );
        assert_eq!(reached("10.0.0.7:1", &[("x-forwarded-for", "unknown")]).0, "10.0.0.7");
    }

    #[test]
    fn a_proxy_is_an_address_or_a_network() {
        for bad in ["", "reg.lab", "10.0.0", "10.0.0.0/33", "10.0.0.7:80"] {
            let error = bad.parse::<TrustedProxy>().expect_err(bad);
            assert!(error.contains(&format!("`{bad}` is no proxy")), "{error}");
        }
    }
}
