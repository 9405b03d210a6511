//! Making, listing and revoking tokens.

use fineline_api::error::ErrorCode;
use fineline_api::{CreateToken, CreatedToken, RunPattern, Scope, Token};
use fineline_format::{Digest, shown_within};
use rand::distr::{Alphanumeric, SampleString};
use uuid::Uuid;

use crate::app::App;
use crate::db::{self, Db, token::NewToken};
use crate::error::{ApiError, ApiResult};
use crate::service::token_use;

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
    let secret = generate_secret();
    let row = new_row(new, Digest::of(secret.as_bytes()))?;
    let txn = db::write_txn(db).await?;
    let token = db::token::insert(&txn, row).await?;
    txn.commit().await?;
    Ok(CreatedToken { secret, token })
}

fn new_row(new: CreateToken, secret_sha256: Digest) -> ApiResult<NewToken> {
    if new.scopes.is_empty() {
        return Err(ApiError::invalid(
            "a token needs a scope: `read`, `write`, `evaluate` or `admin`",
        ));
    }
    if new.name.trim().is_empty() || new.name.len() > 128 {
        return Err(ApiError::invalid(format!(
            "token name `{}` is refused: use 1 to 128 bytes",
            shown_within(130, &new.name)
        )));
    }
    let mut scopes = new.scopes;
    scopes.sort_unstable();
    scopes.dedup();
    let expires_in_ms = new
        .expires_in_s
        .map(|s| i64::try_from(s).unwrap_or(i64::MAX).saturating_mul(1000));
    Ok(NewToken {
        name: new.name,
        secret_sha256,
        scopes,
        pattern: new.pattern,
        expires_in_ms,
    })
}

/// Makes sure of a token whose secret the operator chose; the same again changes nothing, so that every start of every
/// replica may do it.
///
/// # Errors
/// 400 for a secret that could be guessed, 409 when it is another token's, or the token is expired or revoked.
pub(crate) async fn ensure(db: &Db, secret: &str, new: CreateToken) -> ApiResult<Token> {
    let chosen = secret.strip_prefix(PREFIX).unwrap_or_default();
    if chosen.len() < SECRET_LETTERS || chosen.len() > 128 || !chosen.bytes().all(|b| b.is_ascii_alphanumeric()) {
        let message = format!("the secret is refused: it is `{PREFIX}` and {SECRET_LETTERS} to 128 letters and digits");
        return Err(ApiError::invalid(message).hint("make one: `echo fl_$(openssl rand -hex 32)`"));
    }
    let secret_sha256 = Digest::of(secret.as_bytes());
    let row = new_row(new, secret_sha256)?;
    let (scopes, pattern) = (row.scopes.clone(), row.pattern.clone());
    let txn = db::write_txn(db).await?;
    db::token::insert_once(&txn, row).await?;
    let found = db::token::find_any(&txn, &secret_sha256).await?;
    let is_live = db::token::find_live(&txn, &secret_sha256).await?.is_some();
    txn.commit().await?;
    let found = found.ok_or_else(|| ApiError::internal("a token that was just made is not there"))?;
    if found.scopes != scopes || found.pattern != pattern {
        let message = format!(
            "the secret is that of token `{}`, which may do something else",
            found.name
        );
        return Err(ApiError::new(ErrorCode::Conflict, message).hint("give every token a secret of its own"));
    }
    if !is_live {
        let message = format!(
            "the secret is that of token `{}`, which is expired or revoked",
            found.name
        );
        return Err(ApiError::new(ErrorCode::Conflict, message).hint("give another secret"));
    }
    Ok(found)
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

/// All tokens for runs of `pattern` alone, with the uses that this process knows of.
pub(crate) async fn list(app: &App, pattern: &RunPattern) -> ApiResult<Vec<Token>> {
    token_use::write(app).await;
    owned(&app.db, pattern).await
}

async fn owned(db: &Db, pattern: &RunPattern) -> ApiResult<Vec<Token>> {
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
    let is_theirs = owned(db, pattern).await?.iter().any(|token| token.id == id);
    let txn = db::write_txn(db).await?;
    if !is_theirs || !db::token::revoke(&txn, id).await? {
        return Err(ApiError::not_found(format!("live token `{id}`")));
    }
    txn.commit().await?;
    Ok(())
}
