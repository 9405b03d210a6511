//! A browser's login: begins with a token that reads, ends by itself, by logging out, or with its token.
//!
//! **Invariant:** a browser holds a secret of its own and never the token; the database holds neither.

use fineline_api::error::ErrorCode;
use fineline_api::{Scope, Token};
use fineline_format::Digest;
use rand::distr::{Alphanumeric, SampleString};

use crate::app::App;
use crate::auth::{Caller, live_token};
use crate::db;
use crate::error::{ApiError, ApiResult};

/// How long a login lasts, used or not.
pub(crate) const LIFETIME_S: i64 = 7 * 24 * 60 * 60;

/// Letters and digits of a secret: 43 of 62 are 256 bits.
pub(crate) const SECRET_LETTERS: usize = 43;

/// A fresh secret for a browser's cookie.
pub(crate) fn generate_secret() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), SECRET_LETTERS)
}

/// Logs in with a token, in place of the login that the browser may have; gives the secret for its cookie, always a
/// fresh one, so that nobody can be logged in under a secret that somebody else chose. Guesses are not counted: a token
/// has 256 bits, and an answer to a wrong one costs no more than any other answer.
///
/// # Errors
/// 401 for a token that is unknown, expired or revoked, 403 for one that can't read.
pub(crate) async fn create(app: &App, token: &str, replaces: Option<&str>) -> ApiResult<String> {
    let token = match live_token(app, token).await {
        Err(error) if error.code() == ErrorCode::Unauthorized => {
            return Err(error.hint("paste all of it: `fl_` and 43 letters and digits"));
        }
        found => found?,
    };
    if !Caller::from(token.clone()).has(Scope::Read) {
        let message = format!("token `{}` only evaluates: it reads no pages", token.name);
        return Err(ApiError::new(ErrorCode::Forbidden, message)
            .hint("log in with a token of scope `read`, `write` or `admin`"));
    }
    let secret = generate_secret();
    let txn = db::write_txn(&app.db).await?;
    if let Some(old) = replaces {
        db::web_session::delete(&txn, &Digest::of(old.as_bytes())).await?;
    }
    db::web_session::insert(&txn, &Digest::of(secret.as_bytes()), token.id, LIFETIME_S * 1000).await?;
    txn.commit().await?;
    tracing::info!(token_id = %token.id, token_name = token.name, "a browser logged in");
    Ok(secret)
}

/// The token that a browser is logged in with.
pub(crate) async fn find(app: &App, secret: &str) -> ApiResult<Option<Token>> {
    let conn = app.db.reader();
    let Some(id) = db::web_session::find_token(conn, &Digest::of(secret.as_bytes())).await? else {
        return Ok(None);
    };
    let token = db::token::get_live(conn, id).await?;
    if token.is_some() {
        app.token_uses.note(id);
    }
    Ok(token)
}

/// Logs out.
pub(crate) async fn delete(app: &App, secret: &str) -> ApiResult<()> {
    let txn = db::write_txn(&app.db).await?;
    db::web_session::delete(&txn, &Digest::of(secret.as_bytes())).await?;
    txn.commit().await?;
    Ok(())
}

/// Deletes the logins that have run out.
pub(crate) async fn expire(app: &App) -> ApiResult<()> {
    let txn = db::write_txn(&app.db).await?;
    let n = db::web_session::delete_expired(&txn).await?;
    txn.commit().await?;
    if n > 0 {
        tracing::debug!(n, "logins of browsers ran out");
    }
    Ok(())
}
