//! The logins of browsers: only the SHA-256 of a cookie's secret is here.

use fineline_format::Digest;
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter};
use uuid::Uuid;

use super::entity::web_session;

/// Adds a login with a token that ends by itself after a while.
pub(crate) async fn insert(
    conn: &impl ConnectionTrait,
    secret_sha256: &Digest,
    token_id: Uuid,
    lifetime_ms: i64,
) -> Result<(), DbErr> {
    let now = super::now_ms(conn).await?;
    let row = web_session::ActiveModel {
        secret_sha256: Set(super::blob(secret_sha256)),
        token_id: Set(token_id),
        created_at_ms: Set(now),
        expires_at_ms: Set(now + lifetime_ms),
    };
    web_session::Entity::insert(row).exec_without_returning(conn).await?;
    Ok(())
}

/// The token that was logged in with, unless the login has run out. Whether the token still works is the token's matter.
pub(crate) async fn find_token(conn: &impl ConnectionTrait, secret_sha256: &Digest) -> Result<Option<Uuid>, DbErr> {
    let now = super::now_ms(conn).await?;
    let query =
        web_session::Entity::find_by_id(super::blob(secret_sha256)).filter(web_session::Column::ExpiresAtMs.gt(now));
    Ok(query.one(conn).await?.map(|row| row.token_id))
}

/// Ends a login, if there is one.
pub(crate) async fn delete(conn: &impl ConnectionTrait, secret_sha256: &Digest) -> Result<(), DbErr> {
    let delete = web_session::Entity::delete_by_id(super::blob(secret_sha256));
    delete.exec(conn).await.map(drop)
}

/// Deletes the logins that have run out; how many.
pub(crate) async fn delete_expired(conn: &impl ConnectionTrait) -> Result<u64, DbErr> {
    let now = super::now_ms(conn).await?;
    let delete = web_session::Entity::delete_many().filter(web_session::Column::ExpiresAtMs.lte(now));
    Ok(delete.exec(conn).await?.rows_affected)
}
