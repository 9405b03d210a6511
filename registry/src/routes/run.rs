//! `/runs`

use axum::extract::State;
use axum::http::StatusCode;
use fineline_api::run::RunAttributes;
use fineline_api::{
    CreateRun, DefaultTokenizer, Deletion, ErrorBody, Page, Retention, Run, RunPattern, Scope, SetTokenizer,
};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::page::limit;
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiResult;
use crate::extract::{Json, Path, Query, RunPath};
use crate::service;
use crate::service::delete::DeleteOptions;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_run, list_runs))
        .routes(routes!(get_run, update_run, delete_run))
        .routes(routes!(set_run_tokenizer))
        .routes(routes!(set_retention, delete_retention))
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

/// `?force=&dry_run=`
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct DeleteRunQuery {
    /// Also when it has tags or releases.
    #[serde(default)]
    force: bool,
    /// Only says what would go.
    #[serde(default)]
    dry_run: bool,
}

/// Takes a run away with its checkpoints and scores; its bytes go after the grace. Scope `admin`.
#[utoipa::path(delete, path = "/runs/{namespace}/{name}", tag = "runs", operation_id = "delete_run",
    params(("namespace" = String, Path), ("name" = String, Path), DeleteRunQuery),
    responses((status = 200, body = Deletion), (status = "default", body = ErrorBody)))]
async fn delete_run(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<RunPath>,
    Query(query): Query<DeleteRunQuery>,
) -> ApiResult<Json<Deletion>> {
    let run = caller.run(&app, &path.run()?, Scope::Admin).await?;
    let options = DeleteOptions {
        force: query.force,
        scores: true,
        dry_run: query.dry_run,
    };
    Ok(Json(service::delete::run(&app, &caller, &run, options).await?))
}

/// `?dry_run=`
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct RetentionQuery {
    /// Only says what would go; the rule is not set.
    #[serde(default)]
    dry_run: bool,
}

/// Sets which steps a run keeps, and takes the others away, now and from now on. Scope `write`.
#[utoipa::path(put, path = "/runs/{namespace}/{name}/retention", tag = "runs", operation_id = "set_retention",
    params(("namespace" = String, Path), ("name" = String, Path), RetentionQuery), request_body = Retention,
    responses((status = 200, body = Deletion), (status = "default", body = ErrorBody)))]
async fn set_retention(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<RunPath>,
    Query(query): Query<RetentionQuery>,
    Json(rule): Json<Retention>,
) -> ApiResult<Json<Deletion>> {
    let run = caller.run(&app, &path.run()?, Scope::Write).await?;
    Ok(Json(
        service::retention::set(&app, &caller, &run, rule, query.dry_run).await?,
    ))
}

/// Lets a run keep all its steps from now on. Scope `write`.
#[utoipa::path(delete, path = "/runs/{namespace}/{name}/retention", tag = "runs", operation_id = "delete_retention",
    params(("namespace" = String, Path), ("name" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn delete_retention(State(app): State<App>, caller: Caller, Path(path): Path<RunPath>) -> ApiResult<StatusCode> {
    let run = caller.run(&app, &path.run()?, Scope::Write).await?;
    service::retention::unset(&app, &run).await?;
    Ok(StatusCode::NO_CONTENT)
}
