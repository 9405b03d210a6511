//! Evaluation starts by itself: queueing what the suites bound to a run ask of a step.

use fineline_api::{Binding, CheckpointState, EvaluationState, EventKind, Scope};
use fineline_format::Digest;
use sea_orm::ConnectionTrait;
use serde_json::json;

use crate::db;
use crate::db::evaluation::{EvaluationKey, EvaluationModel, NewEvaluation};
use crate::db::revision::RevisionRow;
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::service::lease;

/// The place of what a new step asks for: before every back-fill.
const NEW_STEP: i64 = 0;

/// Queues, in the transaction that makes a revision evaluable, an evaluation for every suite bound to its run that asks for
/// its step. One that
/// the namespace has already for the same model, suite and dtype is shown instead, when this run's own readers may read
/// that one's run. Gives how many were queued.
pub(crate) async fn for_revision(txn: &impl ConnectionTrait, run: &RunRow, revision: &RevisionRow) -> ApiResult<u64> {
    for_revision_at(txn, run, revision, NEW_STEP).await
}

/// The same at a place in the queue.
pub(crate) async fn for_revision_at(
    txn: &impl ConnectionTrait,
    run: &RunRow,
    revision: &RevisionRow,
    place: i64,
) -> ApiResult<u64> {
    let mut n_queued = 0;
    for binding in db::suite::bindings(txn).await? {
        if binding.pattern.matches(&run.name) && revision.step.is_multiple_of(binding.every) {
            n_queued += u64::from(for_binding(txn, run, revision, &binding, place).await?);
        }
    }
    Ok(n_queued)
}

/// The same for one binding, at a place in the queue. One that waits already for a back-fill goes to the new place.
/// Whether an evaluation was queued.
pub(crate) async fn for_binding(
    txn: &impl ConnectionTrait,
    run: &RunRow,
    revision: &RevisionRow,
    binding: &Binding,
    place: i64,
) -> ApiResult<bool> {
    let Some(model) = revision.model_digest else {
        return Ok(false);
    };
    let checkpoint = revision
        .checkpoint
        .ok_or_else(|| ApiError::internal("an evaluable revision has no checkpoint"))?;
    let key = EvaluationKey {
        model,
        suite: binding.suite_digest,
        dtype: binding.dtype.clone(),
    };
    let told = |id| json!({ "evaluation": id, "suite": binding.suite, "dtype": binding.dtype });
    if let Some(found) = reusable(txn, run, &key).await? {
        let id = found.id;
        db::evaluation::link(txn, revision.id, id).await?;
        if is_orphan(txn, run, &found).await? {
            lease::queue_anew(txn, found, revision).await?;
            db::event::insert(txn, run.id, revision.step, EventKind::EvaluationQueued, told(id)).await?;
            return Ok(true);
        }
        db::evaluation::move_queued(txn, id, place).await?;
        return Ok(false);
    }
    let new = NewEvaluation {
        suite_name: &binding.suite,
        architecture: architecture(txn, checkpoint).await?,
        place,
    };
    let id = db::evaluation::insert(txn, run, revision, &key, new).await?;
    db::evaluation::link(txn, revision.id, id).await?;
    db::event::insert(txn, run.id, revision.step, EventKind::EvaluationQueued, told(id)).await?;
    Ok(true)
}

async fn architecture(txn: &impl ConnectionTrait, checkpoint: Digest) -> ApiResult<Option<String>> {
    let rows = db::checkpoint::find_many(txn, &[checkpoint]).await?;
    Ok(rows.into_values().next().and_then(|row| row.architecture))
}

/// Whether an evaluation was cancelled because its step was deleted.
async fn is_orphan(txn: &impl ConnectionTrait, run: &RunRow, found: &EvaluationModel) -> ApiResult<bool> {
    if found.run_id != run.id || found.state != EvaluationState::Cancelled.as_str() {
        return Ok(false);
    }
    let queued_for = db::revision::get(txn, found.revision_id).await?;
    Ok(queued_for.state == CheckpointState::Deleted)
}

/// An evaluation of that key that this run may show.
pub(crate) async fn reusable(
    txn: &impl ConnectionTrait,
    run: &RunRow,
    key: &EvaluationKey,
) -> ApiResult<Option<EvaluationModel>> {
    let found = db::evaluation::by_key(txn, run.name.namespace(), key).await?;
    let is_cancelled = |row: &EvaluationModel| row.state == EvaluationState::Cancelled.as_str();
    let (cancelled, alive): (Vec<_>, Vec<_>) = found.into_iter().partition(is_cancelled);
    let runs: Vec<i64> = alive.iter().map(|row| row.run_id).collect();
    let shown = shown_with(txn, run, &runs).await?;
    // One of its own that was cancelled is better than none, and worse than another's that has scores or will.
    let alive = alive.into_iter().find(|row| Some(row.run_id) == shown);
    Ok(alive.or_else(|| cancelled.into_iter().find(|row| row.run_id == run.id)))
}

/// The first of `runs` whose scores this run may show: itself, or one that all of this run's readers may read.
pub(crate) async fn shown_with(txn: &impl ConnectionTrait, run: &RunRow, runs: &[i64]) -> ApiResult<Option<i64>> {
    if runs.contains(&run.id) {
        return Ok(Some(run.id));
    }
    for &other_id in runs {
        let other = db::run::get(txn, other_id).await?;
        let tokens = db::token::list_live(txn).await?;
        let reads = |scopes: &[Scope]| scopes.iter().any(|scope| *scope != Scope::Evaluate);
        let told_of_it = tokens
            .iter()
            .filter(|token| reads(&token.scopes) && token.pattern.matches(&run.name))
            .all(|token| token.pattern.matches(&other.name));
        if told_of_it {
            return Ok(Some(other_id));
        }
    }
    Ok(None)
}
