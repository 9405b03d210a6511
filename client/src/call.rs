//! A call as it is described before it is sent: method, path, query, body, and whether it may be sent twice.
//!
//! **Invariant:** a [`Call`] can be sent any number of times; its body is cheap to clone.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder};
use serde::Serialize;

use crate::pulse::Pulse;

/// What the body goes out in: small enough that a slow line still shows that it moves.
const SLICE_BYTES: usize = 64 << 10;

/// Whether a call may be sent again when it is not known whether the server acted on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Sending it twice is the same as once.
    Always,
    /// Only when the server surely did nothing (no connection, 429, 503).
    Unsent,
}

/// The body of a call.
#[derive(Debug, Clone)]
enum Payload {
    None,
    Bytes(HeaderValue, Bytes),
    Form(Vec<(String, Bytes)>),
}

/// One call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) repeat: Repeat,
    /// How long the server may be silent on purpose, on top of the usual.
    pub(crate) patience: Duration,
    headers: HeaderMap,
    payload: Payload,
}

impl Call {
    fn new(method: Method, path: String, repeat: Repeat) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            repeat,
            patience: Duration::ZERO,
            headers: HeaderMap::new(),
            payload: Payload::None,
        }
    }

    pub(crate) fn get(path: String) -> Self {
        Self::new(Method::GET, path, Repeat::Always)
    }

    pub(crate) fn put(path: String) -> Self {
        Self::new(Method::PUT, path, Repeat::Always)
    }

    pub(crate) fn delete(path: String) -> Self {
        Self::new(Method::DELETE, path, Repeat::Always)
    }

    pub(crate) fn patch(path: String) -> Self {
        Self::new(Method::PATCH, path, Repeat::Always)
    }

    /// A POST that makes something anew each time.
    pub(crate) fn post(path: String) -> Self {
        Self::new(Method::POST, path, Repeat::Unsent)
    }

    /// A POST that does the same when it is sent twice.
    pub(crate) fn post_repeatable(path: String) -> Self {
        Self::new(Method::POST, path, Repeat::Always)
    }

    /// Adds a parameter, when there is a value.
    pub(crate) fn query(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// Asks the server to wait so many seconds for something to happen before it answers.
    pub(crate) fn wait_s(self, wait_s: u64) -> Self {
        self.query("wait_s", (wait_s > 0).then_some(wait_s)).patient(wait_s)
    }

    /// Says that the server may wait so many seconds before it answers.
    pub(crate) fn patient(self, wait_s: u64) -> Self {
        Self {
            patience: Duration::from_secs(wait_s),
            ..self
        }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Self {
        let bytes = serde_json::to_vec(body).expect("wire types have nothing that JSON lacks");
        self.payload = Payload::Bytes(HeaderValue::from_static("application/json"), bytes.into());
        self
    }

    pub(crate) fn bytes(mut self, media_type: &'static str, body: Bytes) -> Self {
        self.payload = Payload::Bytes(HeaderValue::from_static(media_type), body);
        self
    }

    /// A multipart form of named parts.
    pub(crate) fn form(mut self, parts: Vec<(String, Bytes)>) -> Self {
        self.payload = Payload::Form(parts);
        self
    }

    /// Puts headers and body on a request; each part that goes out moves `pulse`.
    pub(crate) fn fill(&self, request: RequestBuilder, pulse: &Pulse) -> RequestBuilder {
        let request = request.headers(self.headers.clone());
        match &self.payload {
            Payload::None => request,
            Payload::Bytes(media_type, bytes) => request
                .header(CONTENT_TYPE, media_type)
                .header(CONTENT_LENGTH, bytes.len())
                .body(sliced(bytes, pulse)),
            Payload::Form(parts) => {
                let form = reqwest::multipart::Form::new();
                request.multipart(parts.iter().fold(form, |form, (name, bytes)| {
                    let part = reqwest::multipart::Part::stream_with_length(sliced(bytes, pulse), bytes.len() as u64);
                    form.part(name.clone(), part)
                }))
            }
        }
    }
}

/// A body that goes out slice by slice and says so.
pub(crate) fn sliced(bytes: &Bytes, pulse: &Pulse) -> reqwest::Body {
    let (bytes, pulse) = (bytes.clone(), pulse.clone());
    let slices = (0..bytes.len()).step_by(SLICE_BYTES);
    reqwest::Body::wrap_stream(futures::stream::iter(slices).map(move |start| {
        pulse.beat();
        let end = bytes.len().min(start + SLICE_BYTES);
        Ok::<_, std::convert::Infallible>(bytes.slice(start..end))
    }))
}
