//! What stands around every request: its id, how it reached us, a log line, a bound on its body, and a catch for panics.
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
    let mut response = REQUEST_ID.scope(id.clone(), next.run(request)).await;
    let status = response.status().as_u16();
    let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(request_id = id, client, %method, path, status, duration_ms, "request");
    metrics::counter!("fineline_http_requests_total", "path" => path, "status" => status.to_string()).increment(1);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID_HEADER, id);
    }
    response
}
