//! What a worker posts under its lease, task by task, and how it completes.
//!
//! **Invariant:** an evaluation is done only with scores for every task, and only when the worker and the registry mean the
//! same ones: both work out the result's digest. The scores of groups are the registry's own, made when it is done.

use std::collections::BTreeMap;

use bytes::Bytes;
use fineline_api::error::ErrorCode;
use fineline_api::{CompleteEvaluation, Evaluation, EvaluationState, TaskScore, result_digest, scores_digest};
use fineline_format::Digest;
use sea_orm::DatabaseTransaction;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::evaluation::EvaluationModel;
use crate::error::{ApiError, ApiResult};
use crate::service::lease::{end, held, is_lease, shown, suite};
use crate::service::{content, group, score};

/// The most scores of one task.
const MAX_SCORES: usize = 1000;

/// The most that a score may say of how it was had.
const MAX_PROVENANCE_BYTES: usize = 16 << 10;

/// Replaces the scores of one task.
///
/// # Errors
/// 409 when the lease is lost, 422 for a task that the suite has not or a value that is no finite number.
pub(crate) async fn post_scores(
    app: &App,
    caller: &Caller,
    id: Uuid,
    lease: &str,
    task: &str,
    scores: Vec<TaskScore>,
) -> ApiResult<()> {
    if scores.is_empty() || scores.len() > MAX_SCORES {
        return Err(ApiError::unprocessable(format!(
            "task `{task}` needs 1 to {MAX_SCORES} scores"
        )));
    }
    if let Some(bad) = scores
        .iter()
        .find(|s| !s.value.is_finite() || s.stderr.is_some_and(|e| !e.is_finite()))
    {
        let message = format!("metric `{}` of task `{task}` is no finite number", bad.metric);
        return Err(ApiError::unprocessable(message));
    }
    check_said(task, &scores)?;
    let mut kinds: Vec<_> = scores.iter().map(|score| (&score.metric, &score.filter)).collect();
    kinds.sort_unstable();
    if let Some(twice) = kinds.windows(2).find(|pair| pair[0] == pair[1]) {
        let message = format!("metric `{}` of task `{task}` is there twice", twice[0].0);
        return Err(ApiError::unprocessable(message));
    }
    let txn = db::write_txn(&app.db).await?;
    let row = held(&txn, caller, id, lease).await?;
    require_task(&txn, &row, task).await?;
    let limit = suite(&txn, &row).await?.limit();
    db::score::replace_task(&txn, &row, task, &scores, limit).await?;
    txn.commit().await?;
    app.changed.notify_waiters();
    Ok(())
}

async fn tasks(txn: &DatabaseTransaction, row: &EvaluationModel) -> ApiResult<Vec<String>> {
    Ok(suite(txn, row).await?.tasks())
}

async fn require_task(txn: &DatabaseTransaction, row: &EvaluationModel, task: &str) -> ApiResult<()> {
    if tasks(txn, row).await?.iter().any(|known| known == task) {
        return Ok(());
    }
    Err(ApiError::unprocessable(format!(
        "the suite of evaluation `{}` has no task `{task}`",
        row.id
    )))
}

/// Bounds what the scores of a task say of themselves.
fn check_said(task: &str, scores: &[TaskScore]) -> ApiResult<()> {
    for said in scores {
        let words = [said.metric.as_str(), &said.filter, &said.harness_version];
        score::check_words(words.into_iter().chain(said.stderr_method.as_deref()))?;
        score::check_numbers(task, &said.metric, said.stderr, said.n, said.n_shot)?;
        let provenance = said.provenance.iter();
        let size: usize = provenance.map(|(key, value)| key.len() + value.len()).sum();
        if size > MAX_PROVENANCE_BYTES {
            let message = format!(
                "the provenance of metric `{}` has {size} bytes, 16 KiB are the most",
                said.metric
            );
            return Err(ApiError::unprocessable(message));
        }
    }
    Ok(())
}

/// Keeps the sample log of a task.
///
/// # Errors
/// As [`post_scores`]; 507 when the store is full.
pub(crate) async fn put_samples(
    app: &App,
    caller: &Caller,
    id: Uuid,
    lease: &str,
    task: &str,
    body: Bytes,
) -> ApiResult<()> {
    let txn = db::write_txn(&app.db).await?;
    let row = held(&txn, caller, id, lease).await?;
    require_task(&txn, &row, task).await?;
    txn.commit().await?;
    let file = content::put_content(app, body).await?;
    let txn = db::write_txn(&app.db).await?;
    held(&txn, caller, id, lease).await?;
    content::adopt(&txn, &file).await?;
    db::score::set_samples(&txn, id, task, &file.digest).await?;
    Ok(txn.commit().await?)
}

/// Ends an evaluation with all its scores. The same lease with the same result again changes nothing.
///
/// # Errors
/// 409 when the lease is lost or the result is another than the scores that are held, 422 when a task has no scores.
pub(crate) async fn complete(
    app: &App,
    caller: &Caller,
    id: Uuid,
    lease: &str,
    done: CompleteEvaluation,
) -> ApiResult<Evaluation> {
    let txn = db::write_txn(&app.db).await?;
    if let Some(row) = db::evaluation::find(&txn, id).await? {
        let same = row.result_digest.as_deref() == Some(done.result_digest.as_bytes().as_slice());
        if row.state == EvaluationState::Done.as_str()
            && same
            && is_lease(&row, lease)
            && row.token_id == caller.token_id
        {
            return shown(&txn, id).await;
        }
    }
    let mut row = held(&txn, caller, id, lease).await?;
    let scored = scores_digests(&txn, id).await?;
    if let Some(missing) = tasks(&txn, &row).await?.iter().find(|task| !scored.contains_key(*task)) {
        return Err(ApiError::unprocessable(format!(
            "task `{missing}` of evaluation `{id}` has no scores yet"
        )));
    }
    if result_digest(&scored) != done.result_digest {
        let message = format!(
            "result `{}` is not that of the scores which evaluation `{id}` has",
            done.result_digest
        );
        return Err(ApiError::new(ErrorCode::Conflict, message).hint("post the scores of every task again"));
    }
    let by_task = db::score::by_task(&txn, id).await?;
    let suite = suite(&txn, &row).await?;
    for group in suite.groups() {
        let scores = group::scores(group, &by_task);
        db::score::replace_task(&txn, &row, &group.group, &scores, suite.limit()).await?;
    }
    row.result_digest = Some(done.result_digest.as_bytes().to_vec());
    end(&txn, row, EvaluationState::Done, None).await?;
    let evaluation = shown(&txn, id).await?;
    txn.commit().await?;
    app.changed.notify_waiters();
    Ok(evaluation)
}

/// The digest of each task's scores.
pub(crate) async fn scores_digests(txn: &DatabaseTransaction, id: Uuid) -> ApiResult<BTreeMap<String, Digest>> {
    let tasks = db::score::by_task(txn, id).await?;
    Ok(tasks
        .into_iter()
        .map(|(task, scores)| (task, scores_digest(&scores)))
        .collect())
}
