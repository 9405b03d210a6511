//! Tokens: who may do what to which runs.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::run::RunPattern;
use crate::text::words;

words! {
    /// What a token may do to the runs that its pattern matches.
    pub enum Scope {
        /// Read runs, checkpoints and scores.
        Read = "read",
        /// Create runs, push, tag, release, bind suites, post scores; reads too.
        Write = "write",
        /// Claim evaluations; reads only what it holds a lease for.
        Evaluate = "evaluate",
        /// Everything, tokens included.
        Admin = "admin",
    }
}

/// Makes a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateToken {
    /// What it is called in lists.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The runs it is for.
    pub pattern: RunPattern,
    /// Seconds until it expires; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
}

/// A token as it is listed: never its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Token {
    /// Its id.
    pub id: Uuid,
    /// What it is called.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The runs it is for.
    pub pattern: RunPattern,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it stops working.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was used last, by an API call, by a browser that is logged in with it or by a worker; to the minute, and
    /// absent when it never was.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A new token with its secret, shown once.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedToken {
    /// `fl_` and 43 characters; the server keeps its SHA-256 alone.
    pub secret: String,
    /// The token.
    pub token: Token,
}

impl std::fmt::Debug for CreatedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedToken")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
