//! Messages that are no good HTTP: refused by the server before any route sees them, or cut off.

use super::connection::Connection;

/// Sends each; how many there are, and what was wrong with the answers.
pub(super) fn send_all(connection: &Connection) -> (usize, Vec<String>) {
    let head = |method: &str, path: &str, rest: &str| (connection.head(method, path) + rest).into_bytes();
    let post = |rest: &str| head("POST", "/runs", &format!("content-type: application/json\r\n{rest}"));
    let body = r#"{"run":"lab/other"}"#;
    let messages: Vec<(&str, Vec<u8>, &[u16])> = vec![
        (
            "a header of 10 MB",
            head("GET", "/runs", &format!("x: {}\r\n\r\n", "x".repeat(10 << 20))),
            &[431, 0],
        ),
        (
            "10 MB of headers",
            head("GET", "/runs", &("x: y\r\n".repeat(2 << 20) + "\r\n")),
            &[431, 0],
        ),
        (
            "an address of 10 MB",
            head("GET", &format!("/runs?cursor={}", "x".repeat(10 << 20)), "\r\n"),
            &[414, 431, 400, 0],
        ),
        (
            "a body shorter than said",
            post(&format!("content-length: 1000\r\n\r\n{body}")),
            &[400, 0],
        ),
        (
            "a body longer than said",
            post(&format!("content-length: 5\r\n\r\n{body}")),
            &[400],
        ),
        (
            "a negative length",
            post(&format!("content-length: -1\r\n\r\n{body}")),
            &[400],
        ),
        (
            "a length beyond 64 bits",
            post(&format!("content-length: 99999999999999999999\r\n\r\n{body}")),
            &[400],
        ),
        (
            "two lengths",
            post(&format!("content-length: 5\r\ncontent-length: 19\r\n\r\n{body}")),
            &[400],
        ),
        (
            "chunks without a size",
            post("transfer-encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            "a chunk of 16 EB",
            post("transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n{}"),
            &[400, 413, 0],
        ),
        (
            "a name of a header that is none",
            head("GET", "/runs", "a b: c\r\n\r\n"),
            &[400],
        ),
        ("NUL in a header", head("GET", "/runs", "x: a\0b\r\n\r\n"), &[400]),
        (
            "an address that is no text",
            [&b"GET /\xff\0 HTTP/1.1\r\n\r\n"[..]].concat(),
            &[400],
        ),
        (
            "no HTTP at all",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
            &[400, 0],
        ),
    ];
    let fault = |(name, message, allowed): &(&str, Vec<u8>, &[u16])| {
        // Where no answer is one too, the server waits for more until it is told that there is none.
        let status = connection.send(message, allowed.contains(&0)).status;
        (!allowed.contains(&status)).then(|| format!("message: {name}: {status} and not one of {allowed:?}"))
    };
    (messages.len(), messages.iter().filter_map(fault).collect())
}
