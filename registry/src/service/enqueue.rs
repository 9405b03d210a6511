//! Evaluation starts by itself: queueing what the suites bound to a run ask of a step.

use fineline_api::{CheckpointState, EvaluationState, EventKind, Scope};
use fineline_format::Digest;
use sea_orm::ConnectionTrait;
use serde_json::json;

use crate::db;
use crate::db::evaluation::{EvaluationKey, EvaluationModel};
use crate::db::revision::RevisionRow;
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::service::lease;

/// Queues, in the transaction that makes a revision evaluable, an evaluation for every suite bound to its run. One that
/// the namespace has already for the same model, suite and dtype is shown instead, when this run's own readers may read
/// that one's run. Gives how many were queued.
pub(crate) async fn for_revision(txn: &impl ConnectionTrait, run: &RunRow, revision: &RevisionRow) -> ApiResult<u64> {
    let Some(model) = revision.model_digest else {
        return Ok(0);
    };
    let checkpoint = revision
        .checkpoint
        .ok_or_else(|| ApiError::internal("an evaluable revision has no checkpoint"))?;
    let mut n_queued = 0;
    for binding in db::suite::bindings(txn).await? {
        if !binding.pattern.matches(&run.name) {
            continue;
        }
        let key = EvaluationKey {
            model,
            suite: binding.suite_digest,
            dtype: binding.dtype,
        };
        if let Some(found) = reusable(txn, run, &key).await? {
            db::evaluation::link(txn, revision.id, found.id).await?;
            if !is_orphan(txn, run, &found).await? {
                continue;
            }
            let data = json!({ "evaluation": found.id, "suite": binding.suite, "dtype": key.dtype });
            lease::queue_anew(txn, found, revision.id).await?;
            db::event::insert(txn, run.id, revision.step, EventKind::EvaluationQueued, data).await?;
            n_queued += 1;
            continue;
        }
        let id = db::evaluation::insert(
            txn,
            run,
            revision,
            &key,
            &binding.suite,
            architecture(txn, checkpoint).await?,
        )
        .await?;
        db::evaluation::link(txn, revision.id, id).await?;
        let data = json!({ "evaluation": id, "suite": binding.suite, "dtype": key.dtype });
        db::event::insert(txn, run.id, revision.step, EventKind::EvaluationQueued, data).await?;
        n_queued += 1;
    }
    Ok(n_queued)
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
async fn reusable(txn: &impl ConnectionTrait, run: &RunRow, key: &EvaluationKey) -> ApiResult<Option<EvaluationModel>> {
    let mut found = db::evaluation::by_key(txn, run.name.namespace(), key).await?;
    if let Some(own) = found.iter().position(|row| row.run_id == run.id) {
        return Ok(Some(found.swap_remove(own)));
    }
    for row in found
        .into_iter()
        .filter(|row| row.state != EvaluationState::Cancelled.as_str())
    {
        let other = db::run::get(txn, row.run_id).await?;
        let tokens = db::token::list_live(txn).await?;
        let reads = |scopes: &[Scope]| scopes.iter().any(|scope| *scope != Scope::Evaluate);
        let told_of_it = tokens
            .iter()
            .filter(|token| reads(&token.scopes) && token.pattern.matches(&run.name))
            .all(|token| token.pattern.matches(&other.name));
        if told_of_it {
            return Ok(Some(row));
        }
    }
    Ok(None)
}
