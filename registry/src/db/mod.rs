//! The database: connections, transactions and time. ALL SQL lives below this module, and entities never leave it.
//!
//! **Invariant:** writing transactions come one after another, whatever the engine and however many processes share the
//! database (`docs/adr/0007`): on SQLite each is BEGIN IMMEDIATE, on PostgreSQL each begins by taking one advisory lock.
//! So what a transaction read first still holds when it writes. Times are Unix milliseconds by the database's own clock.

mod batches;
mod entity;

pub(crate) mod checkpoint;
pub(crate) mod collect;
pub(crate) mod departure;
pub(crate) mod dump;
pub(crate) mod evaluation;
pub(crate) mod event;
pub(crate) mod file;
pub(crate) mod frame;
pub(crate) mod hold;
pub(crate) mod kept;
pub(crate) mod lease;
pub(crate) mod possession;
pub(crate) mod push_session;
pub(crate) mod revision;
pub(crate) mod run;
pub(crate) mod score;
pub(crate) mod source;
pub(crate) mod source_file;
pub(crate) mod source_step;
pub(crate) mod sqlite;
pub(crate) mod staging;
pub(crate) mod state;
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
use sea_orm::{
    AccessMode, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    IsolationLevel, RuntimeErr, SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait, Value,
};
use sea_orm_migration::MigratorTrait;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Connections to read with; one more writes.
const MAX_READERS: u32 = 8;

/// What every PostgreSQL connection is told: a process that hangs or is gone gives up its transaction, and so the lock.
const POSTGRES_OPTIONS: [(&str, &str); 5] = [
    ("idle_in_transaction_session_timeout", "30s"),
    ("lock_timeout", "30s"),
    ("client_connection_check_interval", "5s"),
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
];

/// The lock of those who write: any number, the same in every release.
const LOCK_WRITERS: &str = "SELECT pg_advisory_xact_lock(5084119017374402390)";

/// Whether the registry departed: a row when it did.
const ASK_DEPARTURE: &str = "SELECT 1 AS departed FROM departure LIMIT 1";

/// What a writing transaction is refused with when the registry moved, or is moving, to another place.
pub(crate) const DEPARTED: &str = "this registry was moved to another database";

/// The database, as one handle to read with and one to write with.
#[derive(Debug, Clone)]
pub(crate) struct Db {
    reader: DatabaseConnection,
    writer: DatabaseConnection,
}

impl Db {
    /// Connects to `url` (`sqlite://PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`) and runs the migrations that are
    /// missing.
    ///
    /// # Errors
    /// When the database can't be opened or a migration fails.
    pub(crate) async fn open(url: &str) -> Result<Self, DbErr> {
        let db = Self::connect(url).await?;
        migrate(&db.writer).await?;
        Ok(db)
    }

    /// Connects, and leaves the schema as it is: for what brings a schema of its own.
    ///
    /// # Errors
    /// When the database can't be opened.
    pub(crate) async fn connect(url: &str) -> Result<Self, DbErr> {
        Ok(Self {
            writer: connect(url, 1).await?,
            reader: connect(url, MAX_READERS).await?,
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

/// A writing transaction, whoever asks for it: of a migration, and of what a move does to the place that it leaves.
async fn begin(writer: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let txn = begin_unlocked(writer).await?;
    if txn.get_database_backend() == DbBackend::Postgres {
        txn.execute_unprepared(LOCK_WRITERS).await?;
    }
    Ok(txn)
}

async fn begin_unlocked(writer: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        // A stricter one would see the database as it was before the lock was had.
        isolation_level: (writer.get_database_backend() == DbBackend::Postgres)
            .then_some(IsolationLevel::ReadCommitted),
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
    options.map_sqlx_sqlite_opts(move |of_sqlite| sqlite::configure(of_sqlite, max_connections == 1));
    options.map_sqlx_postgres_opts(|postgres| postgres.application_name("fineline").options(POSTGRES_OPTIONS));
    Database::connect(options).await
}

/// Begins the one transaction of an operation that writes. Nothing slow may happen while it is open.
///
/// # Errors
/// [`DEPARTED`] when the registry is not here any more; when the database is down or stays locked.
pub(crate) async fn write_txn(db: &Db) -> Result<DatabaseTransaction, DbErr> {
    let txn = begin_unlocked(&db.writer).await?;
    let departed = match txn.get_database_backend() {
        // One round trip. The second statement sees what was committed when the first had its lock; each counts its rows.
        DbBackend::Postgres => {
            let both = format!("{LOCK_WRITERS}; {ASK_DEPARTURE}");
            txn.execute_unprepared(&both).await?.rows_affected() > 1
        }
        _ => txn
            .query_one_raw(statement(&txn, ASK_DEPARTURE, Vec::new()))
            .await?
            .is_some(),
    };
    if departed {
        return Err(DbErr::Custom(DEPARTED.to_owned()));
    }
    Ok(txn)
}

/// The same for what brings a schema or ends a move: whether the registry departed is not asked.
///
/// # Errors
/// When the database is down or stays locked.
pub(crate) async fn unasked_txn(db: &Db) -> Result<DatabaseTransaction, DbErr> {
    begin(&db.writer).await
}

/// Begins a transaction that reads: all that is read in it is of one moment.
///
/// # Errors
/// When the database is down.
pub(crate) async fn read_txn(db: &Db) -> Result<DatabaseTransaction, DbErr> {
    let options = match db.reader.get_database_backend() {
        DbBackend::Postgres => TransactionOptions {
            isolation_level: Some(IsolationLevel::RepeatableRead),
            access_mode: Some(AccessMode::ReadOnly),
            ..TransactionOptions::default()
        },
        _ => TransactionOptions::default(),
    };
    db.reader.begin_with_options(options).await
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

/// What an error of the database means for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not answer now, or gave the transaction up; the same again may well pass.
    Unavailable,
    /// It has no room.
    Full,
    /// The registry moved to another one.
    Departed,
    /// Anything else.
    Other,
}

impl Fault {
    /// Its name as a metric's label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Full => "full",
            Self::Departed => "departed",
            Self::Other => "other",
        }
    }
}

/// Sorts an error out by SQLite's primary codes and PostgreSQL's SQLSTATE.
pub(crate) fn fault(error: &DbErr) -> Fault {
    let error = match error {
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => return Fault::Unavailable,
        DbErr::Custom(what) if what == DEPARTED => return Fault::Departed,
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => error,
        _ => return Fault::Other,
    };
    let Some(error) = error.as_database_error() else {
        use sea_orm::sqlx::Error::{Io, PoolClosed, PoolTimedOut, Tls, WorkerCrashed};
        let broken = matches!(**error, Io(_) | Tls(_) | PoolTimedOut | PoolClosed | WorkerCrashed);
        return if broken { Fault::Unavailable } else { Fault::Other };
    };
    let code = error.code().unwrap_or_default();
    // SQLite's codes are small numbers, with a further reason above the first byte; SQLSTATEs have five characters.
    if let (true, Ok(code)) = (code.len() < 5, code.parse::<u32>()) {
        return match code & 0xff {
            13 => Fault::Full,
            5 => Fault::Unavailable,
            _ => Fault::Other,
        };
    }
    match &*code {
        "53100" => Fault::Full,
        // Too many connections; a lock that was not to be had; a transaction that was silent for too long.
        "53300" | "55P03" | "25P03" => Fault::Unavailable,
        // Connections that broke, and servers that start, stop or restart.
        code if code.starts_with("08") || code.starts_with("57P") => Fault::Unavailable,
        _ => Fault::Other,
    }
}

/// Whether the database can be read: a row of it, not only its clock.
///
/// # Errors
/// When it is down.
pub(crate) async fn probe(db: &Db) -> Result<(), DbErr> {
    let sql = "SELECT version FROM seaql_migrations LIMIT 1";
    let statement = Statement::from_string(db.reader.get_database_backend(), sql);
    db.reader.query_one_raw(statement).await.map(drop)
}

/// The names of the migrations that the database has.
///
/// # Errors
/// When the database is down.
pub(crate) async fn applied_migrations(db: &Db) -> Result<Vec<String>, DbErr> {
    let applied = Migrator::get_applied_migrations(&db.writer).await?;
    Ok(applied.iter().map(|migration| migration.name().to_owned()).collect())
}

/// The names of the migrations that this build knows, in order.
pub(crate) fn known_migrations() -> Vec<String> {
    let known = Migrator::migrations();
    known.iter().map(|migration| migration.name().to_owned()).collect()
}

/// Brings the schema to the first `n` migrations, up or down.
///
/// # Errors
/// When one fails.
pub(crate) async fn migrate_to(txn: &DatabaseTransaction, n: usize) -> Result<(), DbErr> {
    let applied = Migrator::get_applied_migrations(txn).await?.len();
    let steps = |n: usize| Some(u32::try_from(n).unwrap_or(u32::MAX));
    if applied < n {
        return Migrator::up(txn, steps(n - applied)).await;
    }
    if applied > n {
        return Migrator::down(txn, steps(applied - n)).await;
    }
    Ok(())
}

fn statement(conn: &impl ConnectionTrait, sql: &str, values: Vec<Value>) -> Statement {
    Statement::from_sql_and_values(conn.get_database_backend(), sql, values)
}

/// Executes a statement; gives the rows that it changed.
async fn execute(conn: &impl ConnectionTrait, sql: &str, values: Vec<Value>) -> Result<u64, DbErr> {
    Ok(conn.execute_raw(statement(conn, sql, values)).await?.rows_affected())
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
pub(crate) fn time(ms: i64) -> DateTime<Utc> {
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
    use fineline_api::run::RunAttributes;

    use super::*;
    use crate::tests::fixture::database_of;

    #[tokio::test]
    async fn the_schema_goes_up_and_down_and_up_again() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&database_of(dir.path())).await.unwrap();
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
        let url = database_of(dir.path());
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
    async fn text_is_compared_by_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&database_of(dir.path())).await.unwrap();
        let txn = write_txn(&db).await.unwrap();
        for name in ["lab/a", "lab/B"] {
            let inserted = run::insert(&txn, &name.parse().unwrap(), &RunAttributes::default()).await;
            inserted.unwrap();
        }
        let runs = run::list(&txn, &[], None, 10).await.unwrap();
        let names: Vec<String> = runs.iter().map(|run| run.name.to_string()).collect();
        assert_eq!(names, ["lab/B", "lab/a"]);
        txn.commit().await.unwrap();
        if db.reader().get_database_backend() == DbBackend::Postgres {
            assert_no_text_of_a_language(&db).await;
        }
    }

    /// Every column of text, so that a table which is added later is not forgotten.
    async fn assert_no_text_of_a_language(db: &Db) {
        let sql = "SELECT table_name || '.' || column_name AS name FROM information_schema.columns \
            WHERE table_schema = current_schema() AND data_type IN ('text', 'character varying') \
            AND table_name <> 'seaql_migrations' AND collation_name IS DISTINCT FROM 'C'";
        let rows = db
            .reader()
            .query_all_raw(Statement::from_string(DbBackend::Postgres, sql));
        let names: Vec<String> = rows
            .await
            .unwrap()
            .iter()
            .map(|row| row.try_get("", "name").unwrap())
            .collect();
        assert!(names.is_empty(), "give these COLLATE \"C\" in a migration: {names:?}");
    }

    #[tokio::test]
    async fn who_writes_waits_for_who_writes_in_another_process() {
        // Given two processes on one database, of which one writes
        let dir = tempfile::tempdir().unwrap();
        let url = database_of(dir.path());
        let (one, other) = (Db::open(&url).await.unwrap(), Db::open(&url).await.unwrap());
        let first = write_txn(&one).await.unwrap();
        // When the other wants to
        let mut second = std::pin::pin!(write_txn(&other));
        let early = tokio::time::timeout(Duration::from_millis(300), second.as_mut()).await;
        // Then it waits for the end of the first, and not longer.
        assert!(early.is_err());
        first.rollback().await.unwrap();
        second.await.unwrap().commit().await.unwrap();
    }

    #[tokio::test]
    async fn on_postgres_writers_see_what_was_committed_whatever_the_servers_default_and_hang_for_no_one() {
        let dir = tempfile::tempdir().unwrap();
        let url = database_of(dir.path());
        let db = Db::open(&url).await.unwrap();
        if db.reader().get_database_backend() != DbBackend::Postgres {
            // SQLite has one level, and the test of the writer's lock is above.
            write_txn(&db).await.unwrap().commit().await.unwrap();
            return;
        }
        let stricter = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = %L', \
            current_database(), 'repeatable read'); END $$";
        let txn = write_txn(&db).await.unwrap();
        txn.execute_unprepared(stricter).await.unwrap();
        txn.commit().await.unwrap();
        let txn = write_txn(&Db::open(&url).await.unwrap()).await.unwrap();
        for (name, value) in [
            ("default_transaction_isolation", "repeatable read"),
            ("transaction_isolation", "read committed"),
            ("idle_in_transaction_session_timeout", "30s"),
            ("lock_timeout", "30s"),
        ] {
            let show = Statement::from_string(DbBackend::Postgres, format!("SHOW {name}"));
            let row = txn.query_one_raw(show).await.unwrap().unwrap();
            assert_eq!(row.try_get_by_index::<String>(0).unwrap(), value, "{name}");
        }
    }

    #[tokio::test]
    async fn the_databases_clock_is_unix_milliseconds() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&database_of(dir.path())).await.unwrap();
        let apart = now_ms(db.reader()).await.unwrap() - Utc::now().timestamp_millis();
        assert!(apart.abs() < 5_000, "{apart}");
    }
}
