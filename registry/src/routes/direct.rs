//! `/runs/{namespace}/{name}/chunks/locations` and `…/push-sessions/{id}/staging`: bytes without the registry between.

use axum::extract::State;
use axum::http::{HeaderName, header};
use fineline_api::{ChunkLocations, ErrorBody, LocateChunks, Scope, StageFrames, StagingPlaces};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiResult;
use crate::extract::{Json, Path, RunPath, run_name};
use crate::service;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(locate_chunks))
        .routes(routes!(stage_frames))
}

/// An answer with presigned URLs, which nothing on its way may keep.
type Unkept<T> = ([(HeaderName, &'static str); 1], axum::Json<T>);

fn unkept<T>(answer: T) -> Unkept<T> {
    ([(header::CACHE_CONTROL, "no-store")], axum::Json(answer))
}

/// Where frames can be read without the registry: presigned URLs of those that the caller may read, where the store is a
/// bucket that gives them. Scope `read`, or a lease.
#[utoipa::path(post, path = "/runs/{namespace}/{name}/chunks/locations", tag = "chunks", operation_id = "locate_chunks",
    params(("namespace" = String, Path), ("name" = String, Path)), request_body = LocateChunks,
    responses((status = 200, body = ChunkLocations), (status = "default", body = ErrorBody)))]
async fn locate_chunks(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<RunPath>,
    Json(query): Json<LocateChunks>,
) -> ApiResult<Unkept<ChunkLocations>> {
    caller.run(&app, &path.run()?, Scope::Read).await?;
    Ok(unkept(service::locate::locate(&app, &caller, &query.digests).await?))
}

#[derive(Debug, Deserialize)]
struct SessionPath {
    namespace: String,
    name: String,
    id: Uuid,
}

/// Places at which frames can be put without the registry, then told of by `put_chunk`; none where the store is no bucket
/// that gives them. Scope `write`.
#[utoipa::path(post, path = "/runs/{namespace}/{name}/push-sessions/{id}/staging", tag = "push sessions",
    operation_id = "stage_frames",
    params(("namespace" = String, Path), ("name" = String, Path), ("id" = Uuid, Path)), request_body = StageFrames,
    responses((status = 200, body = StagingPlaces), (status = "default", body = ErrorBody)))]
async fn stage_frames(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<SessionPath>,
    Json(wanted): Json<StageFrames>,
) -> ApiResult<Unkept<StagingPlaces>> {
    let run = caller
        .run(&app, &run_name(&path.namespace, &path.name)?, Scope::Write)
        .await?;
    Ok(unkept(service::staging::open(&app, &run, path.id, wanted.n).await?))
}
