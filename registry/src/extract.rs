//! axum's extractors with our errors: a request that can't be understood answers like every other error.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use bytes::Bytes;
use fineline_api::RunName;
use fineline_api::error::ErrorCode;
use serde::Deserialize;

use crate::error::{ApiError, ApiResult};

/// A JSON body.
#[derive(Debug, FromRequest)]
#[from_request(via(axum::Json), rejection(ApiError))]
pub(crate) struct Json<T>(pub(crate) T);

/// Parts of the path.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiError))]
pub(crate) struct Path<T>(pub(crate) T);

/// The query.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(ApiError))]
pub(crate) struct Query<T>(pub(crate) T);

/// A body of bytes, whole.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync> FromRequest<S> for Body<Bytes> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Bytes::from_request(request, state).await {
            Ok(bytes) => Ok(Self(bytes)),
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(ApiError::new(
                ErrorCode::TooLarge,
                "the body is larger than this door takes",
            )),
            Err(rejection) => Err(ApiError::invalid(rejection.body_text())),
        }
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(ErrorCode::TooLarge, rejection.body_text()),
            _ => Self::invalid(rejection.body_text()),
        }
    }
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
