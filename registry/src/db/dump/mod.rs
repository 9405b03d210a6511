//! All rows, whatever their tables: read in one order and one form on either engine, and written again on either.
//!
//! A row is a line of JSON: an array of its columns' values. Whole numbers and truth values are themselves, a float is the
//! shortest number that reads back to the same bits (a word where JSON has no number), bytes are hex digits, ids and text are
//! text, and JSON is text too: what was stored, to the letter. A table's rows come by its primary key, which both engines
//! compare by bytes; so equal tables have equal lines, and one digest.
//!
//! **Invariant:** the tables and columns are those that the database itself says it has, so that a later migration is not
//! forgotten here.

mod cell;
mod schema;

use futures::{Stream, StreamExt, TryStreamExt};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, StreamTrait, Value};
use serde::{Deserialize, Serialize};

pub(crate) use schema::tables;

/// Values in one statement that loads rows.
const VALUES_AT_ONCE: usize = 4000;

/// Tables whose rows are about the place and not about what is kept there.
const OF_THE_PLACE: [&str; 6] = ["arrival", "departure", "hold", "mark", "seaql_migrations", "staging"];

/// A table as the database has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
    /// The columns of its primary key, in order.
    pub(crate) key: Vec<String>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// What a column holds, on either engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Bool,
    Integer,
    Float,
    Text,
    Bytes,
    Uuid,
    Json,
}

impl Table {
    /// Where a column stands in a row.
    pub(crate) fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|own| own.name == column)
    }
}

/// A name as either engine quotes it; what is not ours to quote has no such sign in it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The rows of a table as lines, by its key.
///
/// # Errors
/// When the database is down, or a value is none of its column's kind.
pub(crate) async fn lines<'a>(
    txn: &'a DatabaseTransaction,
    table: &'a Table,
) -> Result<impl Stream<Item = Result<String, DbErr>> + Send + 'a, DbErr> {
    let backend = ConnectionTrait::get_database_backend(txn);
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|column| cell::selected(backend, column))
        .collect();
    let key: Vec<String> = table
        .key
        .iter()
        .map(|column| cell::ordered(backend, table, column))
        .collect();
    let (columns, key) = (columns.join(", "), key.join(", "));
    let sql = format!("SELECT {columns} FROM {} ORDER BY {key}", quoted(&table.name));
    let rows = txn.stream_raw(super::statement(txn, &sql, Vec::new())).await?;
    Ok(rows.map(move |row| {
        let row = row?;
        let cells = table.columns.iter().enumerate();
        let cells = cells.map(|(at, column)| cell::read(&row, at, column.kind));
        let cells: Vec<serde_json::Value> = cells.collect::<Result<_, _>>()?;
        serde_json::to_string(&cells).map_err(|error| DbErr::Json(error.to_string()))
    }))
}

/// How many rows a table has, and the digest of their lines, each with its line break.
///
/// # Errors
/// As [`lines`].
pub(crate) async fn digest(txn: &DatabaseTransaction, table: &Table) -> Result<(u64, fineline_format::Digest), DbErr> {
    let mut hasher = fineline_format::Hasher::new();
    let mut n_rows = 0;
    let mut lines = std::pin::pin!(lines(txn, table).await?);
    while let Some(mut line) = lines.try_next().await? {
        line.push('\n');
        hasher.update(line.as_bytes());
        n_rows += 1;
    }
    Ok((n_rows, hasher.finish()))
}

/// How many rows a table has.
///
/// # Errors
/// When the database is down.
pub(crate) async fn count(txn: &DatabaseTransaction, table: &Table) -> Result<u64, DbErr> {
    let sql = format!("SELECT COUNT(*) AS n FROM {}", quoted(&table.name));
    let row = txn.query_one_raw(super::statement(txn, &sql, Vec::new())).await?;
    let n: i64 = row.map_or(Ok(0), |row| row.try_get("", "n"))?;
    Ok(n.unsigned_abs())
}

/// Writes rows, each a line.
///
/// # Errors
/// When a line is no row of the table, or the database refuses it.
pub(crate) async fn insert(txn: &DatabaseTransaction, table: &Table, lines: &[&str]) -> Result<(), DbErr> {
    let backend = ConnectionTrait::get_database_backend(txn);
    let names: Vec<String> = table.columns.iter().map(|column| quoted(&column.name)).collect();
    let width = table.columns.len().max(1);
    for batch in lines.chunks((VALUES_AT_ONCE / width).max(1)) {
        let mut values: Vec<Value> = Vec::with_capacity(batch.len() * width);
        let mut places = Vec::with_capacity(batch.len());
        for line in batch {
            let cells: Vec<serde_json::Value> = serde_json::from_str(line).map_err(|error| not_a_row(table, &error))?;
            if cells.len() != width {
                return Err(not_a_row(table, &format!("{} values for {width} columns", cells.len())));
            }
            let mut row = Vec::with_capacity(width);
            for (value, column) in cells.into_iter().zip(&table.columns) {
                values.push(cell::value(value, column.kind).map_err(|error| not_a_row(table, &error))?);
                row.push(cell::place(backend, values.len(), column.kind));
            }
            places.push(format!("({})", row.join(", ")));
        }
        let (table, names, places) = (quoted(&table.name), names.join(", "), places.join(", "));
        let sql = format!("INSERT INTO {table} ({names}) VALUES {places}");
        super::execute(txn, &sql, values).await?;
    }
    Ok(())
}

fn not_a_row(table: &Table, what: &impl std::fmt::Display) -> DbErr {
    DbErr::Type(format!("a line is no row of table `{}`: {what}", table.name))
}

/// The first table that has a row, of those that hold what is kept.
///
/// # Errors
/// When the database is down.
pub(crate) async fn first_with_rows(txn: &DatabaseTransaction) -> Result<Option<String>, DbErr> {
    for table in tables(txn).await? {
        let sql = format!("SELECT 1 AS one FROM {} LIMIT 1", quoted(&table.name));
        if txn
            .query_one_raw(super::statement(txn, &sql, Vec::new()))
            .await?
            .is_some()
        {
            return Ok(Some(table.name));
        }
    }
    Ok(None)
}

/// The last id that a table gave to a row, of one that counts; rows may be gone that had it.
///
/// # Errors
/// When the database is down.
pub(crate) async fn last_id(txn: &DatabaseTransaction, table: &Table) -> Result<Option<i64>, DbErr> {
    let Some(sequence) = sequence(txn, table).await? else {
        return Ok(None);
    };
    let row = match ConnectionTrait::get_database_backend(txn) {
        DbBackend::Postgres => {
            let sql = format!("SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS last FROM {sequence}");
            txn.query_one_raw(super::statement(txn, &sql, Vec::new())).await?
        }
        _ => {
            let sql = "SELECT seq AS last FROM sqlite_sequence WHERE name = $1";
            let asked = super::statement(txn, sql, vec![table.name.as_str().into()]);
            txn.query_one_raw(asked).await?
        }
    };
    row.map_or(Ok(Some(0)), |row| row.try_get("", "last").map(Some))
}

/// Lets a table count on from `last`, so that no id is given twice.
///
/// # Errors
/// When the database is down.
pub(crate) async fn set_last_id(txn: &DatabaseTransaction, table: &Table, last: i64) -> Result<(), DbErr> {
    let Some(sequence) = sequence(txn, table).await? else {
        return Ok(());
    };
    if ConnectionTrait::get_database_backend(txn) == DbBackend::Postgres {
        let asked = super::statement(
            txn,
            "SELECT setval($1::regclass, GREATEST($2, 1), $2 > 0) AS set",
            vec![sequence.into(), last.into()],
        );
        return txn.query_one_raw(asked).await.map(|_| ());
    }
    super::execute(
        txn,
        "DELETE FROM sqlite_sequence WHERE name = $1",
        vec![table.name.as_str().into()],
    )
    .await?;
    let sql = "INSERT INTO sqlite_sequence (name, seq) VALUES ($1, $2)";
    super::execute(txn, sql, vec![table.name.as_str().into(), last.into()])
        .await
        .map(|_| ())
}

/// What counts a table's ids, where its key is counted.
async fn sequence(txn: &DatabaseTransaction, table: &Table) -> Result<Option<String>, DbErr> {
    let [key] = &*table.key else { return Ok(None) };
    let is_whole = |column: &Column| column.name == *key && column.kind == Kind::Integer;
    if !table.columns.iter().any(is_whole) {
        return Ok(None);
    }
    if ConnectionTrait::get_database_backend(txn) != DbBackend::Postgres {
        return Ok(Some("sqlite_sequence".to_owned()));
    }
    let values = vec![quoted(&table.name).into(), key.as_str().into()];
    let asked = super::statement(txn, "SELECT pg_get_serial_sequence($1, $2) AS sequence", values);
    let row = txn.query_one_raw(asked).await?;
    row.map_or(Ok(None), |row| row.try_get("", "sequence"))
}

/// What a copy that is served elsewhere does not take with it: leases of workers that speak to the other server wait for
/// another worker, browsers log in again.
///
/// # Errors
/// When the database is down.
pub(crate) async fn settle(txn: &DatabaseTransaction) -> Result<(), DbErr> {
    let now = super::now_ms(txn).await?;
    let leased = "UPDATE evaluation SET state = 'queued', reason = 'restored from a backup', not_before_ms = $1, \
        lease_sha256 = NULL, lease_expires_at_ms = NULL, claim_sha256 = NULL, progress = NULL WHERE state = 'leased'";
    super::execute(txn, leased, vec![now.into()]).await?;
    super::execute(txn, "DELETE FROM web_session", Vec::new())
        .await
        .map(|_| ())
}
