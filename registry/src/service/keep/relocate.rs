//! A move to another database and store. Frames go first, while the old place is still served; then its departure is written
//! down, from which moment nobody writes there; then what came meanwhile, and all rows in one transaction; then the end.
//!
//! **Invariant:** at every moment at most one of the two places takes writes, and the one that does has everything. Killed
//! anywhere, the same command goes on: what it finds (no departure; a departure; an arrival of that departure; its end) says
//! where.

use std::collections::HashSet;

use serde::Serialize;
use uuid::Uuid;

use super::backup::{Spool, tell_damage};
use super::copy::{Arrived, copy};
use super::hold::Hold;
use super::restore::require_empty;
use super::snapshot;
use super::{Copied, KeepError, KeepResult, Progress};
use crate::db::departure::{self, Departure};
use crate::db::{self, Db};
use crate::store::Store;

/// Rounds of copying while the old place is still served.
const MAX_ROUNDS: usize = 5;

/// Damaged frames that an error names.
const MAX_NAMED: usize = 10;

/// A registry's database and store.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) db: Db,
    pub(crate) store: Store,
    /// Their URLs without secrets.
    pub(crate) database_url: String,
    pub(crate) store_url: String,
}

/// A move that ended.
#[derive(Debug, Serialize)]
pub(crate) struct Moved {
    pub(crate) database: String,
    pub(crate) store: String,
    /// Frames by this command; an earlier one may have brought others.
    pub(crate) frames: Copied,
    pub(crate) tables: Vec<MovedTable>,
}

/// Rows of a table at both ends.
#[derive(Debug, Serialize)]
pub(crate) struct MovedTable {
    pub(crate) name: String,
    pub(crate) n_rows_from: u64,
    pub(crate) n_rows_to: u64,
}

/// Moves a registry; `leave_damaged` goes on although frames are damaged, which then are so at the other end too.
///
/// # Errors
/// When it goes, or went, elsewhere; the other place is not empty; frames are damaged; or a database or store fails.
pub(crate) async fn relocate(
    from: &Place,
    to: &Place,
    leave_damaged: bool,
    progress: Progress<'_>,
) -> KeepResult<Moved> {
    let mut frames = Copied::default();
    let mut done = HashSet::new();
    let id = match departure::find(from.db.reader()).await? {
        Some(found) => {
            check_same(&found, to)?;
            progress("the move goes on where it was cut");
            found.id
        }
        None => {
            check_empty(&to.db).await?;
            let hold = Hold::begin(&from.db, "move").await?;
            let departed = copy_and_depart(from, to, leave_damaged, &hold, &mut done, &mut frames, progress).await;
            hold.end().await;
            departed?
        }
    };
    if !departure::has_arrived(to.db.reader(), id).await? {
        arrive(from, to, id, leave_damaged, &mut done, &mut frames, progress).await?;
    }
    let txn = db::unasked_txn(&from.db).await?;
    if !departure::end(&txn, id).await? {
        return Err(KeepError::refused(
            "the move was taken back while it went on, and the old place may be served again",
            "empty the new database, then move again",
        ));
    }
    txn.commit().await?;
    fail_point!("move.ended");
    // Only now: until here the old place could be taken back.
    let txn = db::unasked_txn(&to.db).await?;
    departure::open(&txn, id).await?;
    txn.commit().await?;
    fail_point!("move.opened");
    Ok(Moved {
        database: to.database_url.clone(),
        store: to.store_url.clone(),
        frames,
        tables: counts(&from.db, &to.db).await?,
    })
}

/// Lets the old place be served again, of a move that did not end.
///
/// # Errors
/// When there is none, it ended, or this is where it goes.
pub(crate) async fn take_back(from: &Db) -> KeepResult<()> {
    match departure::find(from.reader()).await? {
        Some(found) if departure::has_arrived(from.reader(), found.id).await? => Err(KeepError::refused(
            "this is where the registry moves to, not where it came from",
            "give the same `move` again to end it, or take it back at its old place",
        )),
        None => Err(KeepError::refused(
            "no move is under way here",
            "the registry can be served as it is",
        )),
        Some(found) if found.ended => Err(KeepError::refused(
            format!("the move to database `{}` has ended", found.database),
            "serve it there; to come back, move it from there into an empty database",
        )),
        Some(_) => {
            let txn = db::unasked_txn(from).await?;
            departure::take_back(&txn).await?;
            Ok(txn.commit().await?)
        }
    }
}

fn check_same(found: &Departure, to: &Place) -> KeepResult<()> {
    if (&found.database, &found.store) == (&to.database_url, &to.store_url) {
        return Ok(());
    }
    let (database, store) = (&found.database, &found.store);
    Err(if found.ended {
        KeepError::refused(
            format!("this registry moved to database `{database}` and store `{store}`"),
            "move it from there",
        )
    } else {
        KeepError::refused(
            format!("this registry is on its way to database `{database}` and store `{store}`"),
            "give these to `move`, or take that move back with `move --abort`",
        )
    })
}

async fn check_empty(db: &Db) -> KeepResult<()> {
    let txn = db::unasked_txn(db).await?;
    require_empty(&txn).await?;
    Ok(txn.rollback().await?)
}

/// Copies beside the server until a round finds nothing new, then writes the departure down.
async fn copy_and_depart(
    from: &Place,
    to: &Place,
    leave_damaged: bool,
    hold: &Hold,
    done: &mut HashSet<Uuid>,
    frames: &mut Copied,
    progress: Progress<'_>,
) -> KeepResult<Uuid> {
    for round in 1..=MAX_ROUNDS {
        let spool = Spool::new()?;
        let snapshot = snapshot::take(&from.db, &spool.store, "").await?;
        let named = snapshot.frames().await?;
        progress(&format!(
            "round {round}: {} frames, while the old place may be served",
            named.len()
        ));
        let copied = copy(&from.store, &to.store, &named, Arrived::ByReading, done, progress).await?;
        hold.check().await?;
        tell_damage(&from.db, &copied.bad_frames).await?;
        let n_new = copied.n_copied;
        add(frames, copied);
        check_damage(frames, leave_damaged)?;
        if n_new == 0 {
            break;
        }
    }
    fail_point!("move.copied");
    let departure = departure_to(to, Uuid::now_v7());
    let txn = db::write_txn(&from.db).await?;
    departure::begin(&txn, &departure).await?;
    txn.commit().await?;
    fail_point!("move.departed");
    Ok(departure.id)
}

fn departure_to(to: &Place, id: Uuid) -> Departure {
    Departure {
        id,
        database: to.database_url.clone(),
        store: to.store_url.clone(),
        ended: false,
    }
}

/// Brings what is left and all rows. Nobody writes at the old place, so nothing is deleted there either.
async fn arrive(
    from: &Place,
    to: &Place,
    id: Uuid,
    leave_damaged: bool,
    done: &mut HashSet<Uuid>,
    frames: &mut Copied,
    progress: Progress<'_>,
) -> KeepResult<()> {
    let spool = Spool::new()?;
    let snapshot = snapshot::take(&from.db, &spool.store, "").await?;
    let named = snapshot.frames().await?;
    progress(&format!(
        "the old place takes no writes any more: {} rows, {} frames",
        n_rows(&snapshot.head),
        named.len()
    ));
    add(
        frames,
        copy(&from.store, &to.store, &named, Arrived::ByReading, done, progress).await?,
    );
    check_damage(frames, leave_damaged)?;
    let txn = db::write_txn(&to.db).await?;
    require_empty(&txn).await?;
    snapshot.load(&txn).await?;
    for bad in &frames.bad_frames {
        db::frame::set_damaged(&txn, &bad.chunk, bad.frame, true).await?;
    }
    departure::arrive(&txn, id).await?;
    // Closed like the place that it left, until that one can't be taken back any more.
    departure::begin(&txn, &departure_to(to, id)).await?;
    fail_point!("move.before_arrival");
    txn.commit().await?;
    fail_point!("move.arrived");
    Ok(())
}

fn n_rows(head: &snapshot::Head) -> u64 {
    head.tables.iter().map(|table| table.n_rows).sum()
}

fn add(all: &mut Copied, more: Copied) {
    all.n_copied += more.n_copied;
    all.copied_bytes += more.copied_bytes;
    all.n_held += more.n_held;
    all.held_bytes += more.held_bytes;
    // Of the last round: what was repaired meanwhile is bad no more.
    all.bad_frames = more.bad_frames;
}

fn check_damage(frames: &Copied, leave_damaged: bool) -> KeepResult<()> {
    let bad = &frames.bad_frames;
    if bad.is_empty() || leave_damaged {
        return Ok(());
    }
    let named: Vec<&str> = bad.iter().take(MAX_NAMED).map(|bad| &*bad.message).collect();
    Err(KeepError::refused(
        format!("{} frames are damaged: {}", bad.len(), named.join("; ")),
        "push the steps that have them again (`fineline-registry scrub` names them), or move without them with \
         --leave-damaged; `move --abort` lets this place be served again",
    ))
}

/// Counts the rows at both ends.
async fn counts(from: &Db, to: &Db) -> KeepResult<Vec<MovedTable>> {
    let (from, to) = (db::read_txn(from).await?, db::read_txn(to).await?);
    let mut counts = Vec::new();
    for table in db::dump::tables(&from).await? {
        counts.push(MovedTable {
            n_rows_from: db::dump::count(&from, &table).await?,
            n_rows_to: db::dump::count(&to, &table).await?,
            name: table.name,
        });
    }
    Ok(counts)
}
