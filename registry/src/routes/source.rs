//! `/sources`

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use fineline_api::{CreateSource, ErrorBody, Scope, Source, SourcePreview, SourceState, SourceStep};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::{Caller, bearer};
use crate::error::ApiResult;
use crate::extract::{Json, Path};
use crate::service;

/// The most of what a webhook says; nothing of it is read.
const MAX_EVENT_BYTES: usize = 1 << 20;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_source, list_sources))
        .routes(routes!(preview_source))
        .routes(routes!(get_source, delete_source))
        .routes(routes!(list_source_steps))
        .routes(routes!(sync_source))
        .routes(routes!(pause_source))
        .merge(
            OpenApiRouter::new()
                .routes(routes!(hear_source))
                .layer(DefaultBodyLimit::max(MAX_EVENT_BYTES)),
        )
}

/// Makes a source: its checkpoints come in by themselves from now on. Scope `admin`, for all runs.
#[utoipa::path(post, path = "/sources", tag = "sources", operation_id = "create_source", request_body = CreateSource,
    responses((status = 201, body = Source), (status = "default", body = ErrorBody)))]
async fn create_source(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<CreateSource>,
) -> ApiResult<(StatusCode, Json<Source>)> {
    caller.require_whole(Scope::Admin)?;
    let run = caller.run(&app, &new.run, Scope::Admin).await?;
    let source = service::source::create(&app, &run, new).await?;
    Ok((StatusCode::CREATED, Json(source)))
}

/// All sources, without their secrets. Scope `admin`, for all runs.
#[utoipa::path(get, path = "/sources", tag = "sources", operation_id = "list_sources",
    responses((status = 200, body = Vec<Source>), (status = "default", body = ErrorBody)))]
async fn list_sources(State(app): State<App>, caller: Caller) -> ApiResult<Json<Vec<Source>>> {
    caller.require_whole(Scope::Admin)?;
    Ok(Json(service::source::list(&app).await?))
}

/// What a source would bring: steps, tokens, bytes, what is held and what looks wrong. Nothing is made. Scope `admin`, for
/// all runs.
#[utoipa::path(post, path = "/sources/preview", tag = "sources", operation_id = "preview_source",
    request_body = CreateSource, responses((status = 200, body = SourcePreview), (status = "default", body = ErrorBody)))]
async fn preview_source(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<CreateSource>,
) -> ApiResult<Json<SourcePreview>> {
    caller.require_whole(Scope::Admin)?;
    let run = caller.run(&app, &new.run, Scope::Admin).await?;
    Ok(Json(service::source::preview(&app, &run, new).await?))
}

/// A source. Scope `admin`, for all runs.
#[utoipa::path(get, path = "/sources/{source}", tag = "sources", operation_id = "get_source",
    params(("source" = String, Path, description = "its name")),
    responses((status = 200, body = Source), (status = "default", body = ErrorBody)))]
async fn get_source(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> ApiResult<Json<Source>> {
    caller.require_whole(Scope::Admin)?;
    let row = service::source::find(&app, &name).await?;
    Ok(Json(service::source::describe(&app, row).await?))
}

/// Forgets a source; the steps that came of it stay. Scope `admin`, for all runs.
#[utoipa::path(delete, path = "/sources/{source}", tag = "sources", operation_id = "delete_source",
    params(("source" = String, Path, description = "its name")),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn delete_source(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> ApiResult<StatusCode> {
    caller.require_whole(Scope::Admin)?;
    service::source::remove(&app, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The checkpoints of a source and how far each is, by step, those without one last. Scope `admin`, for all runs.
#[utoipa::path(get, path = "/sources/{source}/steps", tag = "sources", operation_id = "list_source_steps",
    params(("source" = String, Path, description = "its name")),
    responses((status = 200, body = Vec<SourceStep>), (status = "default", body = ErrorBody)))]
async fn list_source_steps(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> ApiResult<Json<Vec<SourceStep>>> {
    caller.require_whole(Scope::Admin)?;
    Ok(Json(service::source::steps(&app, &name).await?))
}

/// Looks at a source at once; one that is paused or done is active again. Scope `admin`, for all runs.
#[utoipa::path(post, path = "/sources/{source}/sync", tag = "sources", operation_id = "sync_source",
    params(("source" = String, Path, description = "its name")),
    responses((status = 200, body = Source), (status = "default", body = ErrorBody)))]
async fn sync_source(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> ApiResult<Json<Source>> {
    caller.require_whole(Scope::Admin)?;
    Ok(Json(
        service::source::set_state(&app, &name, SourceState::Active).await?,
    ))
}

/// Pauses a source: it is not looked at until it is synced again. Scope `admin`, for all runs.
#[utoipa::path(post, path = "/sources/{source}/pause", tag = "sources", operation_id = "pause_source",
    params(("source" = String, Path, description = "its name")),
    responses((status = 200, body = Source), (status = "default", body = ErrorBody)))]
async fn pause_source(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> ApiResult<Json<Source>> {
    caller.require_whole(Scope::Admin)?;
    Ok(Json(
        service::source::set_state(&app, &name, SourceState::Paused).await?,
    ))
}

/// Tells a source that there is news: for a Hub's webhook and a bucket's notifications. What it says is not read: the source
/// is looked at at once. Needs no token but the source's secret, as `X-Webhook-Secret` or as bearer.
#[utoipa::path(post, path = "/sources/{source}/events", tag = "sources", operation_id = "hear_source",
    params(("source" = String, Path, description = "its name")), security(()),
    responses((status = 202), (status = "default", body = ErrorBody)))]
async fn hear_source(State(app): State<App>, Path(name): Path<String>, headers: HeaderMap) -> ApiResult<StatusCode> {
    let said = headers.get("x-webhook-secret").and_then(|value| value.to_str().ok());
    service::source::hear(&app, &name, said.or_else(|| bearer(&headers))).await?;
    Ok(StatusCode::ACCEPTED)
}
