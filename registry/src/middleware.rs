//! What stands around every request: its id, how it reached us, a log line, its metrics, a bound on its body, and a catch
//! for panics.
//!
//! **Invariant:** the log line has the route and never the URL, and no header: what a user pastes or a browser sends is in
//! no log.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use fineline_api::evaluation::LEASE_HEADER;
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

use crate::app::App;
use crate::error::{ApiError, REQUEST_ID};
use crate::measure::{Measured, counted};
use crate::reached::Reached;

/// The largest JSON body; routes that take bytes set their own bound.
const MAX_JSON_BYTES: usize = 8 << 20;

/// The header that carries a request's id, both ways.
const REQUEST_ID_HEADER: &str = "x-request-id";

/// Puts the middleware around `router`.
pub(crate) fn around(router: Router<App>, app: &App) -> Router<App> {
    router
        .fallback(|| std::future::ready(ApiError::not_found("such page").into_response()))
        .layer(DefaultBodyLimit::max(MAX_JSON_BYTES))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            ApiError::internal("a handler panicked").into_response()
        }))
        .layer(from_fn_with_state(app.clone(), with_request_id))
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

async fn with_request_id(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let reached = Reached::new(&app.options, peer.map(|peer| peer.0), request.headers());
    let client = reached.client.map(|client| client.to_string());
    request.extensions_mut().insert(reached);
    // Whoever prints headers, a dependency included, prints these as `Sensitive`.
    for (name, value) in request.headers_mut() {
        value.set_sensitive(*name == AUTHORIZATION || *name == COOKIE || name == LEASE_HEADER);
    }
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
    let measured = Measured::begin(&path, &method);
    let request = request.map(|body| counted(body, "fineline_http_request_bytes_total"));
    let mut response = REQUEST_ID.scope(id.clone(), answer(request, next)).await;
    let status = response.status().as_u16();
    let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(request_id = id, client, %method, path, status, duration_ms, "request");
    measured.end(status);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID_HEADER, id);
    }
    response.map(|body| counted(body, "fineline_http_response_bytes_total"))
}
