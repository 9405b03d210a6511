//! `/runs/{namespace}/{name}/checkpoints/{reference}/files/{path}`: a file's bytes, whole or in part.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fineline_api::range::{Asked, parse_range};
use fineline_api::{ErrorBody, ErrorCode};
use fineline_format::Digest;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::checkpoint::resolve;
use super::conditional::{content_headers, is_held};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult};
use crate::extract::Path;
use crate::service;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_file))
}

#[derive(Debug, Deserialize)]
struct FilePath {
    namespace: String,
    name: String,
    reference: String,
    path: String,
}

/// A file's bytes, with a single `Range` where asked; HEAD gives the headers alone. `ETag` and `Repr-Digest` hold its
/// SHA-256. Scope `read`, or a lease.
#[utoipa::path(get, path = "/runs/{namespace}/{name}/checkpoints/{reference}/files/{*path}", tag = "checkpoints",
    operation_id = "get_file",
    params(("namespace" = String, Path), ("name" = String, Path), ("reference" = String, Path), ("path" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = 206), (status = 304),
        (status = 416, body = ErrorBody), (status = "default", body = ErrorBody)))]
async fn get_file(
    State(app): State<App>,
    caller: Caller,
    method: Method,
    Path(path): Path<FilePath>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let (_, revision) = resolve(&app, &caller, &path.namespace, &path.name, &path.reference).await?;
    let file = service::checkpoint::file(&app, &revision, &path.path).await?;
    let by_digest = path.reference.starts_with(Digest::PREFIX);
    let mut answer = content_headers(&file.digest, by_digest, app.options.anonymous_read)?;
    describe(&mut answer, &file.digest, &path.path)?;
    if is_held(&headers, &file.digest) {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    let still_same = headers
        .get(header::IF_RANGE)
        .is_none_or(|value| Some(value) == answer.get(header::ETAG));
    let asked = headers
        .get(header::RANGE)
        .filter(|_| still_same)
        .and_then(|value| value.to_str().ok());
    let (status, range) = match asked.map(|text| parse_range(text, file.size_bytes)) {
        None | Some(Asked::Ignored) => (StatusCode::OK, 0..file.size_bytes),
        Some(Asked::Part(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(Asked::Outside) => {
            let message = format!(
                "file `{}` has {} bytes, the range asked lies outside",
                path.path, file.size_bytes
            );
            let mut refusal = ApiError::new(ErrorCode::RangeNotSatisfiable, message).into_response();
            let all = HeaderValue::from_str(&format!("bytes */{}", file.size_bytes)).map_err(ApiError::internal)?;
            refusal.headers_mut().insert(header::CONTENT_RANGE, all);
            return Ok(refusal);
        }
    };
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {}-{}/{}", range.start, range.end - 1, file.size_bytes);
        answer.insert(
            header::CONTENT_RANGE,
            HeaderValue::from_str(&text).map_err(ApiError::internal)?,
        );
    }
    answer.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    let body = match method {
        Method::HEAD => Body::empty(),
        _ => Body::from_stream(service::content::read_range(&app, &file.chunks, range)),
    };
    Ok((status, answer, body).into_response())
}

fn describe(headers: &mut HeaderMap, digest: &Digest, path: &str) -> ApiResult<()> {
    let repr_digest = format!("sha-256=:{}:", base64(digest.as_bytes()));
    let repr_digest = HeaderValue::from_str(&repr_digest).map_err(ApiError::internal)?;
    let fixed = [
        (header::ACCEPT_RANGES, "bytes"),
        (header::CONTENT_TYPE, content_type(path)),
        // A file is never shown as a page of ours, whatever it holds.
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
    ];
    headers.extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
    headers.insert(header::HeaderName::from_static("repr-digest"), repr_digest);
    Ok(())
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "json" => "application/json",
        "txt" | "md" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// RFC 4648 with padding, as RFC 9530 asks of a digest.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i) & 63) as usize] as char;
            text.push(if i <= group.len() { letter } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_rfc_4648s() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
