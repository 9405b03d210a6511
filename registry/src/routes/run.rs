//! `/runs`

use axum::extract::State;
use axum::http::StatusCode;
use fineline_api::run::RunAttributes;
use fineline_api::{CreateRun, DefaultTokenizer, ErrorBody, Page, Run, RunPattern, Scope, SetTokenizer};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::page::limit;
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiResult;
use crate::extract::{Json, Path, Query, RunPath};
use crate::service;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_run, list_runs))
        .routes(routes!(get_run, update_run))
        .routes(routes!(set_run_tokenizer))
}

/// Creates a run. Scope `write`.
#[utoipa::path(post, path = "/runs", tag = "runs", operation_id = "create_run", request_body = CreateRun,
    responses((status = 201, body = Run), (status = "default", body = ErrorBody)))]
async fn create_run(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<CreateRun>,
) -> ApiResult<(StatusCode, Json<Run>)> {
    let run = service::run::create(&app, &caller, new).await?;
    Ok((StatusCode::CREATED, Json(run)))
}

/// `?pattern=&cursor=&limit=`
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct RunsQuery {
    /// Only those that it matches: `NAMESPACE/NAME`, `NAMESPACE/PREFIX*` or `*`.
    #[param(value_type = Option<String>)]
    pattern: Option<RunPattern>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of a page, at most 1,000; 100 when absent.
    limit: Option<u64>,
}

/// The runs that the token may read, by name. Scope `read`.
#[utoipa::path(get, path = "/runs", tag = "runs", operation_id = "list_runs", params(RunsQuery),
    responses((status = 200, body = Page<Run>), (status = "default", body = ErrorBody)))]
async fn list_runs(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<RunsQuery>,
) -> ApiResult<Json<Page<Run>>> {
    let pattern = query.pattern.unwrap_or(RunPattern::All);
    Ok(Json(
        service::run::list(&app, &caller, &pattern, query.cursor.as_deref(), limit(query.limit)).await?,
    ))
}

/// A run. Scope `read`.
#[utoipa::path(get, path = "/runs/{namespace}/{name}", tag = "runs", operation_id = "get_run",
    params(("namespace" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Run), (status = "default", body = ErrorBody)))]
async fn get_run(State(app): State<App>, caller: Caller, Path(path): Path<RunPath>) -> ApiResult<Json<Run>> {
    let run = caller.run(&app, &path.run()?, Scope::Read).await?;
    caller.require(Scope::Read)?;
    Ok(Json(service::run::describe(&app, run).await?))
}

/// Replaces what describes a run. Scope `write`.
#[utoipa::path(patch, path = "/runs/{namespace}/{name}", tag = "runs", operation_id = "update_run",
    params(("namespace" = String, Path), ("name" = String, Path)), request_body = RunAttributes,
    responses((status = 200, body = Run), (status = "default", body = ErrorBody)))]
async fn update_run(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<RunPath>,
    Json(attributes): Json<RunAttributes>,
) -> ApiResult<Json<Run>> {
    let run = caller.run(&app, &path.run()?, Scope::Write).await?;
    Ok(Json(service::run::update(&app, &run, attributes).await?))
}

/// Makes the tokenizer of a checkpoint the run's default, lent to steps that have none of their own. Scope `write`.
#[utoipa::path(put, path = "/runs/{namespace}/{name}/tokenizer", tag = "runs", operation_id = "set_run_tokenizer",
    params(("namespace" = String, Path), ("name" = String, Path)), request_body = SetTokenizer,
    responses((status = 200, body = DefaultTokenizer), (status = 422, body = ErrorBody),
        (status = "default", body = ErrorBody)))]
async fn set_run_tokenizer(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<RunPath>,
    Json(new): Json<SetTokenizer>,
) -> ApiResult<Json<DefaultTokenizer>> {
    let run = caller.run(&app, &path.run()?, Scope::Write).await?;
    Ok(Json(service::tokenizer::set(&app, &caller, &run, new).await?))
}
