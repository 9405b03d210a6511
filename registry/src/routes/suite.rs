//! `/suites` and `/bindings`

use std::collections::BTreeMap;

use axum::extract::{DefaultBodyLimit, Multipart, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fineline_api::suite::{DEFINITION_PART, MAX_SUITE_BYTES, PATTERN_PART};
use fineline_api::{BackfillPlan, Binding, CreateBinding, ErrorBody, Scope, Suite};
use fineline_format::Digest;
use serde::Deserialize;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Json, Path};
use crate::service;
use crate::service::suite::Upload;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_suite, list_suites).layer(DefaultBodyLimit::max(MAX_SUITE_BYTES as usize)))
        .routes(routes!(get_suite))
        .routes(routes!(get_suite_blob))
        .routes(routes!(create_binding, list_bindings))
        .routes(routes!(plan_binding))
        .routes(routes!(delete_binding))
}

fn parse(digest: &str) -> ApiResult<Digest> {
    digest
        .parse()
        .map_err(|error: fineline_format::digest::ParseDigestError| ApiError::invalid(error.to_string()))
}

/// Uploads a suite with its files: a form with the parts `pattern`, `definition` and one for each file, named by its
/// digest. 200 when it is held already. Scope `write`.
#[utoipa::path(post, path = "/suites", tag = "suites", operation_id = "create_suite",
    request_body(content = Vec<u8>, content_type = "multipart/form-data"),
    responses((status = 201, body = Suite), (status = 200, body = Suite), (status = 422, body = ErrorBody),
        (status = "default", body = ErrorBody)))]
async fn create_suite(State(app): State<App>, caller: Caller, form: Multipart) -> ApiResult<(StatusCode, Json<Suite>)> {
    caller.require(Scope::Write)?;
    let (suite, new) = service::suite::create(&app, &caller, read_form(form).await?).await?;
    Ok((if new { StatusCode::CREATED } else { StatusCode::OK }, Json(suite)))
}

async fn read_form(mut form: Multipart) -> ApiResult<Upload> {
    let refused = |error: axum::extract::multipart::MultipartError| ApiError::invalid(error.body_text());
    let (mut pattern, mut definition, mut blobs) = (None, None, BTreeMap::new());
    while let Some(part) = form.next_field().await.map_err(refused)? {
        let name = part.name().unwrap_or_default().to_owned();
        let bytes = part.bytes().await.map_err(refused)?;
        match name.as_str() {
            PATTERN_PART => {
                let text = String::from_utf8_lossy(&bytes);
                pattern = Some(text.parse().map_err(ApiError::invalid)?);
            }
            DEFINITION_PART => {
                let parsed = serde_json::from_slice(&bytes);
                definition = Some(parsed.map_err(|error| ApiError::invalid(format!("part `{name}`: {error}")))?);
            }
            digest => {
                blobs.insert(parse(digest)?, bytes);
            }
        }
    }
    let missing = |part: &str| ApiError::invalid(format!("the form has no part `{part}`"));
    let pattern = pattern.ok_or_else(|| missing(PATTERN_PART))?;
    Ok(Upload {
        pattern,
        definition: definition.ok_or_else(|| missing(DEFINITION_PART))?,
        blobs,
    })
}

/// The suites that were uploaded for runs which the token reads. Scope `read`.
#[utoipa::path(get, path = "/suites", tag = "suites", operation_id = "list_suites",
    responses((status = 200, body = Vec<Suite>), (status = "default", body = ErrorBody)))]
async fn list_suites(State(app): State<App>, caller: Caller) -> ApiResult<Json<Vec<Suite>>> {
    Ok(Json(service::suite::list(&app, &caller).await?))
}

/// A suite's definition. Scope `read`, or a lease.
#[utoipa::path(get, path = "/suites/{digest}", tag = "suites", operation_id = "get_suite",
    params(("digest" = String, Path)),
    responses((status = 200, body = Object), (status = "default", body = ErrorBody)))]
async fn get_suite(
    State(app): State<App>,
    caller: Caller,
    Path(digest): Path<String>,
) -> ApiResult<Json<fineline_format::suite::SuiteDefinition>> {
    Ok(Json(service::suite::get(&app, &caller, parse(&digest)?).await?))
}

#[derive(Debug, Deserialize)]
struct BlobPath {
    digest: String,
    blob: String,
}

/// A file of a suite. Scope `read`, or a lease.
#[utoipa::path(get, path = "/suites/{digest}/blobs/{blob}", tag = "suites", operation_id = "get_suite_blob",
    params(("digest" = String, Path), ("blob" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = ErrorBody)))]
async fn get_suite_blob(State(app): State<App>, caller: Caller, Path(path): Path<BlobPath>) -> ApiResult<Response> {
    let bytes = service::suite::blob(&app, &caller, parse(&path.digest)?, parse(&path.blob)?).await?;
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, max-age=31536000, immutable"),
        ),
        (header::VARY, HeaderValue::from_static("Authorization")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    Ok((HeaderMap::from_iter(headers), bytes).into_response())
}

/// Binds a suite to runs, so that every evaluable step of them is evaluated. Scope `write`.
#[utoipa::path(post, path = "/bindings", tag = "suites", operation_id = "create_binding", request_body = CreateBinding,
    responses((status = 201, body = Binding), (status = "default", body = ErrorBody)))]
async fn create_binding(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<CreateBinding>,
) -> ApiResult<(StatusCode, Json<Binding>)> {
    caller.require(Scope::Write)?;
    Ok((
        StatusCode::CREATED,
        Json(service::suite::bind(&app, &caller, new).await?),
    ))
}

/// What a binding with a back-fill would queue, without making it; the suite need not be uploaded yet. Scope `write`.
#[utoipa::path(post, path = "/bindings/plan", tag = "suites", operation_id = "plan_binding", request_body = CreateBinding,
    responses((status = 200, body = BackfillPlan), (status = "default", body = ErrorBody)))]
async fn plan_binding(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<CreateBinding>,
) -> ApiResult<Json<BackfillPlan>> {
    caller.require(Scope::Write)?;
    Ok(Json(service::suite::plan(&app, &caller, new).await?))
}

/// The bindings that concern runs which the token reads. Scope `read`.
#[utoipa::path(get, path = "/bindings", tag = "suites", operation_id = "list_bindings",
    responses((status = 200, body = Vec<Binding>), (status = "default", body = ErrorBody)))]
async fn list_bindings(State(app): State<App>, caller: Caller) -> ApiResult<Json<Vec<Binding>>> {
    Ok(Json(service::suite::bindings(&app, &caller).await?))
}

/// Takes a binding away; what is queued stays. Scope `write`.
#[utoipa::path(delete, path = "/bindings/{id}", tag = "suites", operation_id = "delete_binding",
    params(("id" = Uuid, Path)), responses((status = 204), (status = "default", body = ErrorBody)))]
async fn delete_binding(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> ApiResult<StatusCode> {
    service::suite::unbind(&app, &caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
