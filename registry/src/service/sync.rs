//! Looking at sources that are due: what is there, and what of it comes in, one checkpoint after the other by step
//! (`source_step`).
//!
//! **Invariant:** a look that is cut off at any point is done again, and finds what it did.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use rand::RngExt as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::app::App;
use crate::db;
use crate::db::run::RunRow;
use crate::db::source::SourceRow;
use crate::db::source_step::{StepRow, TOKENIZER};
use crate::error::ApiResult;
use crate::service::ingest_error::{IngestError, in_ms};
use crate::service::source_claim::Claim;
use crate::service::source_step::Arrivals;
use crate::service::{borrowed, source};
use crate::source::Origin;
use crate::source::plan::{Known, Planned, Verdict};

/// How long to wait before looking for work again, when nothing wakes us.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Sources that are looked at at the same time.
const MAX_SOURCES: usize = 2;

/// A look ends after this, with the file that it reads, in the middle of a checkpoint too, which the next one goes on with:
/// other sources that are due have their turn.
const LONGEST_LOOK: Duration = Duration::from_secs(10 * 60);

/// A look that failed in passing is repeated after this at the latest; the reads themselves were repeated within it.
const LOOK_AGAIN_MS: i64 = 60_000;

/// A tokenizer that is not there yet is looked for again after this.
const TOKENIZER_AGAIN_MS: i64 = 60 * 60 * 1000;

/// Looks at sources when they are due, until the task is dropped.
pub(crate) async fn run_forever(app: App) {
    let slots = Arc::new(Semaphore::new(MAX_SOURCES));
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let changed = app.changed.notified();
        match Claim::next(&app).await {
            Ok(Some(claim)) => {
                tasks.spawn(async move {
                    look_claimed(&claim).await;
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

async fn look_claimed(claim: &Claim) {
    let name = &claim.source.definition.name;
    let looked = tokio::select! {
        () = claim.keep() => Err(IngestError::Lost),
        looked = look(claim) => looked,
    };
    let ended = match looked {
        Ok(looked) => end(claim, looked).await,
        Err(IngestError::Lost) => {
            tracing::info!(source = name, "the look at this source is ended");
            claim.free().await
        }
        Err(error) => {
            tracing::warn!(source = name, %error, "a source can't be looked at");
            let failed = Looked {
                due_ms: error.is_passing().then_some(LOOK_AGAIN_MS),
                asked_ms: error.asked_ms(),
                error: Some(error.to_string()),
            };
            end(claim, failed).await
        }
    };
    if let Err(error) = ended {
        tracing::error!(source = name, %error, "what a look came to can't be written down: it is done again");
    }
}

/// What a look came to.
#[derive(Debug, Default)]
struct Looked {
    /// What is wrong beside the checkpoints.
    error: Option<String>,
    /// After how many milliseconds something is due again, when anything is.
    due_ms: Option<i64>,
    /// How long the place wants to be left alone.
    asked_ms: i64,
}

async fn end(claim: &Claim, looked: Looked) -> ApiResult<()> {
    let outcome = if looked.error.is_none() { "ok" } else { "failed" };
    counter!("fineline_source_looks_total", "outcome" => outcome).increment(1);
    let due_ms = match claim.source.definition.interval_s {
        Some(interval_s) => Some(looked.due_ms.unwrap_or(i64::MAX).min(jittered_ms(interval_s))),
        None => looked.due_ms,
    };
    let next_ms = due_ms.map(|due_ms| due_ms.max(looked.asked_ms));
    claim.end(looked.error.as_deref(), next_ms).await
}

/// An interval, a tenth more or less: sources that were made together do not stay so.
fn jittered_ms(interval_s: u64) -> i64 {
    let ms = i64::try_from(interval_s.saturating_mul(1000)).unwrap_or(i64::MAX / 2);
    let tenth = ms / 10;
    ms + rand::rng().random_range(-tenth..=tenth)
}

/// One look.
async fn look(claim: &Claim) -> Result<Looked, IngestError> {
    let deadline = Instant::now() + LONGEST_LOOK;
    let Claim { app, source, .. } = claim;
    let run = db::run::find(app.db.reader(), &source.definition.run).await?;
    let Some(run) = run.filter(|run| run.id == source.run_id) else {
        let name = &source.definition.run;
        return Err(IngestError::Wrong(format!(
            "run `{name}` was deleted: remove the source"
        )));
    };
    let origin = Arc::new(source::open(app, source)?);
    let mut looked = Looked::default();
    // Tokenizers come later than weights now and then: the steps do not wait for one.
    match borrowed::take_tokenizer(claim, &run, &origin).await {
        Ok(()) => {}
        Err(error @ IngestError::Lost) => return Err(error),
        Err(error) => {
            let is_worth_it = source.definition.interval_s.is_some() || error.is_passing();
            looked.due_ms = is_worth_it.then_some(match error.is_passing() {
                true => LOOK_AGAIN_MS,
                false => TOKENIZER_AGAIN_MS,
            });
            looked.asked_ms = error.asked_ms();
            looked.error = Some(format!("its tokenizer does not come: {error}"));
        }
    }
    let rows = db::source_step::list(app.db.reader(), source.id).await?;
    let rows: HashMap<String, StepRow> = rows.into_iter().map(|row| (row.place.clone(), row)).collect();
    let planned = find(&run, source, &origin, &rows).await?;
    if planned.is_empty() && source.definition.interval_s.is_none() {
        looked.error.get_or_insert_with(|| source::NOTHING.to_owned());
    }
    forget_gone(claim, &rows, &planned).await?;
    let unlisted = planned.iter().filter_map(|one| match &one.verdict {
        Verdict::Unlisted(problem) if problem.is_passing() => Some(in_ms(problem.asked())),
        _ => None,
    });
    if let Some(asked_ms) = unlisted.max() {
        looked.due_ms = Some(LOOK_AGAIN_MS);
        looked.asked_ms = looked.asked_ms.max(asked_ms);
    }
    let mut arrivals = Arrivals::record(claim, &run, &origin, &rows, planned).await?;
    looked.asked_ms = looked.asked_ms.max(arrivals.bring(deadline).await?);
    let now = db::now_ms(app.db.reader()).await?;
    let due_ms = arrivals.due_ms().map(|due| (due - now).max(0) + 1);
    looked.due_ms = looked.due_ms.into_iter().chain(due_ms).min();
    Ok(looked)
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
    Ok(source::find_checkpoints(origin, source, run, &known).await?)
}

async fn forget_gone(claim: &Claim, rows: &HashMap<String, StepRow>, planned: &[Planned]) -> Result<(), IngestError> {
    let there: HashSet<&str> = planned.iter().map(|one| one.place.as_str()).collect();
    let gone: Vec<String> = rows
        .keys()
        .filter(|place| !there.contains(place.as_str()) && !place.starts_with(TOKENIZER))
        .cloned()
        .collect();
    if gone.is_empty() {
        return Ok(());
    }
    let txn = claim.txn().await?;
    db::source_step::forget(&txn, claim.source.id, &gone).await?;
    for place in &gone {
        db::source_file::forget(&txn, claim.source.id, place).await?;
    }
    Ok(txn.commit().await?)
}
