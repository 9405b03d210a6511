//! Where a registry went, and that it came. While a departure is written down, `write_txn` refuses everybody.

use sea_orm::{ConnectionTrait, DbErr};
use uuid::Uuid;

use super::{execute, statement};

/// Where a registry goes, or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Departure {
    pub(crate) id: Uuid,
    /// URLs without secrets.
    pub(crate) database: String,
    pub(crate) store: String,
    /// Whether everything is there; else the move may be taken back.
    pub(crate) ended: bool,
}

/// The departure, when there is one.
pub(crate) async fn find(conn: &impl ConnectionTrait) -> Result<Option<Departure>, DbErr> {
    let sql = "SELECT id, database, store, ended_at_ms FROM departure";
    let row = conn.query_one_raw(statement(conn, sql, Vec::new())).await?;
    let describe = |row: sea_orm::QueryResult| {
        Ok(Departure {
            id: row.try_get("", "id")?,
            database: row.try_get("", "database")?,
            store: row.try_get("", "store")?,
            ended: row.try_get::<Option<i64>>("", "ended_at_ms")?.is_some(),
        })
    };
    row.map(describe).transpose()
}

/// Writes down that the registry goes: from this transaction's commit on nobody else writes here.
pub(crate) async fn begin(conn: &impl ConnectionTrait, departure: &Departure) -> Result<(), DbErr> {
    let now = super::now_ms(conn).await?;
    let sql = "INSERT INTO departure (id, database, store, began_at_ms) VALUES ($1, $2, $3, $4)";
    let Departure {
        id, database, store, ..
    } = departure;
    let values = vec![(*id).into(), database.into(), store.into(), now.into()];
    execute(conn, sql, values).await.map(|_| ())
}

/// Writes down that everything is there; `false` when the departure was taken back meanwhile.
pub(crate) async fn end(conn: &impl ConnectionTrait, id: Uuid) -> Result<bool, DbErr> {
    let now = super::now_ms(conn).await?;
    let sql = "UPDATE departure SET ended_at_ms = COALESCE(ended_at_ms, $1) WHERE id = $2";
    Ok(execute(conn, sql, vec![now.into(), id.into()]).await? == 1)
}

/// Takes a departure back that did not end.
pub(crate) async fn take_back(conn: &impl ConnectionTrait) -> Result<(), DbErr> {
    execute(conn, "DELETE FROM departure WHERE ended_at_ms IS NULL", Vec::new())
        .await
        .map(|_| ())
}

/// Opens the place that a departure came to.
pub(crate) async fn open(conn: &impl ConnectionTrait, id: Uuid) -> Result<(), DbErr> {
    let sql = "DELETE FROM departure WHERE id = $1 AND ended_at_ms IS NULL";
    execute(conn, sql, vec![id.into()]).await.map(|_| ())
}

/// Writes down, beside all that came, which departure it came by.
pub(crate) async fn arrive(conn: &impl ConnectionTrait, id: Uuid) -> Result<(), DbErr> {
    let now = super::now_ms(conn).await?;
    let sql = "INSERT INTO arrival (id, arrived_at_ms) VALUES ($1, $2)";
    execute(conn, sql, vec![id.into(), now.into()]).await.map(|_| ())
}

/// Whether that departure arrived here.
pub(crate) async fn has_arrived(conn: &impl ConnectionTrait, id: Uuid) -> Result<bool, DbErr> {
    let sql = "SELECT 1 AS arrived FROM arrival WHERE id = $1";
    Ok(conn
        .query_one_raw(statement(conn, sql, vec![id.into()]))
        .await?
        .is_some())
}
