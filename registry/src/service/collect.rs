//! Collecting garbage: mark what nothing needs, wait for the grace, delete it. Runs beside pushes, reads and evaluations.
//!
//! A run lets go of a digest when no checkpoint or session of it holds the digest any more (`possession.released_at`); a
//! frame is condemned when everybody has let go of its chunk. Both are taken back by whoever names the chunk. What was
//! let go of, or condemned, for the whole grace goes: possession, file, checkpoint, then frame, object first.
//!
//! **Invariant:** the grace is longer than the longest session, so what `missing` said is there stays until the commit.
//! What is deleted was tested in the very statement that begins its end.

use std::collections::{BTreeMap, HashMap};

use fineline_api::{FrameCount, GarbageReport};
use fineline_format::Digest;
use futures::{StreamExt, stream};
use metrics::counter;
use uuid::Uuid;

use crate::app::App;
use crate::db;
use crate::db::collect::Frames;
use crate::db::frame::FrameState;
use crate::error::ApiResult;
use crate::service::chunk::store_error;
use crate::service::{gauges, kept, mark};

/// Rows that one transaction changes.
const BATCH: u64 = 1000;

/// Frames that go together; their objects are deleted some at a time.
const FRAMES_AT_ONCE: u64 = 100;
const DELETES_AT_ONCE: usize = 8;

/// Marks, and deletes what was marked a grace ago; with `dry_run` only counts.
///
/// # Errors
/// When database or store are down; what was done until then is whole, the next collection goes on.
pub(crate) async fn collect(app: &App, dry_run: bool) -> ApiResult<GarbageReport> {
    let _alone = app.collecting.lock().await;
    let begun = std::time::Instant::now();
    let report = collect_alone(app, dry_run).await;
    if !dry_run {
        gauges::collected(begun, report.is_ok());
    }
    report
}

async fn collect_alone(app: &App, dry_run: bool) -> ApiResult<GarbageReport> {
    let grace_ms = i64::try_from(app.options.grace.as_millis()).unwrap_or(i64::MAX);
    let begun = begun(app, dry_run).await?;
    let before = begun.saturating_sub(grace_ms);
    let waiting_before = db::collect::count_state(app.db.reader(), FrameState::Condemned).await?;
    let (condemned, deleted) = if dry_run {
        let condemned = count_condemnable(app, begun).await?;
        (condemned, db::collect::count_condemned(app.db.reader(), before).await?)
    } else {
        mark(app, begun).await?;
        let condemned = db::collect::count_state(app.db.reader(), FrameState::Condemned).await?;
        (minus(condemned, waiting_before), sweep(app, before).await?)
    };
    let live = db::collect::count_state(app.db.reader(), FrameState::Live).await?;
    Ok(GarbageReport {
        dry_run,
        grace_s: app.options.grace.as_secs(),
        live: shown(if dry_run { minus(live, condemned) } else { live }),
        condemned: shown(condemned),
        waiting: shown(minus(waiting_before, deleted)),
        deleted: shown(deleted),
    })
}

fn minus(a: Frames, b: Frames) -> Frames {
    Frames {
        n: a.n.saturating_sub(b.n),
        stored_bytes: a.stored_bytes.saturating_sub(b.stored_bytes),
    }
}

fn shown(frames: Frames) -> FrameCount {
    FrameCount {
        n: frames.n,
        stored_bytes: frames.stored_bytes,
    }
}

/// When the mark began: every transaction that ended before bears an earlier time, for it is read where only one writes.
async fn begun(app: &App, dry_run: bool) -> ApiResult<i64> {
    let txn = db::write_txn(&app.db).await?;
    let begun = match dry_run {
        true => db::now_ms(&txn).await?,
        false => db::collect::begin_mark(&txn).await?,
    };
    txn.commit().await?;
    Ok(begun)
}

async fn mark(app: &App, begun: i64) -> ApiResult<()> {
    kept::tend(app).await?;
    for deleted in [false, true] {
        for run_id in run_ids(app, deleted).await? {
            mark::release(app, run_id, begun, deleted).await?;
        }
    }
    fail_point!("collect.released");
    let txn = db::write_txn(&app.db).await?;
    let revived = db::collect::revive_needed(&txn).await?;
    txn.commit().await?;
    if revived > 0 {
        tracing::warn!(revived, "condemned frames were needed and are live again");
    }
    let unpointed = db::collect::unpointed(app.db.reader(), BATCH).await?;
    if !unpointed.is_empty() {
        let txn = db::write_txn(&app.db).await?;
        db::collect::condemn_unpointed(&txn, &unpointed).await?;
        txn.commit().await?;
    }
    let mut after: Option<Digest> = None;
    while let Some(upto) = db::collect::chunk_bound(app.db.reader(), after.as_ref(), BATCH).await? {
        // Asked first where nobody waits for the answer: in most windows there is nothing.
        if !db::collect::unneeded(app.db.reader(), after.as_ref(), &upto)
            .await?
            .is_empty()
        {
            let txn = db::write_txn(&app.db).await?;
            let unneeded = db::collect::unneeded(&txn, after.as_ref(), &upto).await?;
            db::collect::condemn(&txn, &unneeded).await?;
            txn.commit().await?;
        }
        after = Some(upto);
    }
    fail_point!("collect.condemned");
    Ok(())
}

/// What a mark would condemn now.
async fn count_condemnable(app: &App, begun: i64) -> ApiResult<Frames> {
    let conn = app.db.reader();
    let mut total = Frames::default();
    let mut after: Option<Digest> = None;
    while let Some(upto) = db::collect::chunk_bound(conn, after.as_ref(), BATCH).await? {
        let unneeded = db::collect::count_unneeded(conn, after.as_ref(), &upto).await?;
        total.n += unneeded.n;
        total.stored_bytes += unneeded.stored_bytes;
        after = Some(upto);
    }
    // In memory is what would go, and no more.
    let mut n_letting_go: HashMap<Digest, u64> = HashMap::new();
    for deleted in [false, true] {
        for run_id in run_ids(app, deleted).await? {
            for digest in mark::unheld(app, run_id, begun, deleted).await? {
                *n_letting_go.entry(digest).or_default() += 1;
            }
        }
    }
    let mut by_holders: BTreeMap<u64, Vec<Digest>> = BTreeMap::new();
    for (digest, n) in n_letting_go {
        by_holders.entry(n).or_default().push(digest);
    }
    for (n, digests) in by_holders {
        let found = db::collect::count_held_by(conn, &digests, n).await?;
        total.n += found.n;
        total.stored_bytes += found.stored_bytes;
    }
    Ok(total)
}

async fn run_ids(app: &App, deleted: bool) -> ApiResult<Vec<i64>> {
    let mut all = Vec::new();
    loop {
        let after = all.last().copied().unwrap_or(0);
        let ids = db::run::ids(app.db.reader(), deleted, after, BATCH).await?;
        if ids.is_empty() {
            return Ok(all);
        }
        all.extend(ids);
    }
}

/// Forgets deleted runs that have let go of everything for the whole grace.
async fn forget_runs(app: &App) -> ApiResult<()> {
    for run_id in run_ids(app, true).await? {
        let txn = db::write_txn(&app.db).await?;
        match db::collect::forget_run(&txn, run_id).await {
            Ok(_) => txn.commit().await?,
            // It must not keep the bytes of all others.
            Err(error) => tracing::error!(run_id, %error, "a deleted run can't be forgotten"),
        }
    }
    Ok(())
}

/// Rows that go without an object.
#[derive(Debug, Clone, Copy)]
enum Forgotten {
    ReleasedBefore(i64),
    Files,
    Checkpoints,
}

/// Forgets all such rows, in short transactions.
async fn forget_all(app: &App, what: Forgotten) -> ApiResult<()> {
    loop {
        let txn = db::write_txn(&app.db).await?;
        let n = match what {
            Forgotten::ReleasedBefore(before) => db::collect::forget_released(&txn, before, BATCH).await?,
            Forgotten::Files => db::collect::forget_files(&txn, BATCH).await?,
            Forgotten::Checkpoints => db::collect::forget_checkpoints(&txn, BATCH).await?,
        };
        txn.commit().await?;
        if n == 0 {
            return Ok(());
        }
    }
}

/// Deletes what was let go of, or condemned, before `before`; gives the frames.
async fn sweep(app: &App, before: i64) -> ApiResult<Frames> {
    for what in [
        Forgotten::ReleasedBefore(before),
        Forgotten::Files,
        Forgotten::Checkpoints,
    ] {
        forget_all(app, what).await?;
    }
    forget_runs(app).await?;
    let mut deleted = Frames::default();
    loop {
        let doomed = db::collect::condemned(app.db.reader(), before, FRAMES_AT_ONCE).await?;
        let gone = delete_frames(app, &doomed, before).await?;
        deleted.n += gone.n;
        deleted.stored_bytes += gone.stored_bytes;
        if gone.n == 0 {
            break;
        }
    }
    counter!("fineline_frames_deleted_total").increment(deleted.n);
    counter!("fineline_frame_deleted_bytes_total").increment(deleted.stored_bytes);
    Ok(deleted)
}

async fn delete_frames(app: &App, doomed: &[(Uuid, u64)], before: i64) -> ApiResult<Frames> {
    let mut going = Vec::new();
    let mut deleted = Frames::default();
    let txn = db::write_txn(&app.db).await?;
    // A backup or a move copies what its snapshot named; it tells who writes in this very order.
    if db::hold::any(&txn).await? {
        return Ok(deleted);
    }
    for (id, stored_bytes) in doomed {
        if db::collect::begin_delete(&txn, *id, before).await? {
            going.push(*id);
            deleted.n += 1;
            deleted.stored_bytes += stored_bytes;
        }
    }
    txn.commit().await?;
    fail_point!("collect.deleting");
    finish_deletes(app, &going).await?;
    Ok(deleted)
}

/// Ends what is in state `deleting`: object, then row. An object that can't be deleted keeps its row and no other's.
///
/// # Errors
/// The first that the store refused.
pub(crate) async fn finish_deletes(app: &App, going: &[Uuid]) -> ApiResult<()> {
    let store = app.store.clone();
    let delete = move |id: Uuid| {
        let store = store.clone();
        async move { store.delete_frame(id).await.map(|()| id) }
    };
    let mut deletes = stream::iter(going.to_vec())
        .map(delete)
        .buffer_unordered(DELETES_AT_ONCE);
    let (mut gone, mut refused) = (Vec::new(), None);
    while let Some(deleted) = deletes.next().await {
        fail_point!("collect.object_deleted");
        match deleted {
            Ok(id) => gone.push(id),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    let txn = db::write_txn(&app.db).await?;
    for id in gone {
        db::frame::forget(&txn, id).await?;
    }
    txn.commit().await?;
    refused.map_or(Ok(()), |error| Err(store_error(error)))
}
