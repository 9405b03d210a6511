//! `/runs/{namespace}/{name}/tags` and `/releases`

use axum::extract::State;
use axum::http::StatusCode;
use fineline_api::{CreateRelease, ErrorBody, Release, Scope, SetTag, Tag};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::error::ApiResult;
use crate::extract::{Json, Path, RunPath, run_name};
use crate::service;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_tags))
        .routes(routes!(set_tag, delete_tag))
        .routes(routes!(list_releases, create_release))
}

#[derive(Debug, Deserialize)]
struct TagPath {
    namespace: String,
    name: String,
    tag: String,
}

/// A run's tags by name. Scope `read`.
#[utoipa::path(get, path = "/runs/{namespace}/{name}/tags", tag = "tags", operation_id = "list_tags",
    params(("namespace" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Vec<Tag>), (status = "default", body = ErrorBody)))]
async fn list_tags(State(app): State<App>, caller: Caller, Path(path): Path<RunPath>) -> ApiResult<Json<Vec<Tag>>> {
    let run = caller.run(&app, &path.run()?, Scope::Read).await?;
    service::checkpoint::require_reader(&caller)?;
    Ok(Json(db::tag::list(app.db.reader(), run.id).await?))
}

/// Points a tag to a checkpoint. Scope `write`.
#[utoipa::path(put, path = "/runs/{namespace}/{name}/tags/{tag}", tag = "tags", operation_id = "set_tag",
    params(("namespace" = String, Path), ("name" = String, Path), ("tag" = String, Path)), request_body = SetTag,
    responses((status = 200, body = Tag), (status = "default", body = ErrorBody)))]
async fn set_tag(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<TagPath>,
    Json(set): Json<SetTag>,
) -> ApiResult<Json<Tag>> {
    let run = caller
        .run(&app, &run_name(&path.namespace, &path.name)?, Scope::Write)
        .await?;
    Ok(Json(
        service::tag::set(&app, &caller, &run, &path.tag, &set.reference).await?,
    ))
}

/// Takes a tag away. Scope `write`.
#[utoipa::path(delete, path = "/runs/{namespace}/{name}/tags/{tag}", tag = "tags", operation_id = "delete_tag",
    params(("namespace" = String, Path), ("name" = String, Path), ("tag" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn delete_tag(State(app): State<App>, caller: Caller, Path(path): Path<TagPath>) -> ApiResult<StatusCode> {
    let run = caller
        .run(&app, &run_name(&path.namespace, &path.name)?, Scope::Write)
        .await?;
    service::tag::delete(&app, &run, &path.tag).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A run's releases, the oldest first. Scope `read`.
#[utoipa::path(get, path = "/runs/{namespace}/{name}/releases", tag = "tags", operation_id = "list_releases",
    params(("namespace" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Vec<Release>), (status = "default", body = ErrorBody)))]
async fn list_releases(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<RunPath>,
) -> ApiResult<Json<Vec<Release>>> {
    let run = caller.run(&app, &path.run()?, Scope::Read).await?;
    service::checkpoint::require_reader(&caller)?;
    Ok(Json(db::tag::list_releases(app.db.reader(), run.id).await?))
}

/// Makes a release: a name that never moves. Scope `write`.
#[utoipa::path(post, path = "/runs/{namespace}/{name}/releases", tag = "tags", operation_id = "create_release",
    params(("namespace" = String, Path), ("name" = String, Path)), request_body = CreateRelease,
    responses((status = 201, body = Release), (status = "default", body = ErrorBody)))]
async fn create_release(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<RunPath>,
    Json(new): Json<CreateRelease>,
) -> ApiResult<(StatusCode, Json<Release>)> {
    let run = caller.run(&app, &path.run()?, Scope::Write).await?;
    Ok((
        StatusCode::CREATED,
        Json(service::tag::release(&app, &caller, &run, new).await?),
    ))
}
