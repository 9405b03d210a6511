//! Errors at the HTTP edge: the only place that knows status codes.
//!
//! **Invariant:** what a caller may not know of answers exactly as what does not exist; an internal error tells the
//! caller nothing but its request id, and the log everything once.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fineline_api::error::{ErrorBody, ErrorCode, ErrorDetail, ErrorDetails};
use fineline_format::shown_within;
use sea_orm::DbErr;

use crate::db;

/// The longest message: what a caller sent comes back in it, and may be megabytes.
const MAX_MESSAGE_CHARS: usize = 1000;

tokio::task_local! {
    /// The id of the request at hand, set by the middleware, so that every error can name it.
    pub(crate) static REQUEST_ID: String;
}

/// The answer to a request that failed.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    code: ErrorCode,
    message: String,
    hint: Option<String>,
}

/// What a fallible service or handler gives.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// An error with what it says to people: lower case, names the thing and the value, of which a part is enough.
    pub(crate) fn new(code: ErrorCode, message: impl AsRef<str>) -> Self {
        Self {
            code,
            message: shown_within(MAX_MESSAGE_CHARS, message.as_ref()),
            hint: None,
        }
    }

    /// Adds what the caller can do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// `what` does not exist, or the caller may not know of it.
    pub(crate) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::NotFound, format!("there is no {what}"))
    }

    /// The request breaks a stated bound or grammar.
    pub(crate) fn invalid(message: impl AsRef<str>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }

    /// The request is well-formed and wrong.
    pub(crate) fn unprocessable(message: impl AsRef<str>) -> Self {
        Self::new(ErrorCode::Unprocessable, message)
    }

    /// A fault of the server: `chain` goes to the log, once, and not to the caller.
    pub(crate) fn internal(chain: impl std::fmt::Display) -> Self {
        let request_id = REQUEST_ID.try_with(Clone::clone).unwrap_or_default();
        tracing::error!(request_id, error = %chain, "internal error");
        Self::new(ErrorCode::Internal, "internal error")
    }

    /// The code, for rules that depend on it.
    pub(crate) fn code(&self) -> ErrorCode {
        self.code
    }

    /// The status that it answers with.
    pub(crate) fn status(&self) -> StatusCode {
        status(self.code)
    }

    /// What the caller can do about it.
    pub(crate) fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The error as it stands in a body.
    pub(crate) fn into_detail(self) -> ErrorDetail {
        let details = self.hint.map(|hint| ErrorDetails { hint: Some(hint) });
        let request_id = REQUEST_ID.try_with(Clone::clone).unwrap_or_default();
        ErrorDetail {
            code: self.code,
            message: self.message,
            request_id,
            details,
        }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

impl From<DbErr> for ApiError {
    fn from(error: DbErr) -> Self {
        let fault = db::fault(&error);
        metrics::counter!("fineline_database_errors_total", "kind" => fault.as_str()).increment(1);
        match fault {
            db::Fault::Unavailable => {
                tracing::error!(%error, "the database is unavailable");
                Self::new(ErrorCode::Unavailable, "the database is unavailable").hint("try again in a few seconds")
            }
            db::Fault::Departed => {
                tracing::warn!(%error, "a write is refused");
                Self::new(ErrorCode::Unavailable, db::DEPARTED)
                    .hint("ask the operator for the address of the new server")
            }
            db::Fault::Full => {
                tracing::error!(%error, "the database has no room");
                Self::new(ErrorCode::StoreFull, "the disk of the database is full").hint(crate::service::chunk::NO_ROOM)
            }
            db::Fault::Other => Self::internal(error),
        }
    }
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::InvalidRequest => StatusCode::BAD_REQUEST,
        ErrorCode::Unprocessable | ErrorCode::DigestMismatch => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::StepExists | ErrorCode::Conflict | ErrorCode::LeaseLost => StatusCode::CONFLICT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        ErrorCode::StoreFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = self.code;
        let mut response = (
            status(code),
            Json(ErrorBody {
                error: self.into_detail(),
            }),
        )
            .into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match code {
            ErrorCode::Unavailable => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            ErrorCode::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}
