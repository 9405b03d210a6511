//! `/runs/{namespace}/{name}/checkpoints` and the events of a run.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use fineline_api::{
    Checkpoint, CheckpointFile, CheckpointState, Deletion, ErrorBody, Event, Page, Reference, Scope, Tensor,
};
use fineline_format::Digest;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::conditional::{content_headers, respond};
use super::page::limit;
use crate::app::App;
use crate::auth::Caller;
use crate::db::revision::{RevisionFilter, RevisionRow};
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Json, Path, Query, RunPath, run_name};
use crate::service;
use crate::service::delete::DeleteOptions;

/// The longest that a request may wait for something to happen.
const MAX_WAIT: u64 = 30;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_checkpoints))
        .routes(routes!(get_checkpoint, delete_checkpoint))
        .routes(routes!(get_manifest))
        .routes(routes!(list_files))
        .routes(routes!(list_tensors))
        .routes(routes!(list_events))
}

/// The waiting time that a query asks for, within the bound.
pub(crate) fn wait(seconds: Option<u64>) -> Duration {
    Duration::from_secs(seconds.unwrap_or(0).min(MAX_WAIT))
}

/// The path of a checkpoint.
#[derive(Debug, Deserialize)]
pub(crate) struct CheckpointPath {
    namespace: String,
    name: String,
    reference: String,
}

/// The run and the revision that a path names, when the caller may read them.
pub(crate) async fn resolve(
    app: &App,
    caller: &Caller,
    namespace: &str,
    name: &str,
    reference: &str,
) -> ApiResult<(RunRow, RevisionRow)> {
    let run = caller.run(app, &run_name(namespace, name)?, Scope::Read).await?;
    let reference = parse_reference(reference, &run)?;
    let revision = service::checkpoint::resolve(app, caller, &run, &reference).await?;
    Ok((run, revision))
}

/// What breaks the grammar can't exist.
fn parse_reference(reference: &str, run: &RunRow) -> ApiResult<Reference> {
    let unknown = |_| ApiError::not_found(format!("checkpoint `{reference}` in run `{}`", run.name));
    reference.parse().map_err(unknown)
}

impl CheckpointPath {
    async fn resolve(&self, app: &App, caller: &Caller) -> ApiResult<(RunRow, RevisionRow)> {
        resolve(app, caller, &self.namespace, &self.name, &self.reference).await
    }
}

/// `?step_min=&step_max=&state=&all_revisions=&cursor=&limit=`
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct CheckpointsQuery {
    /// The first step.
    step_min: Option<u64>,
    /// The last step.
    step_max: Option<u64>,
    /// One state, or `any`; `ready` when absent.
    state: Option<String>,
    /// Whether replaced revisions are listed too.
    #[serde(default)]
    all_revisions: bool,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of a page, at most 1,000; 100 when absent.
    limit: Option<u64>,
}

/// A run's checkpoints by step. Scope `read`.
#[utoipa::path(get, path = "/runs/{namespace}/{name}/checkpoints", tag = "checkpoints", operation_id = "list_checkpoints",
    params(("namespace" = String, Path), ("name" = String, Path), CheckpointsQuery),
    responses((status = 200, body = Page<Checkpoint>), (status = "default", body = ErrorBody)))]
async fn list_checkpoints(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<RunPath>,
    Query(query): Query<CheckpointsQuery>,
) -> ApiResult<Json<Page<Checkpoint>>> {
    let run = caller.run(&app, &path.run()?, Scope::Read).await?;
    service::checkpoint::require_reader(&caller)?;
    let state = match query.state.as_deref() {
        None => Some(CheckpointState::Ready),
        Some("any") => None,
        Some(state) => Some(state.parse().map_err(ApiError::invalid)?),
    };
    let filter = RevisionFilter {
        step_min: query.step_min,
        step_max: query.step_max,
        state,
        all_revisions: query.all_revisions,
        evaluable: false,
        deleted: false,
    };
    Ok(Json(
        service::checkpoint::list(&app, &run, filter, query.cursor.as_deref(), limit(query.limit)).await?,
    ))
}

/// A checkpoint by reference: step, `step-N`, spelling, tag, release, `latest` or `sha256:…`. Scope `read`, or a lease.
#[utoipa::path(get, path = "/runs/{namespace}/{name}/checkpoints/{reference}", tag = "checkpoints",
    operation_id = "get_checkpoint",
    params(("namespace" = String, Path), ("name" = String, Path), ("reference" = String, Path)),
    responses((status = 200, body = Checkpoint), (status = "default", body = ErrorBody)))]
async fn get_checkpoint(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<CheckpointPath>,
) -> ApiResult<Json<Checkpoint>> {
    let (run, revision) = path.resolve(&app, &caller).await?;
    let mut described = service::checkpoint::describe(&app, &run, vec![revision]).await?;
    described
        .pop()
        .map(Json)
        .ok_or_else(|| ApiError::internal("a checkpoint has no description"))
}

/// `?force=&scores=&dry_run=`
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct DeleteQuery {
    /// Also when tags or releases point to it; they go with it.
    #[serde(default)]
    force: bool,
    /// Its scores too; else they stay.
    #[serde(default)]
    scores: bool,
    /// Only says what would go.
    #[serde(default)]
    dry_run: bool,
}

/// Takes a step away, with all its revisions; by digest only that revision. Its bytes go after the grace. Scope `write`.
#[utoipa::path(delete, path = "/runs/{namespace}/{name}/checkpoints/{reference}", tag = "checkpoints",
    operation_id = "delete_checkpoint",
    params(("namespace" = String, Path), ("name" = String, Path), ("reference" = String, Path), DeleteQuery),
    responses((status = 200, body = Deletion), (status = "default", body = ErrorBody)))]
async fn delete_checkpoint(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<CheckpointPath>,
    Query(query): Query<DeleteQuery>,
) -> ApiResult<Json<Deletion>> {
    let run = caller
        .run(&app, &run_name(&path.namespace, &path.name)?, Scope::Write)
        .await?;
    let reference = parse_reference(&path.reference, &run)?;
    let options = DeleteOptions {
        force: query.force,
        scores: query.scores,
        dry_run: query.dry_run,
    };
    Ok(Json(
        service::delete::checkpoint(&app, &caller, &run, &reference, options).await?,
    ))
}

/// The canonical manifest, whose SHA-256 is the checkpoint's digest. Scope `read`, or a lease.
#[utoipa::path(get, path = "/runs/{namespace}/{name}/checkpoints/{reference}/manifest", tag = "checkpoints",
    operation_id = "get_manifest",
    params(("namespace" = String, Path), ("name" = String, Path), ("reference" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/json"), (status = "default", body = ErrorBody)))]
async fn get_manifest(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<CheckpointPath>,
    request: HeaderMap,
) -> ApiResult<Response> {
    let (_, revision) = path.resolve(&app, &caller).await?;
    let manifest = service::possession::manifest(&app, &revision).await?;
    let digest = manifest.digest();
    let by_digest = path.reference.starts_with(Digest::PREFIX);
    let mut headers = content_headers(&digest, by_digest, app.options.anonymous_read)?;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(respond(&request, &digest, headers, manifest.to_canonical_json()))
}

/// `?recipes=`
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct FilesQuery {
    /// Whether each file's chunks are listed.
    #[serde(default)]
    recipes: bool,
}

/// The files of a checkpoint. Scope `read`, or a lease.
#[utoipa::path(get, path = "/runs/{namespace}/{name}/checkpoints/{reference}/files", tag = "checkpoints",
    operation_id = "list_files",
    params(("namespace" = String, Path), ("name" = String, Path), ("reference" = String, Path), FilesQuery),
    responses((status = 200, body = Vec<CheckpointFile>), (status = "default", body = ErrorBody)))]
async fn list_files(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<CheckpointPath>,
    Query(query): Query<FilesQuery>,
) -> ApiResult<Json<Vec<CheckpointFile>>> {
    let (_, revision) = path.resolve(&app, &caller).await?;
    Ok(Json(service::checkpoint::files(&app, &revision, query.recipes).await?))
}

/// The tensors of a checkpoint's weights, by name. Scope `read`, or a lease.
#[utoipa::path(get, path = "/runs/{namespace}/{name}/checkpoints/{reference}/tensors", tag = "checkpoints",
    operation_id = "list_tensors",
    params(("namespace" = String, Path), ("name" = String, Path), ("reference" = String, Path)),
    responses((status = 200, body = Vec<Tensor>), (status = "default", body = ErrorBody)))]
async fn list_tensors(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<CheckpointPath>,
) -> ApiResult<Json<Vec<Tensor>>> {
    let (_, revision) = path.resolve(&app, &caller).await?;
    Ok(Json(service::checkpoint::tensors(&app, &revision).await?))
}

/// `?after=&wait_s=&limit=`
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    /// The last event that is known; 0 when absent.
    #[serde(default)]
    after: i64,
    /// Seconds to wait for one, at most 30.
    wait_s: Option<u64>,
    /// Events at most, 1,000 at the most; 100 when absent.
    limit: Option<u64>,
}

/// What happened to a run, the oldest first. Scope `read`.
#[utoipa::path(get, path = "/runs/{namespace}/{name}/events", tag = "checkpoints", operation_id = "list_events",
    params(("namespace" = String, Path), ("name" = String, Path), EventsQuery),
    responses((status = 200, body = Vec<Event>), (status = "default", body = ErrorBody)))]
async fn list_events(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<RunPath>,
    Query(query): Query<EventsQuery>,
) -> ApiResult<Json<Vec<Event>>> {
    let run = caller.run(&app, &path.run()?, Scope::Read).await?;
    service::checkpoint::require_reader(&caller)?;
    let events = service::checkpoint::events(&app, &run, query.after, limit(query.limit), wait(query.wait_s));
    Ok(Json(events.await?))
}
