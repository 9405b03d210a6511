//! Measuring requests: how many, how long, how many bytes.
//!
//! **Invariant:** a label is a route's template, a method of HTTP's own, or a status: bounded whatever clients send.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::Method;
use http_body::{Frame, SizeHint};
use metrics::{Counter, counter, gauge, histogram};

/// nginx's status for a client that hung up before it was answered.
const HUNG_UP: u16 = 499;

/// A request under way; counted when this is dropped, which is when its answer begins or its client hangs up.
#[derive(Debug)]
pub(crate) struct Measured {
    route: String,
    method: &'static str,
    begun: Instant,
    status: u16,
}

impl Measured {
    pub(crate) fn begin(route: &str, method: &Method) -> Self {
        gauge!("fineline_http_requests_in_flight").increment(1);
        Self {
            route: route.to_owned(),
            method: known(method),
            begun: Instant::now(),
            status: HUNG_UP,
        }
    }

    /// The answer begins.
    pub(crate) fn end(mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let (route, method) = (std::mem::take(&mut self.route), self.method);
        gauge!("fineline_http_requests_in_flight").decrement(1);
        histogram!("fineline_http_request_duration_seconds", "route" => route.clone(), "method" => method)
            .record(self.begun.elapsed());
        let status = self.status.to_string();
        counter!("fineline_http_requests_total", "route" => route, "method" => method, "status" => status).increment(1);
    }
}

/// Whoever speaks HTTP may make up a method.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// A body whose bytes are counted as they pass.
struct Counted {
    body: Body,
    counter: Counter,
}

/// Counts a body's bytes as `name`.
pub(crate) fn counted(body: Body, name: &'static str) -> Body {
    Body::new(Counted {
        body,
        counter: counter!(name),
    })
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(bytes) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.counter.increment(bytes.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    // Without it an answer would have no Content-Length.
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of what is rendered after `what`, without those of histograms.
    fn counted_of(what: impl FnOnce()) -> Vec<String> {
        let recorder = crate::telemetry::recorder();
        metrics::with_local_recorder(&recorder, what);
        let text = recorder.handle().render();
        let lines = text.lines().filter(|line| line.starts_with("fineline_http_requests"));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn a_request_counts_once_with_its_status_and_a_client_that_hung_up_with_499() {
        let found = counted_of(|| {
            Measured::begin("/runs", &Method::GET).end(200);
            drop(Measured::begin("/runs", &Method::GET));
        });
        let line =
            |status| format!("fineline_http_requests_total{{route=\"/runs\",method=\"GET\",status=\"{status}\"}} 1");
        assert!(found.contains(&line(200)) && found.contains(&line(499)), "{found:#?}");
        assert!(
            found.contains(&"fineline_http_requests_in_flight 0".to_owned()),
            "{found:#?}"
        );
    }

    #[test]
    fn a_body_that_is_counted_keeps_its_length() {
        let body = counted(Body::from("four"), "fineline_http_response_bytes_total");
        assert_eq!(body.size_hint().exact(), Some(4));
    }
}
