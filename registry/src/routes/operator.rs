//! `/healthz`, `/readyz`, `/metrics`: for whoever runs the registry. No part of the API's document.

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::app::App;
use crate::auth::bearer;
use crate::error::ApiResult;
use crate::service::{gauges, readiness};
use crate::telemetry;

/// What Prometheus takes the text for.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

/// The process lives, whatever it depends on.
async fn healthz() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Every part with its state; 503 when one is down.
async fn readyz(State(app): State<App>) -> Response {
    let readiness = readiness::probe(&app).await;
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, [(CACHE_CONTROL, "no-store")], axum::Json(readiness)).into_response()
}

/// The metrics, for who may read every run.
async fn metrics(State(app): State<App>, headers: HeaderMap) -> ApiResult<Response> {
    gauges::admit(&app, bearer(&headers)).await?;
    gauges::refresh(&app).await;
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], telemetry::render(&app.metrics)).into_response())
}
