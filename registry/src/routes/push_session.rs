//! `/runs/{namespace}/{name}/push-sessions`

use axum::extract::State;
use axum::http::StatusCode;
use fineline_api::{
    CheckpointFile, CommitPushSession, CreatePushSession, ErrorBody, PushSession, PushSessionState, Scope,
};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::checkpoint::wait;
use crate::app::App;
use crate::auth::Caller;
use crate::db::run::RunRow;
use crate::error::ApiResult;
use crate::extract::{Json, Path, Query, RunPath, run_name};
use crate::service;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_push_session))
        .routes(routes!(get_push_session, abort_push_session))
        .routes(routes!(add_push_session_file, list_push_session_files))
        .routes(routes!(commit_push_session))
        .routes(routes!(heartbeat_push_session))
}

#[derive(Debug, Deserialize)]
struct SessionPath {
    namespace: String,
    name: String,
    id: Uuid,
}

impl SessionPath {
    async fn run(&self, app: &App, caller: &Caller) -> ApiResult<RunRow> {
        caller
            .run(app, &run_name(&self.namespace, &self.name)?, Scope::Write)
            .await
    }
}

/// Opens a push session for a step, or goes on with the open one for the same manifest. Scope `write`.
#[utoipa::path(post, path = "/runs/{namespace}/{name}/push-sessions", tag = "push sessions",
    operation_id = "create_push_session", params(("namespace" = String, Path), ("name" = String, Path)),
    request_body = CreatePushSession,
    responses((status = 201, body = PushSession), (status = 409, body = ErrorBody), (status = "default", body = ErrorBody)))]
async fn create_push_session(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<RunPath>,
    Json(new): Json<CreatePushSession>,
) -> ApiResult<(StatusCode, Json<PushSession>)> {
    let run = caller.run(&app, &path.run()?, Scope::Write).await?;
    Ok((
        StatusCode::CREATED,
        Json(service::push_session::create(&app, &run, new).await?),
    ))
}

/// `?wait_s=`
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct WaitQuery {
    /// Seconds to wait for it to leave `verifying`, at most 30.
    wait_s: Option<u64>,
}

/// A push session. Scope `write`.
#[utoipa::path(get, path = "/runs/{namespace}/{name}/push-sessions/{id}", tag = "push sessions",
    operation_id = "get_push_session",
    params(("namespace" = String, Path), ("name" = String, Path), ("id" = Uuid, Path), WaitQuery),
    responses((status = 200, body = PushSession), (status = "default", body = ErrorBody)))]
async fn get_push_session(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<SessionPath>,
    Query(query): Query<WaitQuery>,
) -> ApiResult<Json<PushSession>> {
    let run = path.run(&app, &caller).await?;
    Ok(Json(
        service::push_session::get(&app, &run, path.id, wait(query.wait_s)).await?,
    ))
}

/// Gives a push session a file with its recipe. The same path again replaces it; in a session with a name, which several
/// ranks fill, other bytes at a path are a 409. Scope `write`.
#[utoipa::path(post, path = "/runs/{namespace}/{name}/push-sessions/{id}/files", tag = "push sessions",
    operation_id = "add_push_session_file",
    params(("namespace" = String, Path), ("name" = String, Path), ("id" = Uuid, Path)), request_body = CheckpointFile,
    responses((status = 204), (status = 422, body = ErrorBody), (status = "default", body = ErrorBody)))]
async fn add_push_session_file(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<SessionPath>,
    Json(file): Json<CheckpointFile>,
) -> ApiResult<StatusCode> {
    let run = path.run(&app, &caller).await?;
    service::push_session::add_file(&app, &run, path.id, file).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The files that a push session was given so far, by path, without their chunks. Scope `write`.
#[utoipa::path(get, path = "/runs/{namespace}/{name}/push-sessions/{id}/files", tag = "push sessions",
    operation_id = "list_push_session_files",
    params(("namespace" = String, Path), ("name" = String, Path), ("id" = Uuid, Path)),
    responses((status = 200, body = Vec<CheckpointFile>), (status = "default", body = ErrorBody)))]
async fn list_push_session_files(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<SessionPath>,
) -> ApiResult<Json<Vec<CheckpointFile>>> {
    let run = path.run(&app, &caller).await?;
    Ok(Json(service::push_session::files(&app, &run, path.id).await?))
}

/// Commits a push session; 202 while its files are read back, 200 when its checkpoint is ready. Scope `write`.
#[utoipa::path(post, path = "/runs/{namespace}/{name}/push-sessions/{id}/commit", tag = "push sessions",
    operation_id = "commit_push_session",
    params(("namespace" = String, Path), ("name" = String, Path), ("id" = Uuid, Path)),
    request_body = CommitPushSession,
    responses((status = 200, body = PushSession), (status = 202, body = PushSession), (status = 409, body = ErrorBody),
        (status = 422, body = ErrorBody), (status = "default", body = ErrorBody)))]
async fn commit_push_session(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<SessionPath>,
    Json(commit): Json<CommitPushSession>,
) -> ApiResult<(StatusCode, Json<PushSession>)> {
    let run = path.run(&app, &caller).await?;
    let session = service::commit::commit(&app, &caller, &run, path.id, commit.manifest_digest).await?;
    let verifying = session.state == PushSessionState::Verifying;
    Ok((
        if verifying {
            StatusCode::ACCEPTED
        } else {
            StatusCode::OK
        },
        Json(session),
    ))
}

/// Keeps a push session from expiring. Scope `write`.
#[utoipa::path(post, path = "/runs/{namespace}/{name}/push-sessions/{id}/heartbeat", tag = "push sessions",
    operation_id = "heartbeat_push_session",
    params(("namespace" = String, Path), ("name" = String, Path), ("id" = Uuid, Path)),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn heartbeat_push_session(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<SessionPath>,
) -> ApiResult<StatusCode> {
    let run = path.run(&app, &caller).await?;
    service::push_session::heartbeat(&app, &run, path.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes an open push session back; what arrived is not sent again by a later push. Scope `write`.
#[utoipa::path(delete, path = "/runs/{namespace}/{name}/push-sessions/{id}", tag = "push sessions",
    operation_id = "abort_push_session",
    params(("namespace" = String, Path), ("name" = String, Path), ("id" = Uuid, Path)),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn abort_push_session(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<SessionPath>,
) -> ApiResult<StatusCode> {
    let run = path.run(&app, &caller).await?;
    let session = service::push_session::find_open(&app, &run, path.id).await?;
    service::push_session::abandon(&app, &session, PushSessionState::Aborted).await?;
    Ok(StatusCode::NO_CONTENT)
}
