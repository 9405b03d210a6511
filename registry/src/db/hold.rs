//! Holds: while one lasts, collection deletes no frame, so that what a backup or a move read in its snapshot is still there
//! when it copies it. A hold that is not renewed runs out.

use sea_orm::{ConnectionTrait, DbErr};
use uuid::Uuid;

use super::{execute, statement};

/// Begins a hold for what `purpose` names, in a writing transaction. Gives the purpose of another that lasts, and begins
/// none, when there is one.
pub(crate) async fn begin(
    conn: &impl ConnectionTrait,
    id: Uuid,
    purpose: &str,
    lasts_ms: i64,
) -> Result<Option<String>, DbErr> {
    let now = super::now_ms(conn).await?;
    let sql = "SELECT purpose FROM hold WHERE until_ms > $1 LIMIT 1";
    if let Some(other) = conn.query_one_raw(statement(conn, sql, vec![now.into()])).await? {
        return other.try_get("", "purpose").map(Some);
    }
    execute(conn, "DELETE FROM hold", Vec::new()).await?;
    let sql = "INSERT INTO hold (id, purpose, until_ms) VALUES ($1, $2, $3)";
    execute(conn, sql, vec![id.into(), purpose.into(), (now + lasts_ms).into()]).await?;
    Ok(None)
}

/// Lets a hold last from now; `false` when it ran out, and with it the promise.
pub(crate) async fn renew(conn: &impl ConnectionTrait, id: Uuid, lasts_ms: i64) -> Result<bool, DbErr> {
    let now = super::now_ms(conn).await?;
    let sql = "UPDATE hold SET until_ms = $1 WHERE id = $2 AND until_ms > $3";
    let values = vec![(now + lasts_ms).into(), id.into(), now.into()];
    Ok(execute(conn, sql, values).await? == 1)
}

/// Ends a hold.
pub(crate) async fn end(conn: &impl ConnectionTrait, id: Uuid) -> Result<(), DbErr> {
    execute(conn, "DELETE FROM hold WHERE id = $1", vec![id.into()])
        .await
        .map(|_| ())
}

/// Whether any lasts.
pub(crate) async fn any(conn: &impl ConnectionTrait) -> Result<bool, DbErr> {
    let now = super::now_ms(conn).await?;
    let sql = "SELECT 1 AS held FROM hold WHERE until_ms > $1 LIMIT 1";
    Ok(conn
        .query_one_raw(statement(conn, sql, vec![now.into()]))
        .await?
        .is_some())
}
