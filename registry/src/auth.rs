//! Who is asking, and whether they may.
//!
//! A handler names the scope that it needs when it extracts [`Caller`]; a run is then looked up through
//! [`Caller::run`], which answers 404 for one that the token's pattern does not match.
//!
//! **Invariant:** the API takes a token from the header `Authorization` alone, never from a cookie, so that no foreign page
//! can make a browser call it. Order of answers: 401 without a good token, 404 for a run that the pattern does not match (the same
//! as for one that does not exist), 403 when the scope is lacking.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use fineline_api::error::ErrorCode;
use fineline_api::{RunName, RunPattern, Scope, Token};
use fineline_format::Digest;
use uuid::Uuid;

use crate::app::App;
use crate::db;
use crate::db::possession::Holders;
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};

/// Who is asking.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The token; absent for anonymous reading.
    pub(crate) token_id: Option<Uuid>,
    scopes: Vec<Scope>,
    /// The runs that the token is for.
    pub(crate) pattern: RunPattern,
    /// When it was made, in Unix milliseconds: it knows of no run that was deleted before.
    since_ms: i64,
}

impl From<Token> for Caller {
    fn from(token: Token) -> Self {
        Self {
            token_id: Some(token.id),
            scopes: token.scopes,
            pattern: token.pattern,
            since_ms: token.created_at.timestamp_millis(),
        }
    }
}

impl Caller {
    /// What a source acts as: it writes to its run and reads the runs of its namespace, as far as they were there since it
    /// was made.
    pub(crate) fn of_source(run: &RunName, since_ms: i64) -> Self {
        let namespace = format!("{}/*", run.namespace());
        Self {
            token_id: None,
            scopes: vec![Scope::Write],
            pattern: namespace.parse().expect("a namespace and a star are a pattern"),
            since_ms,
        }
    }

    /// Whether the token bears `scope`, itself or by one that includes it.
    pub(crate) fn has(&self, scope: Scope) -> bool {
        self.scopes
            .iter()
            .any(|&held| held == scope || held == Scope::Admin || (held == Scope::Write && scope == Scope::Read))
    }

    /// The runs whose possession is the caller's to name.
    pub(crate) fn holders(&self) -> Holders<'_> {
        Holders {
            pattern: &self.pattern,
            since_ms: self.since_ms,
        }
    }

    /// Whether it can do nothing but evaluate: it then reads only what it holds a lease for.
    pub(crate) fn reads_by_lease(&self) -> bool {
        !self.has(Scope::Read) && self.has(Scope::Evaluate)
    }

    /// Demands a scope where no run is named.
    ///
    /// # Errors
    /// 403 when it is lacking, 401 when there is no token.
    pub(crate) fn require(&self, scope: Scope) -> ApiResult<()> {
        if self.has(scope) {
            return Ok(());
        }
        if self.token_id.is_none() {
            return Err(needs_token());
        }
        let message = format!("this token lacks the scope `{scope}`");
        Err(ApiError::new(ErrorCode::Forbidden, message).hint("ask an administrator for a token that has it"))
    }

    /// Demands a scope for every run: what concerns the whole registry tells of all of them.
    ///
    /// # Errors
    /// As [`Caller::require`]; 403 for a token that is for some runs only.
    pub(crate) fn require_whole(&self, scope: Scope) -> ApiResult<()> {
        self.require(scope)?;
        if self.pattern == RunPattern::All {
            return Ok(());
        }
        let message = format!("this token is for `{}`, and this concerns all runs", self.pattern);
        Err(ApiError::new(ErrorCode::Forbidden, message).hint("ask for a token for `*`"))
    }

    /// The run, when the caller may know of it and bears `scope`. A caller that reads by lease passes a demand for
    /// `Read`; what it then may read is decided by its leases (`service::possession`).
    ///
    /// # Errors
    /// 404 when there is no such run or the pattern does not match it, 403 when the scope is lacking.
    pub(crate) async fn run(&self, app: &App, name: &RunName, scope: Scope) -> ApiResult<RunRow> {
        let hint = format!("check its name, or create it: `fineline run create {name}`");
        let unknown = || ApiError::not_found(format!("run `{name}`")).hint(hint.as_str());
        if !self.pattern.matches(name) {
            return Err(unknown());
        }
        let run = db::run::find(app.db.reader(), name).await?.ok_or_else(unknown)?;
        if !(scope == Scope::Read && self.reads_by_lease()) {
            self.require(scope)?;
        }
        Ok(run)
    }
}

/// The caller by the secret of a token; anonymous when there is none and the operator allows it.
///
/// # Errors
/// 401 when there is no token, or one that is unknown, expired or revoked.
pub(crate) async fn authenticate(app: &App, secret: Option<&str>) -> ApiResult<Caller> {
    let Some(secret) = secret else {
        if app.options.anonymous_read {
            return Ok(Caller {
                token_id: None,
                scopes: vec![Scope::Read],
                pattern: RunPattern::All,
                since_ms: i64::MAX,
            });
        }
        return Err(needs_token());
    };
    live_token(app, secret).await.map(Caller::from)
}

/// The token with that secret.
///
/// # Errors
/// 401 when it is unknown, expired or revoked.
pub(crate) async fn live_token(app: &App, secret: &str) -> ApiResult<Token> {
    let token = db::token::find_live(app.db.reader(), &Digest::of(secret.as_bytes())).await?;
    let token = token.ok_or_else(|| {
        ApiError::new(ErrorCode::Unauthorized, "the token is unknown, expired or revoked")
            .hint("ask an administrator for a new one, then run `fineline login`")
    })?;
    app.token_uses.note(token.id);
    Ok(token)
}

fn needs_token() -> ApiError {
    ApiError::new(ErrorCode::Unauthorized, "this needs a token")
        .hint("send `Authorization: Bearer fl_…`, or run `fineline login`")
}

/// The bearer token of a request.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
        .map(str::trim)
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let secret = bearer(&parts.headers);
        if secret.is_none() && parts.headers.contains_key(AUTHORIZATION) {
            return Err(ApiError::new(
                ErrorCode::Unauthorized,
                "the header `Authorization` holds no bearer token",
            )
            .hint("send `Authorization: Bearer fl_…`"));
        }
        authenticate(app, secret).await
    }
}
