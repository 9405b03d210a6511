//! `health`: asks the server on this machine whether it lives, or whether it is ready; for containers, which have no curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::commands::failure::UserError;
use crate::commands::print;

/// Longer than the server itself waits for what it depends on.
const PATIENCE: Duration = Duration::from_secs(5);

const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// What `health` is told.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// The address that the server listens on.
    #[arg(long, env = "FINELINE_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Ask whether database and store answer too (`/readyz`), not only whether the process does (`/healthz`).
    #[arg(long)]
    ready: bool,
}

/// Prints what the server says; exit status 1 when that is not well.
pub(crate) async fn run(args: HealthArgs) -> anyhow::Result<ExitCode> {
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let address = reachable(args.listen);
    // Every failure is exit status 1: containers keep 2 for themselves.
    let unwell = |what: String| UserError::new(what, "the server's log says why");
    let asked = tokio::time::timeout(PATIENCE, get(address, path)).await;
    let in_time = |_| unwell(format!("`{address}` does not answer within {} s", PATIENCE.as_secs()));
    let answer = asked.map_err(in_time)??;
    let found = status_and_body(&answer);
    let (status, body) = found.ok_or_else(|| unwell(format!("`{address}` does not speak HTTP")))?;
    if !body.is_empty() {
        print(body);
    }
    if !(200..300).contains(&status) {
        return Err(unwell(format!("{path} answers {status}")).into());
    }
    Ok(ExitCode::SUCCESS)
}

/// Where to reach who listens on every address.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("`{address}`"))?;
    // HTTP/1.0, so that the answer ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn status_and_body(answer: &str) -> Option<(u16, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some((status.parse().ok()?, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_reached_here() {
        let reached = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(reached("[::]:80"), "[::1]:80");
        assert_eq!(reached("10.0.0.7:80"), "10.0.0.7:80");
    }

    #[test]
    fn an_answer_is_a_status_and_what_follows_the_head() {
        let answer = "HTTP/1.0 503 Service Unavailable\r\nx: y\r\n\r\n{}";
        assert_eq!(status_and_body(answer), Some((503, "{}")));
        for other in ["", "SSH-2.0-OpenSSH\r\n", "HTTP/1.1 x\r\n\r\n"] {
            assert_eq!(status_and_body(other), None, "{other}");
        }
    }
}
