//! `/suites` and `/bindings`

use std::collections::BTreeMap;

use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{DefaultBodyLimit, Multipart, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fineline_api::error::ErrorCode;
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
use crate::extract::{Form, Json, Path, parse_json};
use crate::service;
use crate::service::suite::Upload;

/// The largest part that names runs.
const MAX_PATTERN_BYTES: usize = 1 << 10;

/// The largest definition: a thousand tasks with their files take a few hundred kilobytes.
const MAX_DEFINITION_BYTES: usize = 8 << 20;

/// The most files of a suite.
const MAX_BLOBS: usize = 20_000;

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
async fn create_suite(
    State(app): State<App>,
    caller: Caller,
    Form(form): Form,
) -> ApiResult<(StatusCode, Json<Suite>)> {
    caller.require(Scope::Write)?;
    let (suite, new) = service::suite::create(&app, &caller, read_form(form).await?).await?;
    Ok((if new { StatusCode::CREATED } else { StatusCode::OK }, Json(suite)))
}

async fn read_form(mut form: Multipart) -> ApiResult<Upload> {
    let (mut pattern, mut definition, mut blobs) = (None, None, BTreeMap::new());
    while let Some(mut part) = form.next_field().await.map_err(broken)? {
        let name = part.name().unwrap_or_default().to_owned();
        let known = match name.as_str() {
            PATTERN_PART => {
                let bytes = read_part(&mut part, &name, MAX_PATTERN_BYTES).await?;
                let text = String::from_utf8_lossy(&bytes);
                pattern.replace(text.parse().map_err(ApiError::invalid)?).is_some()
            }
            DEFINITION_PART => {
                let bytes = read_part(&mut part, &name, MAX_DEFINITION_BYTES).await?;
                let parsed = parse_json(&bytes);
                let parsed = parsed.map_err(|error| ApiError::invalid(format!("part `{name}`: {error}")))?;
                definition.replace(parsed).is_some()
            }
            digest => {
                let digest = parse(digest)?;
                let bytes = part.bytes().await.map_err(broken)?;
                blobs.insert(digest, bytes).is_some()
            }
        };
        if known {
            return Err(ApiError::invalid(format!("the form has the part `{name}` twice")));
        }
        if blobs.len() > MAX_BLOBS {
            let message = format!("the form has more than {MAX_BLOBS} files");
            return Err(ApiError::new(ErrorCode::TooLarge, message).hint("split the suite into several"));
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

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` asks for")]
fn broken(error: MultipartError) -> ApiError {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(ErrorCode::TooLarge, "the form is larger than 256 MiB"),
        _ => ApiError::invalid(format!("the form can't be read: {}", error.body_text())),
    }
}

/// A part that is small: it ends with an error as soon as it is not.
async fn read_part(part: &mut Field<'_>, name: &str, max_bytes: usize) -> ApiResult<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(more) = part.chunk().await.map_err(broken)? {
        if bytes.len() + more.len() > max_bytes {
            let message = format!("the part `{name}` has more than {max_bytes} bytes");
            return Err(ApiError::new(ErrorCode::TooLarge, message));
        }
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
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
