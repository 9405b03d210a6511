//! What SQLite needs and PostgreSQL does by itself: how its file is opened, and bringing its write-ahead log into that file.

use std::time::Duration;

use sea_orm::sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::{ConnectionTrait, DbBackend, DbErr};

use super::Db;

/// How long a statement waits for another process that writes to the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a server brings the log into the file.
const FOLD_IN_EVERY: Duration = Duration::from_secs(1);

/// Pages of the log, 64 MiB, at which a writer brings it into the file at the end of its transaction: in commands, which have
/// no [`fold_in_forever`], or when that falls behind.
const MAX_LOG_PAGES: u32 = 16 << 10;

/// How a connection to read with, or the one that writes, opens the file.
pub(super) fn configure(options: SqliteConnectOptions, is_writer: bool) -> SqliteConnectOptions {
    let options = options
        .create_if_missing(true)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        // A chunk that was acknowledged survives a power cut, not only a crash.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT);
    if !is_writer {
        return options;
    }
    options
        // Setting it takes the lock of writers: a reader that connects would wait for them.
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .pragma("wal_autocheckpoint", MAX_LOG_PAGES.to_string())
}

/// Brings what was committed from the log into the file now and then, beside readers and writers, until it is dropped: two
/// thousand rows that lie anywhere are as many pages to write, and an fsync, which SQLite leaves to the transaction that fills
/// the log. On PostgreSQL there is nothing to do.
pub(crate) async fn fold_in_forever(db: Db) {
    if db.reader.get_database_backend() != DbBackend::Sqlite {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(FOLD_IN_EVERY).await;
        if let Err(error) = fold_in(&db).await {
            tracing::warn!(%error, "what was written can't be brought into the database's file");
        }
    }
}

async fn fold_in(db: &Db) -> Result<(), DbErr> {
    let fold_in = "PRAGMA wal_checkpoint(PASSIVE)";
    db.reader.execute_unprepared(fold_in).await.map(drop)
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use sea_orm::Statement;

    use super::*;
    use crate::db::write_txn;
    use crate::serve::{self, ServeOptions};

    /// A new database of SQLite, whatever engine the tests run on.
    pub(in crate::db) async fn given(dir: &Path) -> Db {
        Db::open(&format!("sqlite://{}", dir.join("db").display()))
            .await
            .unwrap()
    }

    /// The one column of text that a question has.
    pub(in crate::db) async fn texts(db: &Db, asked: Statement, column: &str) -> Vec<String> {
        let rows = db.reader.query_all_raw(asked).await.unwrap();
        rows.iter().map(|row| row.try_get("", column).unwrap()).collect()
    }

    /// How SQLite goes about a statement.
    pub(in crate::db) async fn plan(db: &Db, asked: Statement) -> Vec<String> {
        let sql = format!("EXPLAIN QUERY PLAN {}", asked.sql);
        let explain = Statement::from_sql_and_values(DbBackend::Sqlite, sql, asked.values.unwrap());
        texts(db, explain, "detail").await
    }

    #[tokio::test]
    async fn a_server_brings_what_is_written_into_the_file_beside_the_writer_and_not_at_its_commit() {
        // Given a server to whose database more is written than SQLite would by itself leave in the log, 4 MiB
        let dir = tempfile::tempdir().unwrap();
        let server = serve::start(ServeOptions::local(dir.path())).await.unwrap();
        let db = &server.app.db;
        let file_bytes = || std::fs::metadata(dir.path().join("fineline.db")).unwrap().len();
        let txn = write_txn(db).await.unwrap();
        txn.execute_unprepared("CREATE TABLE large (bytes BLOB)").await.unwrap();
        let large = "INSERT INTO large VALUES (zeroblob(6 << 20))";
        txn.execute_unprepared(large).await.unwrap();
        txn.commit().await.unwrap();
        assert!(file_bytes() < 6 << 20, "the commit itself did it");
        // When somebody writes on and on
        let writing = write_txn(db).await.unwrap();
        // Then it is in the file soon all the same.
        let folded_in = async {
            while file_bytes() < 6 << 20 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(30 * FOLD_IN_EVERY, folded_in).await;
        assert!(in_time.is_ok(), "{} bytes", file_bytes());
        writing.commit().await.unwrap();
        server.stop().await;
    }

    #[tokio::test]
    async fn it_is_built_without_what_makes_readers_wait_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let db = given(dir.path()).await;
        let sql = "SELECT compile_options AS option FROM pragma_compile_options";
        let options = texts(&db, Statement::from_string(DbBackend::Sqlite, sql), "option").await;
        let has = |wanted: &str| options.iter().any(|option| option == wanted);
        assert!(
            !has("ENABLE_MEMORY_MANAGEMENT") && has("DEFAULT_MEMSTATUS=0"),
            "`.cargo/config.toml` says how; it counts where cargo is called below its folder, with no other flags in the way: \
             {options:?}"
        );
    }
}
