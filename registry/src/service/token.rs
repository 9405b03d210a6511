//! Making, listing and revoking tokens.

use fineline_api::error::ErrorCode;
use fineline_api::{CreateToken, CreatedToken, RunPattern, Scope, Token};
use fineline_format::Digest;
use rand::distr::{Alphanumeric, SampleString};
use uuid::Uuid;

use crate::db::{self, Db, token::NewToken};
use crate::error::{ApiError, ApiResult};

/// What every secret begins with, so that one that leaked can be told by a scanner.
const PREFIX: &str = "fl_";

/// Letters and digits of a secret: 43 of 62 are 256 bits.
const SECRET_LETTERS: usize = 43;

/// A fresh secret.
pub(crate) fn generate_secret() -> String {
    format!(
        "{PREFIX}{}",
        Alphanumeric.sample_string(&mut rand::rng(), SECRET_LETTERS)
    )
}

/// The secret that follows from a text which nobody else knows.
pub(crate) fn secret_from(text: &str) -> String {
    format!("{PREFIX}{}", Digest::of(text.as_bytes()).to_hex())
}

/// Makes a token; its secret is in the answer and nowhere else.
///
/// # Errors
/// 400 when it has no scope or no name.
pub(crate) async fn create(db: &Db, new: CreateToken) -> ApiResult<CreatedToken> {
    if new.scopes.is_empty() {
        return Err(ApiError::invalid(
            "a token needs a scope: `read`, `write`, `evaluate` or `admin`",
        ));
    }
    if new.name.trim().is_empty() || new.name.len() > 128 {
        return Err(ApiError::invalid(format!(
            "token name `{}` is refused: use 1 to 128 bytes",
            new.name
        )));
    }
    let mut scopes = new.scopes;
    scopes.sort_unstable();
    scopes.dedup();
    let expires_in_ms = new
        .expires_in_s
        .map(|s| i64::try_from(s).unwrap_or(i64::MAX).saturating_mul(1000));
    let secret = generate_secret();
    let secret_sha256 = Digest::of(secret.as_bytes());
    let txn = db::write_txn(db).await?;
    let row = NewToken {
        name: new.name,
        secret_sha256,
        scopes,
        pattern: new.pattern,
        expires_in_ms,
    };
    let token = db::token::insert(&txn, row).await?;
    txn.commit().await?;
    Ok(CreatedToken { secret, token })
}

/// Makes the token of an embedded worker: it evaluates for every run.
pub(crate) async fn create_for_worker(db: &Db, lifetime_s: u64) -> ApiResult<CreatedToken> {
    let new = CreateToken {
        name: "embedded evaluator".to_owned(),
        scopes: vec![Scope::Evaluate],
        pattern: RunPattern::All,
        expires_in_s: Some(lifetime_s),
    };
    create(db, new).await
}

/// All tokens for runs of `pattern` alone.
pub(crate) async fn list(db: &Db, pattern: &RunPattern) -> ApiResult<Vec<Token>> {
    let mut tokens = db::token::list(db.reader()).await?;
    tokens.retain(|token| pattern.contains(&token.pattern));
    Ok(tokens)
}

/// Demands that whoever makes a token for `pattern` has it all: nobody gives what is not theirs.
///
/// # Errors
/// 403.
pub(crate) fn require_pattern(own: &RunPattern, pattern: &RunPattern) -> ApiResult<()> {
    if own.contains(pattern) {
        return Ok(());
    }
    let message = format!("this token is for `{own}` and can't make one for `{pattern}`");
    Err(ApiError::new(ErrorCode::Forbidden, message))
}

/// Revokes a token for runs of `pattern` alone.
///
/// # Errors
/// 404 when there is none of that id, or it is revoked already.
pub(crate) async fn revoke(db: &Db, pattern: &RunPattern, id: Uuid) -> ApiResult<()> {
    let is_theirs = list(db, pattern).await?.iter().any(|token| token.id == id);
    let txn = db::write_txn(db).await?;
    if !is_theirs || !db::token::revoke(&txn, id).await? {
        return Err(ApiError::not_found(format!("live token `{id}`")));
    }
    txn.commit().await?;
    Ok(())
}
