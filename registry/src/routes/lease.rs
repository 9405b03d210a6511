//! `/evaluations/claim` and what a worker does with its lease, named in the header `fineline-lease`.

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fineline_api::evaluation::LEASE_HEADER;
use fineline_api::{
    ClaimEvaluation, CompleteEvaluation, ErrorBody, Evaluation, FailEvaluation, Lease, Progress, RenewedLease, Scope,
    TaskScore,
};
use serde::Deserialize;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Body, Json, JsonList, Path, Query};
use crate::routes::checkpoint::wait;
use crate::service::content::MAX_WHOLE_BYTES;
use crate::service::{self};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(claim_evaluation))
        .routes(routes!(heartbeat_evaluation))
        .routes(routes!(post_task_scores))
        .routes(routes!(put_samples).layer(DefaultBodyLimit::max(MAX_WHOLE_BYTES as usize)))
        .routes(routes!(get_tokenizer_file))
        .routes(routes!(complete_evaluation))
        .routes(routes!(fail_evaluation))
        .routes(routes!(release_evaluation))
}

fn lease(headers: &HeaderMap) -> ApiResult<&str> {
    let lease = headers.get(LEASE_HEADER).and_then(|value| value.to_str().ok());
    lease.ok_or_else(|| {
        ApiError::invalid(format!(
            "the header `{LEASE_HEADER}` is missing: it holds the claim's token"
        ))
    })
}

/// Gives the oldest work that the worker can do, or 204; the same claim again gives the same lease. Scope `evaluate`.
#[utoipa::path(post, path = "/evaluations/claim", tag = "workers", operation_id = "claim_evaluation",
    request_body = ClaimEvaluation,
    responses((status = 200, body = Lease), (status = 204), (status = "default", body = ErrorBody)))]
async fn claim_evaluation(
    State(app): State<App>,
    caller: Caller,
    Json(claim): Json<ClaimEvaluation>,
) -> ApiResult<Response> {
    caller.require(Scope::Evaluate)?;
    match service::lease::claim(&app, &caller, claim).await? {
        Some(lease) => Ok(Json(lease).into_response()),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

/// `?wait_s=`
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct WaitQuery {
    /// Seconds to wait for the lease to end otherwise, at most 30.
    wait_s: Option<u64>,
}

/// Keeps a lease; with `wait_s` the answer waits, and tells at once when the evaluation is cancelled meanwhile or the lease ends
/// otherwise. Scope `evaluate`.
#[utoipa::path(post, path = "/evaluations/{id}/heartbeat", tag = "workers", operation_id = "heartbeat_evaluation",
    params(("id" = Uuid, Path), WaitQuery), request_body = Progress,
    responses((status = 200, body = RenewedLease), (status = 409, body = ErrorBody), (status = "default", body = ErrorBody)))]
async fn heartbeat_evaluation(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Query(query): Query<WaitQuery>,
    headers: HeaderMap,
    Json(progress): Json<Progress>,
) -> ApiResult<Json<RenewedLease>> {
    caller.require(Scope::Evaluate)?;
    let lease = lease(&headers)?;
    let renewed = service::lease::renew(&app, &caller, id, lease, progress).await?;
    service::lease::wait(&app, &caller, id, lease, wait(query.wait_s)).await?;
    Ok(Json(renewed))
}

/// Replaces the scores of a task. Scope `evaluate`.
#[utoipa::path(post, path = "/evaluations/{id}/tasks/{task}/scores", tag = "workers", operation_id = "post_task_scores",
    params(("id" = Uuid, Path), ("task" = String, Path)), request_body = Vec<TaskScore>,
    responses((status = 204), (status = 409, body = ErrorBody), (status = "default", body = ErrorBody)))]
async fn post_task_scores(
    State(app): State<App>,
    caller: Caller,
    Path((id, task)): Path<(Uuid, String)>,
    headers: HeaderMap,
    JsonList(scores): JsonList<TaskScore>,
) -> ApiResult<StatusCode> {
    caller.require(Scope::Evaluate)?;
    service::result::post_scores(&app, &caller, id, lease(&headers)?, &task, scores).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Keeps the sample log of a task, at most 256 MiB; scores that came with another log go, so it is put before them. Scope `evaluate`.
#[utoipa::path(put, path = "/evaluations/{id}/tasks/{task}/samples", tag = "workers", operation_id = "put_samples",
    params(("id" = Uuid, Path), ("task" = String, Path)),
    request_body(content = String, content_type = "application/jsonl"),
    responses((status = 204), (status = 409, body = ErrorBody), (status = "default", body = ErrorBody)))]
async fn put_samples(
    State(app): State<App>,
    caller: Caller,
    Path((id, task)): Path<(Uuid, String)>,
    headers: HeaderMap,
    Body(body): Body<Bytes>,
) -> ApiResult<StatusCode> {
    caller.require(Scope::Evaluate)?;
    service::result::put_samples(&app, &caller, id, lease(&headers)?, &task, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends an evaluation with all its scores; again with the same result changes nothing. Scope `evaluate`.
#[utoipa::path(post, path = "/evaluations/{id}/complete", tag = "workers", operation_id = "complete_evaluation",
    params(("id" = Uuid, Path)), request_body = CompleteEvaluation,
    responses((status = 200, body = Evaluation), (status = 409, body = ErrorBody), (status = "default", body = ErrorBody)))]
async fn complete_evaluation(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Json(done): Json<CompleteEvaluation>,
) -> ApiResult<Json<Evaluation>> {
    caller.require(Scope::Evaluate)?;
    Ok(Json(
        service::result::complete(&app, &caller, id, lease(&headers)?, done).await?,
    ))
}

/// Ends a try before all scores are there; again with the same lease changes nothing. Scope `evaluate`.
#[utoipa::path(post, path = "/evaluations/{id}/fail", tag = "workers", operation_id = "fail_evaluation",
    params(("id" = Uuid, Path)), request_body = FailEvaluation,
    responses((status = 200, body = Evaluation), (status = 409, body = ErrorBody), (status = "default", body = ErrorBody)))]
async fn fail_evaluation(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Json(failure): Json<FailEvaluation>,
) -> ApiResult<Json<Evaluation>> {
    caller.require(Scope::Evaluate)?;
    Ok(Json(
        service::lease::fail(&app, &caller, id, lease(&headers)?, failure).await?,
    ))
}

/// Gives a lease back, which counts as no failure: the evaluation is queued again at once, its scored tasks stay; again with the same
/// lease changes nothing. Scope `evaluate`.
#[utoipa::path(post, path = "/evaluations/{id}/release", tag = "workers", operation_id = "release_evaluation",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = Evaluation), (status = 409, body = ErrorBody), (status = "default", body = ErrorBody)))]
async fn release_evaluation(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
) -> ApiResult<Json<Evaluation>> {
    caller.require(Scope::Evaluate)?;
    Ok(Json(
        service::lease::release(&app, &caller, id, lease(&headers)?).await?,
    ))
}

/// A file of the tokenizer that the run lends to the checkpoint. Scope `evaluate`, with the lease's token.
#[utoipa::path(get, path = "/evaluations/{id}/tokenizer/{path}", tag = "workers", operation_id = "get_tokenizer_file",
    params(("id" = Uuid, Path), ("path" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = ErrorBody)))]
async fn get_tokenizer_file(
    State(app): State<App>,
    caller: Caller,
    Path((id, path)): Path<(Uuid, String)>,
) -> ApiResult<Response> {
    caller.require(Scope::Evaluate)?;
    let bytes = service::tokenizer::file(&app, &caller, id, &path).await?;
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    Ok((HeaderMap::from_iter(headers), bytes).into_response())
}
