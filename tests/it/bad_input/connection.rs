//! HTTP/1.1 by hand: what is sent is what the case says, whatever a client library would make of it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// The parts of a form, by name.
pub(super) type Parts = Vec<(String, Vec<u8>)>;

/// The body of a request.
pub(super) enum Body {
    None,
    Json(String),
    /// With that content type.
    Typed(&'static str, Vec<u8>),
    /// A multipart form of these parts.
    Form(Parts),
}

pub(super) fn json(text: impl Into<String>) -> Body {
    Body::Json(text.into())
}

/// A server, and who speaks to it.
pub(super) struct Connection {
    pub(super) address: String,
    pub(super) token: String,
    pub(super) lease: String,
}

/// An answer; status 0 is none at all.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
}

impl Answer {
    /// The error's message, or nothing when the body is none of ours.
    pub(super) fn message(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.text).unwrap_or_default();
        body["error"]["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl Connection {
    pub(super) fn ask(&self, method: &str, path: &str, body: &Body) -> Answer {
        let (content_type, bytes) = match body {
            Body::None => ("", Vec::new()),
            Body::Json(text) => ("application/json", text.clone().into_bytes()),
            Body::Typed(content_type, bytes) => (*content_type, bytes.clone()),
            Body::Form(parts) => ("multipart/form-data; boundary=XX", form(parts)),
        };
        let mut head = self.head(method, path);
        if !content_type.is_empty() {
            head.push_str(&format!("content-type: {content_type}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", bytes.len()));
        self.send(&[head.as_bytes(), &bytes].concat(), false)
    }

    /// The first line and the usual headers of a request, without the empty line.
    pub(super) fn head(&self, method: &str, path: &str) -> String {
        let Self { address, token, lease } = self;
        format!(
            "{method} /api/v1{path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
             fineline-lease: {lease}\r\nconnection: close\r\n"
        )
    }

    /// Sends these bytes, and with `end` says that no more will come; reads until the server ends.
    pub(super) fn send(&self, request: &[u8], end: bool) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // The server may have answered and gone before all is sent.
        let _ = stream.write_all(request);
        if end {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Answer {
            status: status.unwrap_or(0),
            text: body.to_owned(),
        }
    }
}

fn form(parts: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, bytes) in parts {
        body.extend(format!("--XX\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n").bytes());
        body.extend(bytes);
        body.extend(b"\r\n");
    }
    body.extend(b"--XX--\r\n");
    body
}
