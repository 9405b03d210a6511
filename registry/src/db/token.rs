//! Tokens: only the SHA-256 of a secret is here.

use fineline_api::{RunPattern, Scope, Token};
use fineline_format::Digest;
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder};
use uuid::Uuid;

use super::entity::token;

/// What a new token holds.
#[derive(Debug)]
pub(crate) struct NewToken {
    pub(crate) name: String,
    pub(crate) secret_sha256: Digest,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) pattern: RunPattern,
    pub(crate) expires_in_ms: Option<i64>,
}

fn describe(row: token::Model) -> Result<Token, DbErr> {
    let scopes = row
        .scopes
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(DbErr::Type)?;
    Ok(Token {
        id: row.id,
        name: row.name,
        scopes,
        pattern: row.pattern.parse().map_err(DbErr::Type)?,
        created_at: super::time(row.created_at_ms),
        expires_at: row.expires_at_ms.map(super::time),
        revoked_at: row.revoked_at_ms.map(super::time),
        last_used_at: row.last_used_at_ms.map(super::time),
    })
}

/// Adds a token.
pub(crate) async fn insert(conn: &impl ConnectionTrait, new: NewToken) -> Result<Token, DbErr> {
    let row = row(new, super::now_ms(conn).await?);
    describe(token::Entity::insert(row).exec_with_returning(conn).await?)
}

/// Adds a token, unless there is one with that secret.
pub(crate) async fn insert_once(conn: &impl ConnectionTrait, new: NewToken) -> Result<(), DbErr> {
    let row = row(new, super::now_ms(conn).await?);
    let once = OnConflict::column(token::Column::SecretSha256).do_nothing().to_owned();
    let insert = token::Entity::insert(row).on_conflict(once).try_insert();
    insert.exec_without_returning(conn).await.map(drop)
}

fn row(new: NewToken, now: i64) -> token::ActiveModel {
    let scopes: Vec<_> = new.scopes.iter().map(|scope| scope.as_str()).collect();
    token::ActiveModel {
        id: Set(Uuid::now_v7()),
        name: Set(new.name),
        secret_sha256: Set(super::blob(&new.secret_sha256)),
        scopes: Set(scopes.join(" ")),
        pattern: Set(new.pattern.to_string()),
        created_at_ms: Set(now),
        expires_at_ms: Set(new.expires_in_ms.map(|ms| now.saturating_add(ms))),
        revoked_at_ms: Set(None),
        last_used_at_ms: Set(None),
    }
}

/// The token with that secret, unless it is expired or revoked.
pub(crate) async fn find_live(conn: &impl ConnectionTrait, secret_sha256: &Digest) -> Result<Option<Token>, DbErr> {
    let now = super::now_ms(conn).await?;
    let query = token::Entity::find()
        .filter(token::Column::SecretSha256.eq(super::blob(secret_sha256)))
        .filter(live(now));
    query.one(conn).await?.map(describe).transpose()
}

/// The token with that secret, whatever became of it.
pub(crate) async fn find_any(conn: &impl ConnectionTrait, secret_sha256: &Digest) -> Result<Option<Token>, DbErr> {
    let query = token::Entity::find().filter(token::Column::SecretSha256.eq(super::blob(secret_sha256)));
    query.one(conn).await?.map(describe).transpose()
}

/// The token of that id, unless it is expired or revoked.
pub(crate) async fn get_live(conn: &impl ConnectionTrait, id: Uuid) -> Result<Option<Token>, DbErr> {
    let now = super::now_ms(conn).await?;
    let query = token::Entity::find_by_id(id).filter(live(now));
    query.one(conn).await?.map(describe).transpose()
}

/// Neither expired nor revoked at `now`.
fn live(now: i64) -> Condition {
    let unexpired = Condition::any()
        .add(token::Column::ExpiresAtMs.is_null())
        .add(token::Column::ExpiresAtMs.gt(now));
    Condition::all()
        .add(token::Column::RevokedAtMs.is_null())
        .add(unexpired)
}

/// All tokens that are neither expired nor revoked.
pub(crate) async fn list_live(conn: &impl ConnectionTrait) -> Result<Vec<Token>, DbErr> {
    let now = super::now_ms(conn).await?;
    token::Entity::find()
        .filter(live(now))
        .all(conn)
        .await?
        .into_iter()
        .map(describe)
        .collect()
}

/// All tokens, the oldest first.
pub(crate) async fn list(conn: &impl ConnectionTrait) -> Result<Vec<Token>, DbErr> {
    token::Entity::find()
        .order_by_asc(token::Column::Id)
        .all(conn)
        .await?
        .into_iter()
        .map(describe)
        .collect()
}

/// Revokes a token; whether there was one to revoke.
pub(crate) async fn revoke(conn: &impl ConnectionTrait, id: Uuid) -> Result<bool, DbErr> {
    let now = super::now_ms(conn).await?;
    let update = token::Entity::update_many().col_expr(token::Column::RevokedAtMs, Expr::value(now));
    let filter = update
        .filter(token::Column::Id.eq(id))
        .filter(token::Column::RevokedAtMs.is_null());
    Ok(filter.exec(conn).await?.rows_affected == 1)
}

/// Writes down that a token was used at `at_ms`, unless it was used later.
pub(crate) async fn set_last_used(conn: &impl ConnectionTrait, id: Uuid, at_ms: i64) -> Result<(), DbErr> {
    let earlier = Condition::any()
        .add(token::Column::LastUsedAtMs.is_null())
        .add(token::Column::LastUsedAtMs.lt(at_ms));
    let update = token::Entity::update_many().col_expr(token::Column::LastUsedAtMs, Expr::value(at_ms));
    let filter = update.filter(token::Column::Id.eq(id)).filter(earlier);
    filter.exec(conn).await.map(drop)
}
