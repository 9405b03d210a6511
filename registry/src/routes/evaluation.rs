//! `/evaluations`: seeing and steering them.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use fineline_api::{ErrorBody, Evaluation, EvaluationState, Page, Reference, RunName, Scope};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::page::limit;
use crate::app::App;
use crate::auth::Caller;
use crate::db::evaluation::EvaluationFilter;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Json, Path, Query};
use crate::service;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_evaluations))
        .routes(routes!(get_evaluation))
        .routes(routes!(retry_evaluation))
        .routes(routes!(cancel_evaluation))
        .routes(routes!(get_samples))
}

/// `?run=&ref=&state=&cursor=&limit=`
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct EvaluationsQuery {
    /// Those that a run's steps show: `NAMESPACE/NAME`.
    run: Option<String>,
    /// Those of one checkpoint of that run.
    #[serde(rename = "ref")]
    #[param(rename = "ref")]
    reference: Option<String>,
    /// One state.
    state: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of a page, at most 1,000; 100 when absent.
    limit: Option<u64>,
}

/// Evaluations of runs that the token reads. Scope `read`.
#[utoipa::path(get, path = "/evaluations", tag = "evaluations", operation_id = "list_evaluations",
    params(EvaluationsQuery),
    responses((status = 200, body = Page<Evaluation>), (status = "default", body = ErrorBody)))]
async fn list_evaluations(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<EvaluationsQuery>,
) -> ApiResult<Json<Page<Evaluation>>> {
    caller.require(Scope::Read)?;
    let state: Option<EvaluationState> = query
        .state
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(ApiError::invalid)?;
    let mut filter = EvaluationFilter {
        state,
        ..EvaluationFilter::default()
    };
    if let Some(name) = &query.run {
        let name: RunName = name.parse().map_err(ApiError::invalid)?;
        let run = caller.run(&app, &name, Scope::Read).await?;
        filter.run_id = Some(run.id);
        if let Some(reference) = &query.reference {
            let reference: Reference = reference.parse().map_err(ApiError::invalid)?;
            filter.revision_id = Some(service::checkpoint::resolve(&app, &caller, &run, &reference).await?.id);
        }
    } else if query.reference.is_some() {
        return Err(ApiError::invalid("`ref` needs `run`"));
    }
    let page = service::evaluation::list(&app, &caller, &filter, query.cursor.as_deref(), limit(query.limit));
    Ok(Json(page.await?))
}

/// An evaluation. Scope `read`.
#[utoipa::path(get, path = "/evaluations/{id}", tag = "evaluations", operation_id = "get_evaluation",
    params(("id" = Uuid, Path)), responses((status = 200, body = Evaluation), (status = "default", body = ErrorBody)))]
async fn get_evaluation(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> ApiResult<Json<Evaluation>> {
    caller.require(Scope::Read)?;
    Ok(Json(service::evaluation::get(&app, &caller, id).await?))
}

/// Queues again what failed, was parked or cancelled. Scope `write`.
#[utoipa::path(post, path = "/evaluations/{id}/retry", tag = "evaluations", operation_id = "retry_evaluation",
    params(("id" = Uuid, Path)), responses((status = 200, body = Evaluation), (status = "default", body = ErrorBody)))]
async fn retry_evaluation(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> ApiResult<Json<Evaluation>> {
    Ok(Json(service::evaluation::retry(&app, &caller, id).await?))
}

/// Takes an evaluation back. Scope `write`.
#[utoipa::path(post, path = "/evaluations/{id}/cancel", tag = "evaluations", operation_id = "cancel_evaluation",
    params(("id" = Uuid, Path)), responses((status = 200, body = Evaluation), (status = "default", body = ErrorBody)))]
async fn cancel_evaluation(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> ApiResult<Json<Evaluation>> {
    Ok(Json(service::evaluation::cancel(&app, &caller, id).await?))
}

/// The per-sample log of a task, a JSON object a line with lm-eval's fields. Scope `read`.
#[utoipa::path(get, path = "/evaluations/{id}/tasks/{task}/samples", tag = "evaluations", operation_id = "get_samples",
    params(("id" = Uuid, Path), ("task" = String, Path)),
    responses((status = 200, body = String, content_type = "application/jsonl"),
        (status = "default", body = ErrorBody)))]
async fn get_samples(
    State(app): State<App>,
    caller: Caller,
    Path((id, task)): Path<(Uuid, String)>,
) -> ApiResult<Response> {
    caller.require(Scope::Read)?;
    let samples = service::evaluation::samples(&app, &caller, id, &task).await?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    Ok((HeaderMap::from_iter(headers), samples).into_response())
}
