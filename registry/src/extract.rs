//! axum's extractors with our errors: a request that can't be understood answers like every other error.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Multipart, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use fineline_api::RunName;
use fineline_api::error::ErrorCode;
use fineline_format::Buffers;
use futures::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{ApiError, ApiResult};

const TOO_LARGE: &str = "the body is larger than this door takes";

/// A JSON object as body. A field that the type does not know is refused by its path: what was meant by it would be lost.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = json_body(request, state).await?;
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(ApiError::invalid("the body is no JSON object, which this door takes"));
        }
        parse_json(&bytes).map(Self)
    }
}

/// A JSON list as body.
#[derive(Debug)]
pub(crate) struct JsonList<T>(pub(crate) Vec<T>);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonList<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        parse_json(&json_body(request, state).await?).map(Self)
    }
}

async fn json_body<S: Send + Sync>(request: Request, state: &S) -> ApiResult<Bytes> {
    let content_type = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let is_json = content_type.is_some_and(|value| value.to_ascii_lowercase().starts_with("application/json"));
    if !is_json {
        return Err(ApiError::invalid("the body is no JSON: send it as `application/json`"));
    }
    let Body(bytes) = Body::<Bytes>::from_request(request, state).await?;
    Ok(bytes)
}

/// Reads JSON that was sent.
///
/// # Errors
/// 400 for what is no JSON, of another shape, or holds a NUL.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    if holds_nul(bytes) {
        return Err(ApiError::invalid("the body holds a NUL character, which no text may"));
    }
    let refused =
        |error: serde_json::Error| ApiError::invalid(format!("the body is not what this door takes: {error}"));
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let mut unknown: Option<String> = None;
    let value = serde_ignored::deserialize(&mut reader, |path| {
        unknown.get_or_insert_with(|| path.to_string());
    });
    let value = value.map_err(refused)?;
    reader.end().map_err(refused)?;
    match unknown {
        Some(path) => Err(ApiError::invalid(format!(
            "unknown field `{path}`: leave it out, or mend its name"
        ))),
        None => Ok(value),
    }
}

/// Whether JSON text holds an escaped NUL: not every database can keep one. A bare one is no JSON.
fn holds_nul(json: &[u8]) -> bool {
    const NUL: &[u8] = b"\\u0000";
    let mut rest = json;
    while let Some(at) = rest.iter().position(|&b| b == b'\\') {
        if rest[at..].starts_with(NUL) {
            return true;
        }
        // What follows the backslash is escaped by it, another backslash too.
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    false
}

/// Parts of the path.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiError))]
pub(crate) struct Path<T>(pub(crate) T);

/// The query.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(ApiError))]
pub(crate) struct Query<T>(pub(crate) T);

/// A multipart form.
#[derive(Debug)]
pub(crate) struct Form(pub(crate) Multipart);

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let form = Multipart::from_request(request, state).await;
        form.map(Self)
            .map_err(|rejection| ApiError::invalid(format!("the body is no form: {}", rejection.body_text())))
    }
}

/// A body of bytes, whole.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync> FromRequest<S> for Body<Bytes> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Bytes::from_request(request, state).await {
            Ok(bytes) => Ok(Self(bytes)),
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(ApiError::new(ErrorCode::TooLarge, TOO_LARGE))
            }
            Err(rejection) => Err(ApiError::invalid(rejection.body_text())),
        }
    }
}

/// Reads a body of at most `max_bytes` into memory that is used again.
///
/// # Errors
/// 413 when it is longer, 400 when it breaks off.
pub(crate) async fn read_body(
    body: axum::body::Body,
    headers: &HeaderMap,
    buffers: &Buffers,
    max_bytes: usize,
) -> ApiResult<Bytes> {
    let too_large = || ApiError::new(ErrorCode::TooLarge, TOO_LARGE);
    let said = headers
        .get(CONTENT_LENGTH)
        .and_then(|said| said.to_str().ok()?.parse().ok());
    let said: usize = said.unwrap_or(0);
    if said > max_bytes {
        return Err(too_large());
    }
    let mut bytes = buffers.empty(said);
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| ApiError::invalid(format!("the body broke off: {error}")))?;
        if bytes.len() + part.len() > max_bytes {
            return Err(too_large());
        }
        bytes.extend_from_slice(&part);
    }
    Ok(Bytes::from_owner(bytes))
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

/// `/runs/{namespace}/{name}` and what follows: the path's parts beside `rest` are a run.
#[derive(Debug, Deserialize)]
pub(crate) struct RunPath {
    namespace: String,
    name: String,
}

impl RunPath {
    /// The run that the path names; one that breaks the grammar can't exist.
    ///
    /// # Errors
    /// 404.
    pub(crate) fn run(&self) -> ApiResult<RunName> {
        run_name(&self.namespace, &self.name)
    }
}

/// The run that two parts of a path name; one that breaks the grammar can't exist.
///
/// # Errors
/// 404.
pub(crate) fn run_name(namespace: &str, name: &str) -> ApiResult<RunName> {
    RunName::new(namespace, name).map_err(|_| ApiError::not_found(format!("run `{namespace}/{name}`")))
}

impl<T: serde::Serialize> axum::response::IntoResponse for Json<T> {
    fn into_response(self) -> axum::response::Response {
        axum::Json(self.0).into_response()
    }
}

#[cfg(test)]
mod tests {
    use fineline_api::checkpoint::CheckpointFile;

    use super::*;

    #[test]
    fn an_unknown_field_is_refused_by_its_path_however_deep() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let file = |extra: &str| {
            format!(
                r#"[{{"path":"a","size_bytes":1,"digest":"{digest}","chunks":[{{"digest":"{digest}","size_bytes":1{extra}}}]}}]"#
            )
        };
        assert!(parse_json::<Vec<CheckpointFile>>(file("").as_bytes()).is_ok());
        let error = parse_json::<Vec<CheckpointFile>>(file(r#","codec":"zstd""#).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("`0.chunks.0.codec`"), "{error}");
        for (text, holds) in [
            (r#"["\u0000"]"#, true),
            (r#"["\\u0000"]"#, false),
            (r#"["\\\u0000"]"#, true),
        ] {
            assert_eq!(holds_nul(text.as_bytes()), holds, "{text}");
        }
        let error = parse_json::<Vec<CheckpointFile>>(b"[] []").unwrap_err();
        assert!(error.to_string().contains("trailing characters"), "{error}");
    }
}
