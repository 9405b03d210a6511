//! The one shape of an error on the wire.

use serde::{Deserialize, Serialize};

use crate::text::words;

words! {
    /// What went wrong, as a decision that a caller can take.
    pub enum ErrorCode {
        /// No token, or one that is unknown, expired or revoked (401).
        Unauthorized = "unauthorized",
        /// The token is good but lacks the scope (403).
        Forbidden = "forbidden",
        /// There is no such thing, or the token may not know of it (404).
        NotFound = "not_found",
        /// The request can't be understood or breaks a stated bound (400).
        InvalidRequest = "invalid_request",
        /// What was sent is well-formed but wrong: a lying header, a missing shard, a refused task (422).
        Unprocessable = "unprocessable",
        /// Bytes do not have the digest that names them (422).
        DigestMismatch = "digest_mismatch",
        /// The step holds other bytes already (409).
        StepExists = "step_exists",
        /// The thing exists already or changed under the caller (409).
        Conflict = "conflict",
        /// The lease is expired or belongs to another worker (409).
        LeaseLost = "lease_lost",
        /// A body or a list is over its bound (413).
        TooLarge = "too_large",
        /// The range asked for lies outside the file (416).
        RangeNotSatisfiable = "range_not_satisfiable",
        /// The store has no room for new bytes; reading goes on (507).
        StoreFull = "store_full",
        /// A dependency is down; try again after `Retry-After` (503).
        Unavailable = "unavailable",
        /// A fault of the server; its log has the request id (500).
        Internal = "internal",
    }
}

/// The body of every answer that is an error.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// One error.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorDetail {
    /// For programs.
    pub code: ErrorCode,
    /// For people: names the thing and the value.
    pub message: String,
    /// Finds the request in the server's log.
    #[serde(default)]
    pub request_id: String,
    /// What to do, and facts by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<ErrorDetails>,
}

/// What stands beside an error's message.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorDetails {
    /// What the caller can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
