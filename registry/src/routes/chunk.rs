//! `/runs/{namespace}/{name}/chunks`

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use fineline_api::chunk::FRAME_MEDIA_TYPE;
use fineline_api::{ErrorBody, MissingChunks, MissingChunksQuery, Scope};
use fineline_format::{Digest, MAX_FRAME_BYTES};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::conditional::{content_headers, respond};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Json, Path, Query, RunPath, read_body, run_name};
use crate::service;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(missing_chunks))
        .routes(routes!(put_chunk, get_chunk))
}

#[derive(Debug, Deserialize)]
struct ChunkPath {
    namespace: String,
    name: String,
    digest: String,
}

impl ChunkPath {
    fn digest(&self) -> ApiResult<Digest> {
        self.digest
            .parse()
            .map_err(|error: fineline_format::digest::ParseDigestError| ApiError::invalid(error.to_string()))
    }
}

/// Which of these chunks the caller has to send. Scope `write`.
#[utoipa::path(post, path = "/runs/{namespace}/{name}/chunks/missing", tag = "chunks", operation_id = "missing_chunks",
    params(("namespace" = String, Path), ("name" = String, Path)), request_body = MissingChunksQuery,
    responses((status = 200, body = MissingChunks), (status = "default", body = ErrorBody)))]
async fn missing_chunks(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<RunPath>,
    Json(query): Json<MissingChunksQuery>,
) -> ApiResult<Json<MissingChunks>> {
    caller.run(&app, &path.run()?, Scope::Write).await?;
    Ok(Json(MissingChunks {
        missing: service::chunk::missing(&app, &caller, query.digests).await?,
    }))
}

/// `?session=&staged=`
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct PutQuery {
    /// The push session that the chunk comes with.
    session: Uuid,
    /// The staging place at which its frame was put; there is no body then.
    staged: Option<Uuid>,
}

/// Sends a chunk as a frame; its raw bytes must have the digest. The frame is the body, or what was put at a staging
/// place of the session. Scope `write`.
#[utoipa::path(put, path = "/runs/{namespace}/{name}/chunks/{digest}", tag = "chunks", operation_id = "put_chunk",
    params(("namespace" = String, Path), ("name" = String, Path), ("digest" = String, Path), PutQuery),
    request_body(content = Vec<u8>, content_type = "application/vnd.fineline.frame"),
    responses((status = 204), (status = 422, body = ErrorBody), (status = "default", body = ErrorBody)))]
async fn put_chunk(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<ChunkPath>,
    Query(query): Query<PutQuery>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<StatusCode> {
    let run = caller
        .run(&app, &run_name(&path.namespace, &path.name)?, Scope::Write)
        .await?;
    let body = read_body(body, &headers, app.store.buffers(), MAX_FRAME_BYTES).await?;
    let (session, digest) = (query.session, path.digest()?);
    match query.staged {
        None => service::chunk::put(&app, &run, session, digest, body).await?,
        Some(_) if !body.is_empty() => return Err(ApiError::invalid("a staged frame comes without a body")),
        Some(staged) => service::staging::take(&app, &caller, &run, session, staged, digest).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `?verify=`
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct GetQuery {
    /// Whether the frame is decoded and hashed before it is sent; a damaged one is a 500, and its chunk counts as missing
    /// from then on. For who was sent a frame that does not hold its chunk.
    #[serde(default)]
    verify: bool,
}

/// A chunk as a frame, as it is stored: its bytes are to be hashed by who reads them. Scope `read`, or a lease.
#[utoipa::path(get, path = "/runs/{namespace}/{name}/chunks/{digest}", tag = "chunks", operation_id = "get_chunk",
    params(("namespace" = String, Path), ("name" = String, Path), ("digest" = String, Path), GetQuery),
    responses((status = 200, body = Vec<u8>, content_type = "application/vnd.fineline.frame"),
        (status = "default", body = ErrorBody)))]
async fn get_chunk(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<ChunkPath>,
    Query(query): Query<GetQuery>,
    request: HeaderMap,
) -> ApiResult<Response> {
    caller
        .run(&app, &run_name(&path.namespace, &path.name)?, Scope::Read)
        .await?;
    let digest = path.digest()?;
    let frame = service::chunk::get(&app, &caller, digest, query.verify).await?;
    let mut headers = content_headers(&digest, true, app.options.anonymous_read)?;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(FRAME_MEDIA_TYPE));
    Ok(respond(&request, &digest, headers, frame))
}
