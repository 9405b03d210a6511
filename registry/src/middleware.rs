//! What stands around every request: its id, a log line, a bound on its body, and a catch for panics.

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::HeaderValue;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

use crate::app::App;
use crate::error::{ApiError, REQUEST_ID};

/// The largest JSON body; routes that take bytes set their own bound.
const MAX_JSON_BYTES: usize = 8 << 20;

/// The header that carries a request's id, both ways.
const REQUEST_ID_HEADER: &str = "x-request-id";

/// Puts the middleware around `router`.
pub(crate) fn around(router: Router<App>) -> Router<App> {
    router
        .fallback(|| std::future::ready(ApiError::not_found("such page").into_response()))
        .layer(DefaultBodyLimit::max(MAX_JSON_BYTES))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            ApiError::internal("a handler panicked").into_response()
        }))
        .layer(from_fn(with_request_id))
}

/// The answer, after what no handler could do anything with is refused.
async fn answer(request: Request, next: Next) -> Response {
    // Not every database can keep or compare a NUL.
    let holds_nul = request
        .uri()
        .path_and_query()
        .is_some_and(|url| url.as_str().contains("%00"));
    if holds_nul {
        return ApiError::invalid("the address holds a NUL character, which no name may").into_response();
    }
    next.run(request).await
}

async fn with_request_id(request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(REQUEST_ID_HEADER)
        .and_then(|value| value.to_str().ok());
    let usable = given.filter(|id| id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    let id = usable.map_or_else(|| Uuid::now_v7().simple().to_string(), str::to_owned);
    let method = request.method().clone();
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("-", MatchedPath::as_str)
        .to_owned();
    let begun = std::time::Instant::now();
    let mut response = REQUEST_ID.scope(id.clone(), answer(request, next)).await;
    let status = response.status().as_u16();
    let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(request_id = id, %method, path, status, duration_ms, "request");
    metrics::counter!("fineline_http_requests_total", "path" => path, "status" => status.to_string()).increment(1);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID_HEADER, id);
    }
    response
}
