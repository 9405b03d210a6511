//! A restore: a backup into an empty place. Frames first, then all rows in one transaction: a restore that was cut left no
//! row, and the same command goes on.

use std::collections::HashSet;

use sea_orm::DatabaseTransaction;
use serde::Serialize;

use super::backup::Spool;
use super::copy::{Arrived, copy};
use super::place;
use super::snapshot::{Head, Snapshot};
use super::{Copied, KeepError, KeepResult, Progress};
use crate::db::{self, Db};
use crate::store::Store;

/// A backup that was restored.
#[derive(Debug, Serialize)]
pub(crate) struct Restored {
    pub(crate) id: String,
    pub(crate) n_rows: u64,
    /// What the backup does not have is damaged in what was restored: the next push that has it sends it again.
    pub(crate) frames: Copied,
}

/// Restores a backup, the newest when none is named, into an empty database and a store.
///
/// # Errors
/// When the database is not empty, the backup is of a newer schema or damaged in its rows, or database or a store fail.
pub(crate) async fn restore(
    from: &Store,
    id: Option<String>,
    db: &Db,
    store: &Store,
    progress: Progress<'_>,
) -> KeepResult<Restored> {
    let id = match id {
        Some(id) => id,
        None => place::list(from).await?.pop().ok_or_else(|| {
            let hint = "give what `fineline-registry backup --to` was given";
            KeepError::refused("there is no backup in this place", hint)
        })?,
    };
    let backup = place::open(from, &id).await?;
    check_schema(&id, &backup.head)?;
    let txn = db::unasked_txn(db).await?;
    require_empty(&txn).await?;
    txn.rollback().await?;
    let spool = Spool::new()?;
    let snapshot = Snapshot {
        head: backup.head.clone(),
        parts: from.clone(),
    };
    // Here first: no byte of another machine is waited for while the transaction is open.
    let snapshot = snapshot.copied_to(&spool.store).await?;
    let frames = snapshot.frames().await?;
    progress(&format!(
        "backup {id}: {} frames, {} rows",
        frames.len(),
        backup.n_rows()
    ));
    let frames = copy(from, store, &frames, Arrived::ByReading, &mut HashSet::new(), progress).await?;
    fail_point!("restore.frames");

    let txn = db::unasked_txn(db).await?;
    require_empty(&txn).await?;
    // Into the schema that it was taken from, and then on to ours, as a database of that age would go.
    db::migrate_to(&txn, snapshot.head.migrations.len()).await?;
    snapshot.load(&txn).await?;
    db::migrate_to(&txn, db::known_migrations().len()).await?;
    db::dump::settle(&txn).await?;
    for bad in &frames.bad_frames {
        db::frame::set_damaged(&txn, &bad.chunk, bad.frame, true).await?;
    }
    fail_point!("restore.before_commit");
    txn.commit().await?;
    Ok(Restored {
        id,
        n_rows: backup.n_rows(),
        frames,
    })
}

/// Demands that the backup's schema is one that this build's came through.
fn check_schema(id: &str, head: &Head) -> KeepResult<()> {
    let known = db::known_migrations();
    let strange = head
        .migrations
        .iter()
        .enumerate()
        .find(|(at, name)| known.get(*at) != Some(name));
    match strange {
        None => Ok(()),
        Some((_, name)) => Err(KeepError::refused(
            format!(
                "backup `{id}` was made by a newer release: its schema has `{name}`, which this build does not know"
            ),
            "restore it with the release that made it, or a later one",
        )),
    }
}

/// Demands that nothing is kept in a database yet.
pub(super) async fn require_empty(txn: &DatabaseTransaction) -> KeepResult<()> {
    match db::dump::first_with_rows(txn).await? {
        None => Ok(()),
        Some(table) => Err(KeepError::refused(
            format!("the database is not empty: table `{table}` has rows"),
            "give a database that nothing was kept in yet",
        )),
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnectionTrait, Statement};

    use super::super::place::Backup;
    use super::super::snapshot;
    use super::*;
    use crate::tests::fixture::database_of;

    fn quiet(_: &str) {}

    /// A backup of a database with the first `n` migrations and a suite that was uploaded for a pattern.
    async fn older(n: usize) -> Store {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::connect(&database_of(dir.path())).await.unwrap();
        let txn = db::unasked_txn(&db).await.unwrap();
        db::migrate_to(&txn, n).await.unwrap();
        let digest = "07".repeat(32);
        for table in db::dump::tables(&txn).await.unwrap() {
            let line = match &*table.name {
                "suite" => format!(r#"["{digest}","words","{{\"tasks\": []}}",5,1234]"#),
                "suite_pattern" if n > 4 => format!(r#"["{digest}","lab/*","words",1234]"#),
                "suite_pattern" => format!(r#"["{digest}","lab/*"]"#),
                _ => continue,
            };
            db::dump::insert(&txn, &table, &[&*line]).await.unwrap();
        }
        txn.commit().await.unwrap();
        let to = Store::in_memory();
        let head = snapshot::take(&db, &to, "backups/old/").await.unwrap().head;
        seal(&to, head).await;
        to
    }

    async fn seal(to: &Store, head: Head) {
        let backup = Backup {
            head,
            n_frames: 0,
            frame_bytes: 0,
            bad_frames: Vec::new(),
        };
        place::seal(to, "old", &backup).await.unwrap();
    }

    async fn restore_into(dir: &tempfile::TempDir, from: &Store) -> KeepResult<Db> {
        let db = Db::connect(&database_of(dir.path())).await.unwrap();
        restore(from, None, &db, &Store::in_memory(), &quiet).await?;
        Ok(db)
    }

    #[tokio::test]
    async fn a_backup_of_an_older_schema_goes_the_way_that_its_database_would_have_gone() {
        // Before suites had their names by pattern.
        let from = older(4).await;
        let (fresh, migrated) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // A database that a newer release made, and in which nothing was kept.
        drop(Db::open(&database_of(migrated.path())).await.unwrap());
        for dir in [fresh, migrated] {
            let db = restore_into(&dir, &from).await.unwrap();
            assert_eq!(db::applied_migrations(&db).await.unwrap(), db::known_migrations());
            let sql = "SELECT name, created_at_ms FROM suite_pattern";
            let backend = db.reader().get_database_backend();
            let row = db.reader().query_one_raw(Statement::from_string(backend, sql)).await;
            let row = row.unwrap().unwrap();
            let found: (String, i64) = (
                row.try_get("", "name").unwrap(),
                row.try_get("", "created_at_ms").unwrap(),
            );
            assert_eq!(found, ("words".to_owned(), 1234));
        }
    }

    #[tokio::test]
    async fn a_backup_of_a_newer_release_is_refused() {
        let from = older(db::known_migrations().len()).await;
        let mut head = place::open(&from, "old").await.unwrap().head;
        head.migrations.push("m20990101_000001_think".to_owned());
        seal(&from, head).await;
        let dir = tempfile::tempdir().unwrap();
        let refused = restore_into(&dir, &from).await.unwrap_err();
        assert!(refused.to_string().contains("`m20990101_000001_think`"), "{refused}");
        let refused = format!("{:?}", place::open(&from, "other").await.unwrap_err());
        assert!(refused.contains("there is no backup `other`"), "{refused}");
    }
}
