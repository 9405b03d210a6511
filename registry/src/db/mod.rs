//! The database: connections, transactions and time. ALL SQL lives below this module, and entities never leave it.
//!
//! **Invariant:** SQLite has one writer connection and every writing transaction is BEGIN IMMEDIATE, so a transaction
//! that read first can never be refused when it writes. Times are Unix milliseconds by the database's own clock.

mod entity;

pub(crate) mod checkpoint;
pub(crate) mod collect;
pub(crate) mod evaluation;
pub(crate) mod event;
pub(crate) mod file;
pub(crate) mod frame;
pub(crate) mod kept;
pub(crate) mod lease;
pub(crate) mod possession;
pub(crate) mod push_session;
pub(crate) mod revision;
pub(crate) mod run;
pub(crate) mod score;
pub(crate) mod staging;
pub(crate) mod suite;
pub(crate) mod tag;
pub(crate) mod token;
pub(crate) mod tokenizer;
pub(crate) mod verification;
pub(crate) mod web_session;
pub(crate) mod worker;

use std::time::Duration;

use chrono::{DateTime, Utc};
use fineline_format::Digest;
use fineline_migrations::Migrator;
use sea_orm::sqlx::sqlite::{SqliteAutoVacuum, SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};
use sea_orm_migration::MigratorTrait;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long a statement waits for another process that writes to the same SQLite file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Readers of one SQLite file.
const MAX_READERS: u32 = 8;

/// The database, as one handle to read with and one to write with.
#[derive(Debug, Clone)]
pub(crate) struct Db {
    reader: DatabaseConnection,
    writer: DatabaseConnection,
}

impl Db {
    /// Connects to `url` (`sqlite://PATH`) and runs the migrations that are missing.
    ///
    /// # Errors
    /// When the database can't be opened or a migration fails.
    pub(crate) async fn open(url: &str) -> Result<Self, DbErr> {
        let writer = connect(url, 1).await?;
        migrate(&writer).await?;
        Ok(Self {
            reader: connect(url, MAX_READERS).await?,
            writer,
        })
    }

    /// To read with; sees what was committed.
    pub(crate) fn reader(&self) -> &DatabaseConnection {
        &self.reader
    }
}

/// Runs what is missing in one transaction: a process that is killed in the middle leaves the schema as it was, and two
/// that start at once do it one after the other.
async fn migrate(writer: &DatabaseConnection) -> Result<(), DbErr> {
    let txn = begin(writer).await?;
    Migrator::up(&txn, None).await?;
    fail_point!("migrate.before_commit");
    txn.commit().await
}

async fn begin(writer: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    writer.begin_with_options(options).await
}

async fn connect(url: &str, max_connections: u32) -> Result<DatabaseConnection, DbErr> {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(max_connections)
        .sqlx_logging(false)
        .acquire_timeout(Duration::from_secs(60));
    options.map_sqlx_sqlite_opts(|sqlite| {
        sqlite
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A chunk that was acknowledged survives a power cut, not only a crash.
            .synchronous(SqliteSynchronous::Full)
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .busy_timeout(BUSY_TIMEOUT)
    });
    Database::connect(options).await
}

/// Begins the one transaction of an operation that writes. Nothing slow may happen while it is open.
///
/// # Errors
/// When the database is down or stays locked.
pub(crate) async fn write_txn(db: &Db) -> Result<DatabaseTransaction, DbErr> {
    begin(&db.writer).await
}

/// Begins a transaction that reads: all that is read in it is of one moment.
///
/// # Errors
/// When the database is down.
pub(crate) async fn read_txn(db: &Db) -> Result<DatabaseTransaction, DbErr> {
    db.reader.begin().await
}

/// Now, by the database's clock, in Unix milliseconds.
///
/// # Errors
/// When the database is down.
pub(crate) async fn now_ms(conn: &impl ConnectionTrait) -> Result<i64, DbErr> {
    let sql = match conn.get_database_backend() {
        DbBackend::Postgres => "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now_ms",
        _ => "SELECT CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER) AS now_ms",
    };
    let statement = Statement::from_string(conn.get_database_backend(), sql);
    let row = conn.query_one_raw(statement).await?;
    row.ok_or_else(|| DbErr::RecordNotFound("the database's clock".to_owned()))?
        .try_get("", "now_ms")
}

/// The names of the migrations that the database has.
///
/// # Errors
/// When the database is down.
pub(crate) async fn applied_migrations(db: &Db) -> Result<Vec<String>, DbErr> {
    let applied = Migrator::get_applied_migrations(&db.writer).await?;
    Ok(applied.iter().map(|migration| migration.name().to_owned()).collect())
}

/// Values in one statement: far below what either engine binds.
const BATCH: usize = 500;

/// A digest as its column holds it.
fn blob(digest: &Digest) -> Vec<u8> {
    digest.as_bytes().to_vec()
}

/// A digest from its column.
fn digest(blob: &[u8]) -> Result<Digest, DbErr> {
    let bytes = blob
        .try_into()
        .map_err(|_| DbErr::Type(format!("a digest column holds {} bytes", blob.len())))?;
    Ok(Digest::from_bytes(bytes))
}

/// A time from its column.
fn time(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap_or_default()
}

fn to_json<T: Serialize>(value: &T) -> Result<serde_json::Value, DbErr> {
    serde_json::to_value(value).map_err(|error| DbErr::Json(error.to_string()))
}

fn from_json<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, DbErr> {
    serde_json::from_value(value).map_err(|error| DbErr::Json(error.to_string()))
}

/// A count or a step as its column holds it; the edge has bounded it.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_schema_goes_up_and_down_and_up_again() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&format!("sqlite://{}", dir.path().join("a.db").display()))
            .await
            .unwrap();
        let all = applied_migrations(&db).await.unwrap();

        Migrator::down(&db.writer, None).await.unwrap();
        assert_eq!(applied_migrations(&db).await.unwrap(), Vec::<String>::new());
        Migrator::up(&db.writer, None).await.unwrap();

        assert_eq!(applied_migrations(&db).await.unwrap(), all);
        assert_eq!(all.len(), Migrator::migrations().len());
    }

    #[tokio::test]
    async fn a_migration_that_is_cut_leaves_the_older_schema_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("a.db").display());
        let older = connect(&url, 1).await.unwrap();
        Migrator::up(&older, Some(3)).await.unwrap();
        let txn = begin(&older).await.unwrap();
        Migrator::up(&txn, None).await.unwrap();
        // Its process is killed here.
        drop(txn);
        assert_eq!(Migrator::get_applied_migrations(&older).await.unwrap().len(), 3);
        drop(older);
        let db = Db::open(&url).await.unwrap();
        assert_eq!(
            applied_migrations(&db).await.unwrap().len(),
            Migrator::migrations().len()
        );
    }

    #[tokio::test]
    async fn the_databases_clock_is_unix_milliseconds() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&format!("sqlite://{}", dir.path().join("a.db").display()))
            .await
            .unwrap();
        let apart = now_ms(db.reader()).await.unwrap() - Utc::now().timestamp_millis();
        assert!(apart.abs() < 5_000, "{apart}");
    }
}
