//! Headers of content that has a digest: strong ETag, caching, and whether the caller has it already.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fineline_format::Digest;

use crate::error::{ApiError, ApiResult};

/// A digest as a strong ETag.
pub(crate) fn etag(digest: &Digest) -> ApiResult<HeaderValue> {
    HeaderValue::from_str(&format!("\"{digest}\"")).map_err(ApiError::internal)
}

/// `ETag`, `Cache-Control` and `Vary` of content: kept for good where its address names its digest, asked for again
/// where the address may come to mean something else.
pub(crate) fn content_headers(digest: &Digest, by_digest: bool, anonymous_read: bool) -> ApiResult<HeaderMap> {
    let cache = match (by_digest, anonymous_read) {
        (true, true) => "public, max-age=31536000, immutable",
        (true, false) => "private, max-age=31536000, immutable",
        (false, _) => "no-cache",
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, etag(digest)?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    if !anonymous_read {
        headers.insert(header::VARY, HeaderValue::from_static("Authorization"));
    }
    Ok(headers)
}

/// Whether `If-None-Match` says that the caller has this content (RFC 9110, 13.1.2: compared weakly).
pub(crate) fn is_held(request: &HeaderMap, digest: &Digest) -> bool {
    let etag = format!("\"{digest}\"");
    let lists = request.get_all(header::IF_NONE_MATCH).iter();
    lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(|one| one.trim().trim_start_matches("W/"))
        .any(|one| one == etag || one == "*")
}

/// The content with its headers, or 304 when the caller has it.
pub(crate) fn respond(request: &HeaderMap, digest: &Digest, headers: HeaderMap, body: impl IntoResponse) -> Response {
    if is_held(request, digest) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_caller_has_is_told_by_any_of_its_etags() {
        let digest = Digest::of(b"x");
        let request = |value: &str| HeaderMap::from_iter([(header::IF_NONE_MATCH, value.parse().unwrap())]);
        for held in [
            format!("\"{digest}\""),
            format!("W/\"{digest}\""),
            format!("\"other\", \"{digest}\""),
            "*".to_owned(),
        ] {
            assert!(is_held(&request(&held), &digest), "{held}");
        }
        assert!(!is_held(&request("\"other\""), &digest));
        assert!(!is_held(&request(&digest.to_string()), &digest), "an ETag is quoted");
        assert!(!is_held(&HeaderMap::new(), &digest));
    }

    #[test]
    fn only_what_is_named_by_its_digest_is_kept_for_good() {
        let headers = |by_digest, anonymous| content_headers(&Digest::of(b"x"), by_digest, anonymous).unwrap();
        assert_eq!(headers(false, true)[header::CACHE_CONTROL], "no-cache");
        assert_eq!(
            headers(true, false)[header::CACHE_CONTROL],
            "private, max-age=31536000, immutable"
        );
        assert_eq!(headers(true, false)[header::VARY], "Authorization");
        assert!(!headers(true, true).contains_key(header::VARY));
    }
}
