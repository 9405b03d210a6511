//! How far each checkpoint of a source is: waiting until it is whole and settled, fetched, verified, ready, or failed and
//! tried again.
//!
//! **Invariant:** one that is not whole, or not for long enough, is not fetched; whatever is wrong with one leaves the others.

use std::collections::HashMap;
use std::sync::Arc;

use fineline_api::source::{DEFAULT_SETTLE_S, SourceStepState};
use fineline_api::{PushSessionState, SourceStep};
use fineline_format::Digest;
use metrics::counter;
use tokio::time::Instant;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::run::RunRow;
use crate::db::source::SourceRow;
use crate::db::source_step::StepRow;
use crate::error::ApiResult;
use crate::service::fetch::may_name;
use crate::service::ingest::{self, Brought};
use crate::service::ingest_error::IngestError;
use crate::service::source_claim::Claim;
use crate::source::plan::{Planned, Verdict};
use crate::source::{Origin, SourceError};

/// A checkpoint that failed is tried again after this, doubled each time, up to the longest; one of a source that is looked
/// at once so many times.
const FIRST_BACK_OFF_MS: i64 = 5_000;
const LONGEST_BACK_OFF_MS: i64 = 60 * 60 * 1000;
const MAX_FAILURES: u64 = 8;

/// One that is still being verified is asked about again after this.
const VERIFYING_AGAIN_MS: i64 = 10_000;

/// The shortest time after which a source that is looked at once gives up on what is not whole.
const SHORTEST_PATIENCE_MS: i64 = 30_000;

/// The checkpoints of a source in a look, by step.
pub(crate) struct Arrivals<'a> {
    claim: &'a Claim,
    run: &'a RunRow,
    origin: &'a Arc<Origin>,
    each: Vec<(Planned, StepRow)>,
}

impl<'a> Arrivals<'a> {
    /// Writes down what each place is, as far as it is not to be brought. `before` are the rows of the last look, by place.
    pub(crate) async fn record(
        claim: &'a Claim,
        run: &'a RunRow,
        origin: &'a Arc<Origin>,
        before: &HashMap<String, StepRow>,
        planned: Vec<Planned>,
    ) -> Result<Self, IngestError> {
        let mut each = Vec::with_capacity(planned.len());
        for one in planned {
            let row = match (before.get(&one.place), &one.verdict) {
                (Some(before), Verdict::Unchanged) => before.clone(),
                // What it is now can't be told: what is known of it stays.
                (Some(before), Verdict::Unlisted(_))
                    if before.n_failures > 0 || before.shown.state == SourceStepState::Ready =>
                {
                    before.clone()
                }
                (before, _) => {
                    let shown = show(&claim.app, &claim.source, run, &one).await?;
                    let now = db::now_ms(claim.app.db.reader()).await?;
                    let row = row_of(&claim.source, before, &one, shown, now);
                    put(claim, &row).await?;
                    row
                }
            };
            each.push((one, row));
        }
        Ok(Self {
            claim,
            run,
            origin,
            each,
        })
    }

    /// Brings in what is due until `deadline`; gives for how many milliseconds the place wants to be left alone.
    pub(crate) async fn bring(&mut self, deadline: Instant) -> Result<i64, IngestError> {
        let Self {
            claim,
            run,
            origin,
            each,
        } = self;
        for (one, row) in each {
            if Instant::now() >= deadline {
                break;
            }
            let now = db::now_ms(claim.app.db.reader()).await?;
            let is_due = one.verdict == Verdict::Whole && due_ms(&claim.source, one, row).is_some_and(|due| due <= now);
            if !is_due {
                continue;
            }
            let asked_ms = attempt(claim, run, origin, deadline, one, row).await?;
            if asked_ms > 0 {
                return Ok(asked_ms);
            }
        }
        Ok(0)
    }

    /// When the next of them is due, when any is: that it has settled, or is tried again.
    pub(crate) fn due_ms(&self) -> Option<i64> {
        let dues = self
            .each
            .iter()
            .filter_map(|(one, row)| due_ms(&self.claim.source, one, row));
        dues.min()
    }
}

async fn put(claim: &Claim, row: &StepRow) -> Result<(), IngestError> {
    let txn = claim.txn().await?;
    db::source_step::put(&txn, claim.source.id, row).await?;
    Ok(txn.commit().await?)
}

fn is_once(source: &SourceRow) -> bool {
    source.definition.interval_s.is_none()
}

fn settle_ms(source: &SourceRow) -> i64 {
    let settle_s = source.definition.settle_s.unwrap_or(DEFAULT_SETTLE_S);
    i64::try_from(settle_s.saturating_mul(1000)).unwrap_or(i64::MAX / 2)
}

/// For how long a place has to stay as it is. A marker file says that it is whole – unless it was there before the files
/// changed: then it says so of what they were.
fn settle_of(source: &SourceRow, before: Option<&StepRow>, same: Option<&StepRow>, one: &Planned) -> i64 {
    let is_marked_anew = one.marker.is_some() && before.is_none_or(|before| before.marker != one.marker);
    match (is_marked_anew, same) {
        (true, _) => 0,
        (false, Some(same)) => same.settle_ms,
        (false, None) => settle_ms(source),
    }
}

/// What is written down of a place: `shown` with its state, and since when it is so.
fn row_of(source: &SourceRow, before: Option<&StepRow>, one: &Planned, mut shown: SourceStep, now: i64) -> StepRow {
    let is_over = |since_ms| is_once(source) && gives_up_at(source, since_ms) <= now;
    let unlisted = |problem: &SourceError, since_ms| match !problem.is_passing() && is_over(since_ms) {
        true => (SourceStepState::Failed, Some(problem.to_string())),
        false => (SourceStepState::Waiting, Some(problem.to_string())),
    };
    // Nothing is known of its files: those of the last look are compared with at the next one.
    if let (Verdict::Unlisted(problem), Some(before)) = (&one.verdict, before) {
        let mut row = before.clone();
        (row.shown.state, row.shown.message) = unlisted(problem, row.since_ms);
        return row;
    }
    let fingerprint = one.fingerprint();
    let same = before.filter(|before| before.fingerprint == fingerprint);
    let since_ms = same.map_or(now, |same| same.since_ms);
    let settle_ms = settle_of(source, before, same, one);
    let ready_fingerprint = before.and_then(|before| before.ready_fingerprint);
    let is_ready = ready_fingerprint == Some(fingerprint);
    (shown.state, shown.message) = match &one.verdict {
        // Its marker may be gone since.
        Verdict::Whole | Verdict::Waiting(_) if is_ready => (SourceStepState::Ready, None),
        Verdict::Whole if since_ms + settle_ms > now => {
            let seconds = (since_ms + settle_ms - now) / 1000 + 1;
            let why = format!("its files have to stay as they are for {seconds} s more");
            (SourceStepState::Waiting, Some(why))
        }
        Verdict::Whole => match same.map(|same| &same.shown).filter(|_| was_tried(same)) {
            Some(shown) => (shown.state, shown.message.clone()),
            None => (SourceStepState::Waiting, Some("its turn comes".to_owned())),
        },
        Verdict::Unchanged => (SourceStepState::Ready, None),
        // Nobody looks again at a source that is looked at once.
        Verdict::Waiting(why) if is_over(since_ms) => (SourceStepState::Failed, Some(why.clone())),
        Verdict::Waiting(why) => (SourceStepState::Waiting, Some(why.clone())),
        Verdict::Unlisted(problem) => unlisted(problem, since_ms),
        Verdict::Failed(why) => (SourceStepState::Failed, Some(why.clone())),
        Verdict::Ignored(why) => (SourceStepState::Ignored, Some(why.clone())),
    };
    if let Some(before) = before {
        shown.checkpoint = before.shown.checkpoint;
        if shown.state == SourceStepState::Ready {
            shown.warnings.clone_from(&before.shown.warnings);
        }
    }
    StepRow {
        place: one.place.clone(),
        shown,
        version: one.version.clone(),
        fingerprint,
        since_ms,
        settle_ms,
        marker: one.marker.clone(),
        weights: one.weights,
        ready_fingerprint,
        n_failures: same.map_or(0, |same| same.n_failures),
        retry_at_ms: same.and_then(|same| same.retry_at_ms),
    }
}

/// Whether it was tried already as it is: then it is as far as that went.
fn was_tried(row: Option<&StepRow>) -> bool {
    let is_on_its_way = |state| matches!(state, SourceStepState::Fetching | SourceStepState::Verifying);
    row.is_some_and(|row| row.n_failures > 0 || is_on_its_way(row.shown.state))
}

/// Until when a source that is looked at once waits for what is not whole.
fn gives_up_at(source: &SourceRow, since_ms: i64) -> i64 {
    since_ms.saturating_add(settle_ms(source).max(SHORTEST_PATIENCE_MS))
}

/// When something of a checkpoint is due: that it has settled, or is tried again.
fn due_ms(source: &SourceRow, one: &Planned, row: &StepRow) -> Option<i64> {
    match &one.verdict {
        Verdict::Whole if row.ready_fingerprint == Some(row.fingerprint) => None,
        Verdict::Whole if is_once(source) && row.n_failures >= MAX_FAILURES => None,
        Verdict::Whole => {
            let settled_ms = row.since_ms.saturating_add(row.settle_ms);
            Some(settled_ms.max(row.retry_at_ms.unwrap_or(0)))
        }
        // What can't be told in passing is looked at again sooner.
        Verdict::Unlisted(problem) if problem.is_passing() => None,
        Verdict::Waiting(_) | Verdict::Unlisted(_)
            if is_once(source) && row.shown.state == SourceStepState::Waiting =>
        {
            Some(gives_up_at(source, row.since_ms))
        }
        _ => None,
    }
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
            && may_name(app, caller, &row.chunks).await?
        {
            held_bytes += file.size_bytes;
        }
    }
    Ok(held_bytes)
}

/// Brings a checkpoint in, as far as that goes until `deadline`, and writes down what became of it; gives for how many
/// milliseconds the place wants to be left alone.
async fn attempt(
    claim: &Claim,
    run: &RunRow,
    origin: &Arc<Origin>,
    deadline: Instant,
    one: &Planned,
    row: &mut StepRow,
) -> Result<i64, IngestError> {
    let Claim { app, source, .. } = claim;
    if row.shown.state != SourceStepState::Verifying {
        (row.shown.state, row.shown.message) = (SourceStepState::Fetching, None);
        put(claim, row).await?;
    }
    let was_committed = row.shown.state == SourceStepState::Verifying;
    let pushed = match was_committed {
        true => ingest::pushed(claim, run, one).await?,
        false => None,
    };
    let pushed = match pushed {
        Some(pushed) => Ok(pushed),
        None => ingest::push(claim, run, origin, one, deadline).await,
    };
    let brought = match pushed {
        Ok(pushed) => {
            if pushed.session.state == PushSessionState::Verifying {
                (row.shown.state, row.shown.message) = (SourceStepState::Verifying, None);
                put(claim, row).await?;
            }
            ingest::outcome(claim, run, pushed).await
        }
        Err(error) => Err(error),
    };
    let now = db::now_ms(app.db.reader()).await?;
    let mut asked = 0;
    match brought {
        Ok(Some(brought)) => arrived(row, one, brought),
        Ok(None) => row.retry_at_ms = Some(now + VERIFYING_AGAIN_MS),
        Err(error @ IngestError::Lost) => return Err(error),
        Err(later @ IngestError::Later) => row.shown.message = Some(later.to_string()),
        Err(error) => {
            tracing::warn!(source = source.definition.name, place = one.place, %error, "a checkpoint does not come in");
            asked = error.asked_ms();
            // They may have been forgotten since the look began.
            row.n_failures = db::source_step::n_failures(app.db.reader(), source.id, &row.place).await?;
            fail(row, is_once(source), &error, now);
        }
    }
    put(claim, row).await?;
    Ok(asked)
}

fn arrived(row: &mut StepRow, one: &Planned, brought: Brought) {
    (row.shown.state, row.shown.message) = (SourceStepState::Ready, None);
    row.shown.warnings = brought.warnings;
    row.shown.warnings.extend(one.warnings.iter().cloned());
    row.shown.checkpoint = Some(brought.checkpoint);
    row.ready_fingerprint = Some(row.fingerprint);
    (row.n_failures, row.retry_at_ms) = (0, None);
    counter!("fineline_source_checkpoints_total").increment(1);
}

/// What failed waits the longer the more often it did.
fn fail(row: &mut StepRow, is_once: bool, error: &IngestError, now: i64) {
    row.n_failures += 1;
    let doubled = FIRST_BACK_OFF_MS << row.n_failures.min(20).saturating_sub(1);
    let back_off = doubled.min(LONGEST_BACK_OFF_MS);
    row.retry_at_ms = Some(now + error.asked_ms().max(back_off));
    row.shown.state = match error {
        IngestError::Waiting(_) => SourceStepState::Waiting,
        _ => SourceStepState::Failed,
    };
    row.shown.message = Some(error.to_string());
    if is_once && row.n_failures >= MAX_FAILURES {
        row.shown.state = SourceStepState::Failed;
        row.shown.message = Some(format!(
            "{error} (tried {} times: `fineline source sync` tries again)",
            row.n_failures
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ApiError;

    fn source(interval_s: Option<u64>) -> SourceRow {
        let mut row = db::source::folder();
        (row.definition.interval_s, row.definition.settle_s) = (interval_s, Some(100));
        row.definition.marker = Some("DONE".to_owned());
        row
    }

    fn planned(verdict: Verdict, content: &str, marker: Option<&str>) -> Planned {
        let file = crate::source::Object {
            path: "model.safetensors".to_owned(),
            key: String::new(),
            size_bytes: 1,
            version: content.to_owned(),
            sha256: None,
        };
        Planned {
            name: "step-1".to_owned(),
            place: "step-1".to_owned(),
            version: content.to_owned(),
            step: Some(1),
            inferred: None,
            tokens: None,
            files: vec![file],
            weights: None,
            marker: marker.map(str::to_owned),
            verdict,
            warnings: Vec::new(),
        }
    }

    fn looked(source: &SourceRow, before: Option<&StepRow>, one: &Planned, now: i64) -> StepRow {
        let shown = SourceStep {
            name: one.name.clone(),
            step: one.step,
            step_inferred: false,
            step_unsnapped: None,
            tokens: None,
            n_files: 1,
            size_bytes: 1,
            held_bytes: 0,
            state: SourceStepState::New,
            message: None,
            warnings: Vec::new(),
            checkpoint: None,
        };
        row_of(source, before, one, shown, now)
    }

    #[test]
    fn a_marker_settles_what_it_was_written_after() {
        let watched = source(Some(10));
        let whole = |content, marker| planned(Verdict::Whole, content, Some(marker));
        let due = |row: &StepRow, one: &Planned| due_ms(&watched, one, row);
        // Whole when it is seen first: its marker was written behind its files.
        let first = whole("a", "1");
        let row = looked(&watched, None, &first, 1000);
        assert_eq!(due(&row, &first), Some(1000));
        // Other files beside the marker of old.
        let changed = whole("b", "1");
        let row = looked(&watched, Some(&row), &changed, 2000);
        assert_eq!(due(&row, &changed), Some(102_000));
        let row = looked(&watched, Some(&row), &changed, 3000);
        assert_eq!(due(&row, &changed), Some(102_000), "it goes on to settle");
        // A list that failed does not make the marker a new one.
        let mut unlisted = planned(Verdict::Unlisted(SourceError::NotFound("x".to_owned())), "b", None);
        unlisted.files.clear();
        let row = looked(&watched, Some(&row), &unlisted, 3500);
        let row = looked(&watched, Some(&row), &changed, 3600);
        assert_eq!(due(&row, &changed), Some(102_000));
        // The marker is written anew.
        let marked = whole("b", "2");
        let row = looked(&watched, Some(&row), &marked, 4000);
        assert_eq!(due(&row, &marked), Some(2000));
    }

    #[test]
    fn a_source_that_is_looked_at_once_gives_up_after_its_settle_time() {
        let once = source(None);
        let waits = planned(Verdict::Waiting("shard 2".to_owned()), "a", None);
        let row = looked(&once, None, &waits, 0);
        assert_eq!(
            (row.shown.state, due_ms(&once, &waits, &row)),
            (SourceStepState::Waiting, Some(100_000))
        );
        let row = looked(&once, Some(&row), &waits, 100_000);
        assert_eq!(
            (row.shown.state, due_ms(&once, &waits, &row)),
            (SourceStepState::Failed, None)
        );
        // Nor does what can't be told for now change what is known.
        let passing = SourceError::Unavailable {
            message: "429".to_owned(),
            retry_after: None,
        };
        let unlisted = planned(Verdict::Unlisted(passing), "", None);
        let later = looked(&once, Some(&row), &unlisted, 200_000);
        assert_eq!(
            (later.shown.state, later.fingerprint),
            (SourceStepState::Waiting, row.fingerprint)
        );
    }

    #[test]
    fn what_fails_waits_twice_as_long_each_time_and_no_shorter_than_it_is_asked_to() {
        let one = planned(Verdict::Whole, "a", None);
        let mut row = looked(&source(None), None, &one, 0);
        let waiting = IngestError::Waiting("shard 2".to_owned());
        for n in 1..=MAX_FAILURES {
            fail(&mut row, true, &waiting, 0);
            assert_eq!(row.retry_at_ms, Some(FIRST_BACK_OFF_MS << (n - 1)));
        }
        assert_eq!(
            row.shown.state,
            SourceStepState::Failed,
            "given up, and said so: {:?}",
            row.shown.message
        );
        assert!(row.shown.message.as_ref().unwrap().contains("source sync"));
        assert_eq!(due_ms(&source(None), &one, &row), None);
        assert!(
            due_ms(&source(Some(10)), &one, &row).is_some(),
            "one that is watched goes on"
        );
        row.n_failures = 0;
        let asked = IngestError::Source(SourceError::Unavailable {
            message: "429".to_owned(),
            retry_after: Some(std::time::Duration::from_secs(300)),
        });
        fail(&mut row, false, &asked, 0);
        assert_eq!(row.retry_at_ms, Some(300_000));
        row.n_failures = 100;
        fail(&mut row, false, &IngestError::Api(ApiError::internal("x")), 0);
        assert_eq!(row.retry_at_ms, Some(LONGEST_BACK_OFF_MS));
    }
}
