//! A backup: the rows of one moment and every frame that they name, beside a running server.
//!
//! **Invariant:** what is named in the snapshot is not deleted before it is copied: the hold begins before the snapshot, and a
//! backup whose hold ran out is none. `backup.json` comes last.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::copy::{Arrived, copy};
use super::hold::Hold;
use super::place::{self, Backup};
use super::snapshot::{self, Snapshot};
use super::{BadFrame, Copied, KeepError, KeepResult, Progress};
use crate::db::{self, Db};
use crate::store::{Store, StoreOptions};

/// How a backup is made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BackupOptions {
    /// Read back and hash what an earlier backup brought, too.
    pub(crate) verify: bool,
    /// Take away all but so many of the newest backups, and what only the others need.
    pub(crate) keep_last: Option<usize>,
}

/// A backup that was made.
#[derive(Debug, Serialize)]
pub(crate) struct Made {
    pub(crate) id: String,
    /// The moment that it is of.
    pub(crate) taken_at: DateTime<Utc>,
    pub(crate) n_rows: u64,
    pub(crate) frames: Copied,
    /// Backups and frames that were taken away.
    pub(crate) n_pruned: u64,
    pub(crate) n_pruned_frames: u64,
}

/// Makes a backup of a registry.
///
/// # Errors
/// When there is another under way, its hold ran out, or database or a store fail. Frames that are damaged are in the answer.
pub(crate) async fn backup(
    db: &Db,
    store: &Store,
    to: &Store,
    options: BackupOptions,
    progress: Progress<'_>,
) -> KeepResult<Made> {
    let hold = Hold::begin(db, "backup").await?;
    let made = make(db, store, to, options, &hold, progress).await;
    hold.end().await;
    made
}

async fn make(
    db: &Db,
    store: &Store,
    to: &Store,
    options: BackupOptions,
    hold: &Hold,
    progress: Progress<'_>,
) -> KeepResult<Made> {
    // Beside the place, not in it: the snapshot's transaction lasts as long as reading takes, however slow the place is.
    let spool = Spool::new()?;
    let Snapshot { mut head, parts } = snapshot::take(db, &spool.store, "").await?;
    fail_point!("backup.snapshot");
    let id = head.taken_at.format("%Y%m%dT%H%M%S%.3fZ").to_string();
    progress(&format!("backup {id}: {} tables were read", head.tables.len()));
    let frames = Snapshot {
        head: head.clone(),
        parts,
    };
    let frames = frames.frames().await?;
    let arrived = if options.verify {
        Arrived::ByReading
    } else {
        Arrived::BySize
    };
    let copied = copy(store, to, &frames, arrived, &mut HashSet::new(), progress).await?;
    hold.check().await?;
    tell_damage(db, &copied.bad_frames).await?;
    fail_point!("backup.frames");
    for part in head.tables.iter_mut().flat_map(|table| &mut table.parts) {
        let bytes = spool.store.get_named(&part.name).await?;
        part.name = place::prefix(&id) + &part.name;
        to.put_named(&part.name, bytes).await?;
    }
    fail_point!("backup.before_head");
    let backup = Backup {
        n_frames: copied.n_copied + copied.n_held,
        frame_bytes: copied.copied_bytes + copied.held_bytes,
        bad_frames: copied.bad_frames.clone(),
        head,
    };
    place::seal(to, &id, &backup).await?;
    let mut made = Made {
        id,
        taken_at: backup.head.taken_at,
        n_rows: backup.n_rows(),
        frames: copied,
        n_pruned: 0,
        n_pruned_frames: 0,
    };
    if let Some(n) = options.keep_last {
        // Nobody else may be putting frames for a backup of theirs.
        hold.check().await?;
        (made.n_pruned, made.n_pruned_frames) = prune(to, n).await?;
    }
    Ok(made)
}

/// Writes down which chunks are damaged, so that they count as missing and the next push that has them sends them again.
pub(super) async fn tell_damage(db: &Db, bad_frames: &[BadFrame]) -> KeepResult<()> {
    if bad_frames.is_empty() {
        return Ok(());
    }
    let txn = db::write_txn(db).await?;
    for bad in bad_frames {
        db::frame::set_damaged(&txn, &bad.chunk, bad.frame, true).await?;
    }
    Ok(txn.commit().await?)
}

/// Takes away all but the newest `n` backups, and the frames that none of these names.
async fn prune(to: &Store, n: usize) -> KeepResult<(u64, u64)> {
    let mut ids = place::list(to).await?;
    let kept = ids.split_off(ids.len().saturating_sub(n));
    let mut named = HashSet::new();
    for id in &kept {
        let snapshot = Snapshot {
            head: place::open(to, id).await?.head,
            parts: to.clone(),
        };
        // Before anything is taken away: a backup that can't be read names who knows what.
        named.extend(snapshot.frames().await?.iter().map(|frame| frame.id));
    }
    place::remove_all_but(to, &kept).await?;
    fail_point!("backup.pruning");
    let mut n_frames = 0;
    for id in to.list_frames().await? {
        if !named.contains(&id) {
            to.delete_frame(id).await?;
            n_frames += 1;
        }
    }
    Ok((ids.len() as u64, n_frames))
}

/// A temporary folder with the parts of a snapshot.
pub(super) struct Spool {
    pub(super) store: Store,
    /// Gone with this.
    _dir: tempfile::TempDir,
}

impl Spool {
    pub(super) fn new() -> KeepResult<Self> {
        let dir = tempfile::tempdir()?;
        let store = Store::open(&format!("file://{}", dir.path().display()), &StoreOptions::default())
            .map_err(KeepError::Other)?;
        Ok(Self { store, _dir: dir })
    }
}
