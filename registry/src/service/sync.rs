//! Looking at sources: what is there, what of it is whole, and bringing that in, one checkpoint after the other by step.
//! Sources are claimed by a lease, so that any replica can go on where another stopped.
//!
//! **Invariant:** how far a checkpoint is is written only under a live claim. A look that is cut off at any point is done
//! again, and finds what it did.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fineline_api::SourceStep;
use fineline_api::source::{DEFAULT_SETTLE_S, SourceStepState};
use fineline_format::Digest;
use metrics::counter;
use rand::RngExt as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::run::RunRow;
use crate::db::source::SourceRow;
use crate::db::source_step::StepRow;
use crate::error::{ApiError, ApiResult};
use crate::service::fetch::{IngestError, holds};
use crate::service::{borrowed, ingest, source};
use crate::source::plan::{Known, Planned, Rules, Verdict, plan};
use crate::source::{Origin, SourceError};

/// How long a claim holds without being renewed: what a crash can delay a look by.
const LEASE_MS: i64 = 6_000;
const RENEW_EVERY: Duration = Duration::from_millis(1500);

/// How long to wait before looking for work again, when nothing wakes us.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Sources that are looked at at the same time.
const MAX_SOURCES: usize = 2;

/// A look begins no further checkpoint after this: other sources that are due have their turn.
const LONGEST_LOOK: Duration = Duration::from_secs(10 * 60);

/// A checkpoint that failed is tried again after this, doubled each time, up to the longest; one of a source that is looked
/// at once so many times.
const FIRST_BACK_OFF_MS: i64 = 5_000;
const LONGEST_BACK_OFF_MS: i64 = 60 * 60 * 1000;
const MAX_FAILURES: u64 = 8;

/// Looks at sources when they are due, until the task is dropped.
pub(crate) async fn run_forever(app: App) {
    let syncer = Uuid::now_v7();
    let slots = Arc::new(Semaphore::new(MAX_SOURCES));
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let changed = app.changed.notified();
        match claim(&app, syncer).await {
            Ok(Some(source)) => {
                let app = app.clone();
                tasks.spawn(async move {
                    look_claimed(&app, syncer, source).await;
                    drop(slot);
                });
            }
            Ok(None) => drop(tokio::time::timeout(LOOK_EVERY, changed).await),
            Err(error) => {
                tracing::error!(%error, "can't look for sources that are due");
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}

async fn claim(app: &App, syncer: Uuid) -> ApiResult<Option<SourceRow>> {
    // Asked without writing first: this is asked every second.
    if !db::source::any_due(app.db.reader()).await? {
        return Ok(None);
    }
    let txn = db::write_txn(&app.db).await?;
    let claimed = db::source::claim(&txn, syncer, LEASE_MS).await?;
    txn.commit().await?;
    Ok(claimed)
}

async fn look_claimed(app: &App, syncer: Uuid, source: SourceRow) {
    let name = source.definition.name.clone();
    tokio::select! {
        () = keep_claim(app, source.id, syncer) => tracing::info!(source = name, "the look at this source is ended"),
        ended = look_and_end(app, syncer, &source) => if let Err(error) = ended {
            tracing::error!(source = name, %error, "the look at this source is put off");
        },
    }
}

/// Renews the claim; returns when it is lost: to another server, or since the source is paused or gone.
async fn keep_claim(app: &App, id: i64, syncer: Uuid) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let renew = async {
            let txn = db::write_txn(&app.db).await?;
            let renewed = db::source::renew(&txn, id, syncer, LEASE_MS).await?;
            txn.commit().await?;
            Ok::<_, ApiError>(renewed)
        };
        match renew.await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => tracing::warn!(source = id, %error, "a claim could not be renewed"),
        }
    }
}

async fn look_and_end(app: &App, syncer: Uuid, source: &SourceRow) -> ApiResult<()> {
    let looked = look(app, syncer, source).await;
    let (error, waits_ms) = match looked {
        Ok(Looked { waits_ms, error }) => (error, waits_ms),
        Err(error) => {
            tracing::warn!(source = source.definition.name, %error, "a source can't be looked at");
            (Some(error.to_string()), again_after(&error))
        }
    };
    counter!("fineline_source_looks_total", "outcome" => if error.is_none() { "ok" } else { "failed" }).increment(1);
    let next_ms = match source.definition.interval_s {
        Some(interval_s) => Some(waits_ms.unwrap_or(i64::MAX).min(jittered_ms(interval_s))),
        None => waits_ms,
    };
    let txn = db::write_txn(&app.db).await?;
    db::source::end(&txn, source, syncer, error.as_deref(), next_ms).await?;
    Ok(txn.commit().await?)
}

/// When a look that failed as a whole is worth another one; never where only a change of the source helps.
fn again_after(error: &IngestError) -> Option<i64> {
    match error {
        IngestError::Source(SourceError::Unavailable { retry_after, .. }) => {
            let asked = retry_after.map(|wait| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
            Some(asked.unwrap_or(0).max(FIRST_BACK_OFF_MS))
        }
        IngestError::Source(_) | IngestError::Waiting(_) | IngestError::Wrong(_) => None,
        IngestError::Api(_) => Some(FIRST_BACK_OFF_MS),
    }
}

/// An interval, a tenth more or less: sources that were made together do not stay so.
fn jittered_ms(interval_s: u64) -> i64 {
    let ms = i64::try_from(interval_s.saturating_mul(1000)).unwrap_or(i64::MAX / 2);
    let tenth = ms / 10;
    ms + rand::rng().random_range(-tenth..=tenth)
}

/// What a look came to.
struct Looked {
    /// After how many milliseconds something is due again, when anything is.
    waits_ms: Option<i64>,
    /// What is wrong beside the checkpoints.
    error: Option<String>,
}

/// One look.
async fn look(app: &App, syncer: Uuid, source: &SourceRow) -> Result<Looked, IngestError> {
    let began = Instant::now();
    let run = db::run::find(app.db.reader(), &source.definition.run).await?;
    let Some(run) = run.filter(|run| run.id == source.run_id) else {
        let name = &source.definition.run;
        return Err(IngestError::Wrong(format!(
            "run `{name}` was deleted: remove the source"
        )));
    };
    let origin = Arc::new(source::open(app, source)?);
    // Tokenizers come later than weights now and then: the steps do not wait for one.
    let error = match borrowed::take_tokenizer(app, source, &run, &origin).await {
        Err(error @ (IngestError::Wrong(_) | IngestError::Source(SourceError::NotFound(_)))) => Some(error.to_string()),
        taken => taken.map(|()| None)?,
    };
    let rows = db::source_step::list(app.db.reader(), source.id).await?;
    let rows: HashMap<String, StepRow> = rows.into_iter().map(|row| (row.place.clone(), row)).collect();
    let planned = find(&run, source, &origin, &rows).await?;
    forget_gone(app, syncer, source, &rows, &planned).await?;
    let mut looked = Vec::with_capacity(planned.len());
    for one in planned {
        let row = record(app, syncer, source, &run, rows.get(&one.place), &one).await?;
        looked.push((one, row));
    }
    for (one, row) in &mut looked {
        if began.elapsed() > LONGEST_LOOK {
            break;
        }
        if is_due(app, source, one, row).await? {
            *row = attempt(app, syncer, source, &run, &origin, one, row.clone()).await?;
        }
    }
    let now = db::now_ms(app.db.reader()).await?;
    let dues = looked.iter().filter_map(|(one, row)| due_ms(source, one, row));
    let waits_ms = dues.min().map(|due| (due - now).max(0) + 1);
    // A tokenizer that is not there yet is looked for again.
    let again_ms = error.is_some().then_some(LONGEST_BACK_OFF_MS);
    Ok(Looked {
        waits_ms: waits_ms.or(again_ms),
        error,
    })
}

/// What the source has, and what becomes of it.
async fn find(
    run: &RunRow,
    source: &SourceRow,
    origin: &Origin,
    rows: &HashMap<String, StepRow>,
) -> Result<Vec<Planned>, IngestError> {
    // Only what came in as it is need not be listed again.
    let came_in = |row: &&StepRow| row.ready_fingerprint == Some(row.fingerprint);
    let known: HashMap<String, Known> = rows
        .values()
        .filter(came_in)
        .map(|row| {
            let known = Known {
                version: row.version.clone(),
                weights: row.weights,
            };
            (row.place.clone(), known)
        })
        .collect();
    let versions = known
        .iter()
        .map(|(place, known)| (place.clone(), known.version.clone()))
        .collect();
    let places = origin.list(&versions).await?;
    Ok(plan(places, &known, &rules(source, run)))
}

/// How the places of a source become steps of its run.
pub(crate) fn rules<'a>(source: &'a SourceRow, run: &RunRow) -> Rules<'a> {
    let how = &source.definition;
    Rules {
        mapping: &how.mapping,
        run_tokens_per_step: run.attributes.tokens_per_step,
        marker: how.marker.as_deref(),
        keep_optimizer: how.keep_optimizer,
    }
}

fn settle_ms(source: &SourceRow) -> i64 {
    match &source.definition.marker {
        Some(_) => 0,
        None => {
            let settle_s = source.definition.settle_s.unwrap_or(DEFAULT_SETTLE_S);
            i64::try_from(settle_s.saturating_mul(1000)).unwrap_or(i64::MAX / 2)
        }
    }
}

async fn forget_gone(
    app: &App,
    syncer: Uuid,
    source: &SourceRow,
    rows: &HashMap<String, StepRow>,
    planned: &[Planned],
) -> ApiResult<()> {
    let there: HashSet<&str> = planned.iter().map(|one| one.place.as_str()).collect();
    let is_tokenizer = |place: &str| place.starts_with(borrowed::PLACE);
    let gone: Vec<String> = rows
        .keys()
        .filter(|place| !there.contains(place.as_str()) && !is_tokenizer(place))
        .cloned()
        .collect();
    if gone.is_empty() {
        return Ok(());
    }
    let txn = claimed_txn(app, source, syncer).await?;
    db::source_step::forget(&txn, source.id, &gone).await?;
    Ok(txn.commit().await?)
}

/// A writing transaction that the claim is alive in.
pub(crate) async fn claimed_txn(
    app: &App,
    source: &SourceRow,
    syncer: Uuid,
) -> ApiResult<sea_orm::DatabaseTransaction> {
    let txn = db::write_txn(&app.db).await?;
    if db::source::renew(&txn, source.id, syncer, LEASE_MS).await? {
        return Ok(txn);
    }
    let name = &source.definition.name;
    Err(ApiError::new(
        fineline_api::error::ErrorCode::Conflict,
        format!("source `{name}` is not looked at here any more"),
    ))
}

/// What a place is, as far as it is not to be brought: written down, and given back.
async fn record(
    app: &App,
    syncer: Uuid,
    source: &SourceRow,
    run: &RunRow,
    before: Option<&StepRow>,
    one: &Planned,
) -> ApiResult<StepRow> {
    if let (Verdict::Unchanged, Some(before)) = (&one.verdict, before) {
        return Ok(before.clone());
    }
    let now = db::now_ms(app.db.reader()).await?;
    let fingerprint = one.fingerprint();
    let same = before.filter(|before| before.fingerprint == fingerprint);
    let mut shown = show(app, source, run, one).await?;
    let since_ms = same.map_or(now, |before| before.since_ms);
    let ready_fingerprint = before.and_then(|before| before.ready_fingerprint);
    let settles_in = since_ms + settle_ms(source) - now;
    (shown.state, shown.message) = match &one.verdict {
        Verdict::Whole if ready_fingerprint == Some(fingerprint) => (SourceStepState::Ready, None),
        Verdict::Whole if settles_in > 0 => {
            let seconds = settles_in / 1000 + 1;
            let why = format!("its files have to stay as they are for {seconds} s more");
            (SourceStepState::Waiting, Some(why))
        }
        Verdict::Whole => match same {
            Some(before) if before.n_failures > 0 => (before.shown.state, before.shown.message.clone()),
            _ => (SourceStepState::Waiting, Some("its turn comes".to_owned())),
        },
        Verdict::Unchanged => (SourceStepState::Ready, None),
        // Nobody looks again at a source that is looked at once.
        Verdict::Waiting(why) if source.definition.interval_s.is_none() && settles_in <= 0 => {
            (SourceStepState::Failed, Some(why.clone()))
        }
        Verdict::Waiting(why) => (SourceStepState::Waiting, Some(why.clone())),
        Verdict::Failed(why) => (SourceStepState::Failed, Some(why.clone())),
        Verdict::Ignored(why) => (SourceStepState::Ignored, Some(why.clone())),
    };
    if let Some(before) = before {
        shown.checkpoint = before.shown.checkpoint;
        if shown.state == SourceStepState::Ready {
            shown.warnings = before.shown.warnings.clone();
        }
    }
    let row = StepRow {
        place: one.place.clone(),
        shown,
        version: one.version.clone(),
        fingerprint,
        since_ms,
        weights: one.weights,
        ready_fingerprint,
        n_failures: same.map_or(0, |before| before.n_failures),
        retry_at_ms: same.and_then(|before| before.retry_at_ms),
    };
    put(app, syncer, source, &row).await?;
    Ok(row)
}

async fn put(app: &App, syncer: Uuid, source: &SourceRow, row: &StepRow) -> ApiResult<()> {
    let txn = claimed_txn(app, source, syncer).await?;
    db::source_step::put(&txn, source.id, row).await?;
    Ok(txn.commit().await?)
}

/// What is shown of a place, its state being that of a preview.
pub(crate) async fn show(app: &App, source: &SourceRow, run: &RunRow, one: &Planned) -> ApiResult<SourceStep> {
    let caller = Caller::of_source(&run.name, source.created_at_ms);
    Ok(SourceStep {
        name: one.name.clone(),
        step: one.step,
        step_inferred: one.inferred.is_some(),
        step_unsnapped: one
            .inferred
            .map(|inferred| inferred.unsnapped)
            .filter(|unsnapped| Some(*unsnapped) != one.step),
        tokens: one.tokens,
        n_files: one.files.len() as u64,
        size_bytes: one.size_bytes(),
        held_bytes: held_bytes(app, &caller, one).await?,
        state: SourceStepState::New,
        message: None,
        warnings: one.warnings.clone(),
        checkpoint: None,
    })
}

/// Bytes of the files whose digest the place tells and whose chunks the source may name.
async fn held_bytes(app: &App, caller: &Caller, one: &Planned) -> ApiResult<u64> {
    let digests: Vec<Digest> = one.files.iter().filter_map(|file| file.sha256).collect();
    let known = db::file::find_many(app.db.reader(), &digests).await?;
    let mut held_bytes = 0;
    for file in &one.files {
        if let Some(row) = file.sha256.and_then(|digest| known.get(&digest))
            && row.size_bytes == file.size_bytes
            && holds(app, caller, &row.chunks).await?
        {
            held_bytes += file.size_bytes;
        }
    }
    Ok(held_bytes)
}

/// Whether a checkpoint is to be brought now.
async fn is_due(app: &App, source: &SourceRow, one: &Planned, row: &StepRow) -> ApiResult<bool> {
    if one.verdict != Verdict::Whole || row.ready_fingerprint == Some(row.fingerprint) {
        return Ok(false);
    }
    let now = db::now_ms(app.db.reader()).await?;
    Ok(due_ms(source, one, row).is_some_and(|due| due <= now))
}

/// When something of a checkpoint is due: that it has settled, or is tried again.
fn due_ms(source: &SourceRow, one: &Planned, row: &StepRow) -> Option<i64> {
    let settled_ms = row.since_ms.saturating_add(settle_ms(source));
    let once = source.definition.interval_s.is_none();
    match &one.verdict {
        Verdict::Whole if row.ready_fingerprint == Some(row.fingerprint) => None,
        Verdict::Whole if once && row.n_failures >= MAX_FAILURES => None,
        Verdict::Whole => Some(settled_ms.max(row.retry_at_ms.unwrap_or(0))),
        Verdict::Waiting(_) if once && row.shown.state == SourceStepState::Waiting => Some(settled_ms),
        _ => None,
    }
}

/// Brings a checkpoint in, and writes down what became of it.
async fn attempt(
    app: &App,
    syncer: Uuid,
    source: &SourceRow,
    run: &RunRow,
    origin: &Arc<Origin>,
    one: &Planned,
    mut row: StepRow,
) -> Result<StepRow, IngestError> {
    let replaces = is_ours(app, run, one, &row).await?;
    (row.shown.state, row.shown.message) = (SourceStepState::Fetching, None);
    put(app, syncer, source, &row).await?;
    let brought = ingest::bring(app, source, run, origin, one, replaces).await;
    let now = db::now_ms(app.db.reader()).await?;
    match brought {
        Ok(brought) => {
            (row.shown.state, row.shown.message) = (SourceStepState::Ready, None);
            row.shown.warnings = one.warnings.iter().cloned().chain(brought.warnings).collect();
            if replaces && row.shown.checkpoint != Some(brought.checkpoint) {
                let step = one.step.unwrap_or_default();
                let warning = "its files changed in the source after they came in: the step has a new revision";
                tracing::warn!(source = source.definition.name, place = one.place, step, "{warning}");
                row.shown.warnings.insert(0, warning.to_owned());
            }
            row.shown.checkpoint = Some(brought.checkpoint);
            row.ready_fingerprint = Some(row.fingerprint);
            (row.n_failures, row.retry_at_ms) = (0, None);
            counter!("fineline_source_checkpoints_total").increment(1);
        }
        Err(error) => {
            // What is wrong with the place as a whole ends the look.
            if let IngestError::Source(SourceError::Refused(_) | SourceError::Denied(_)) = error {
                return Err(error);
            }
            fail(&mut row, &error, now);
            tracing::warn!(source = source.definition.name, place = one.place, %error, "a checkpoint does not come in");
        }
    }
    put(app, syncer, source, &row).await?;
    Ok(row)
}

/// Whether what the step holds is what came of this place before: only that is replaced.
async fn is_ours(app: &App, run: &RunRow, one: &Planned, row: &StepRow) -> ApiResult<bool> {
    let current = db::revision::current(app.db.reader(), run.id, one.step.unwrap_or_default()).await?;
    let held = current.and_then(|revision| revision.checkpoint);
    Ok(row.ready_fingerprint.is_some() && held.is_some() && held == row.shown.checkpoint)
}

/// What failed waits the longer the more often it did.
fn fail(row: &mut StepRow, error: &IngestError, now: i64) {
    row.n_failures += 1;
    let doubled = FIRST_BACK_OFF_MS << row.n_failures.min(20).saturating_sub(1);
    let back_off = doubled.min(LONGEST_BACK_OFF_MS);
    row.retry_at_ms = Some(now + again_after(error).unwrap_or(0).max(back_off));
    row.shown.state = match error {
        IngestError::Waiting(_) => SourceStepState::Waiting,
        _ => SourceStepState::Failed,
    };
    row.shown.message = Some(error.to_string());
}
