//! Leases: claiming an evaluation, keeping it, ending it.
//!
//! queued → leased → done / failed / parked / cancelled. A failure that may pass goes back to queued with a back-off and
//! parks at the third; a lease that runs out (death, preemption) is counted apart and parks at the fifth.
//!
//! **Invariant:** only the holder of the live lease writes; everyone else gets 409 `lease_lost`.

use std::time::Duration;

use bytes::Bytes;
use fineline_api::error::ErrorCode;
use fineline_api::{
    ClaimEvaluation, CompleteEvaluation, Evaluation, EvaluationState, EventKind, FailEvaluation, Lease, Progress,
    RenewedLease, RunPattern, TaskScore,
};
use fineline_format::Digest;
use metrics::counter;
use sea_orm::{ConnectionTrait, DatabaseTransaction};
use serde_json::json;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::evaluation::{EvaluationFilter, EvaluationModel};
use crate::error::{ApiError, ApiResult};
use crate::service::token::generate_secret;
use crate::service::{content, tokenizer};

/// How long a lease holds without a heartbeat.
const TTL_S: u64 = 60;

const MAX_FAILURES: i32 = 3;
const MAX_EXPIRIES: i32 = 5;

/// The first back-off after a failure; it doubles.
const BACK_OFF_MS: i64 = 10_000;

/// The most scores of one task.
const MAX_SCORES: usize = 1000;

/// Gives the oldest work that the worker can do; waits for some as long as it asks, at most 30 s.
///
/// # Errors
/// 403 without a token, 400 for a claim that breaks a bound.
pub(crate) async fn claim(app: &App, caller: &Caller, claim: ClaimEvaluation) -> ApiResult<Option<Lease>> {
    let token_id = caller
        .token_id
        .ok_or_else(|| ApiError::new(ErrorCode::Unauthorized, "a worker needs a token"))?;
    let words = claim
        .dtypes
        .iter()
        .chain(&claim.architectures)
        .chain([&claim.worker, &claim.device]);
    if claim.dtypes.len() + claim.architectures.len() > 200 || words.clone().any(|word| word.len() > 128) {
        return Err(ApiError::invalid(
            "a claim names at most 200 dtypes and architectures of 128 bytes each",
        ));
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(claim.wait_s.min(30));
    loop {
        let changed = app.changed.notified();
        if let Some(lease) = try_claim(app, caller, token_id, &claim).await? {
            app.changed.notify_waiters();
            return Ok(Some(lease));
        }
        if tokio::time::Instant::now() >= deadline {
            return Ok(None);
        }
        let look_again = (tokio::time::Instant::now() + Duration::from_secs(2)).min(deadline);
        let _ = tokio::time::timeout_at(look_again, changed).await;
    }
}

async fn try_claim(app: &App, caller: &Caller, token_id: Uuid, claim: &ClaimEvaluation) -> ApiResult<Option<Lease>> {
    let txn = db::write_txn(&app.db).await?;
    db::evaluation::see_worker(&txn, token_id, claim).await?;
    let now = db::now_ms(&txn).await?;
    expire_in(&txn, now).await?;
    let Some(mut row) = db::evaluation::pick(&txn, &caller.pattern, claim, now).await? else {
        txn.commit().await?;
        return Ok(None);
    };
    let id = row.id;
    let token = generate_secret();
    row.state = EvaluationState::Leased.as_str().to_owned();
    row.reason = None;
    row.worker = Some(claim.worker.clone());
    row.token_id = Some(token_id);
    row.lease_sha256 = Some(Digest::of(token.as_bytes()).as_bytes().to_vec());
    row.lease_expires_at_ms = Some(now + TTL_S as i64 * 1000);
    row.progress = None;
    row.started_at_ms = Some(now);
    let suite_digest = row
        .suite_digest
        .as_slice()
        .try_into()
        .map(Digest::from_bytes)
        .map_err(ApiError::internal)?;
    let lent = row.tokenizer_digest.as_deref().map(<[u8; 32]>::try_from).transpose();
    let lent = lent.map_err(ApiError::internal)?.map(Digest::from_bytes);
    db::score::clear(&txn, id).await?;
    db::evaluation::save(&txn, row).await?;
    let suite = db::suite::find(&txn, &suite_digest).await?;
    let suite = suite.ok_or_else(|| ApiError::internal("an evaluation has no suite"))?;
    let evaluation = shown(&txn, id).await?;
    let suite = suite.named(evaluation.suite.clone());
    let tokenizer = tokenizer::lent(&txn, lent).await?;
    txn.commit().await?;
    Ok(Some(Lease {
        token,
        ttl_s: TTL_S,
        evaluation,
        suite,
        tokenizer,
    }))
}

async fn shown(conn: &impl ConnectionTrait, id: Uuid) -> ApiResult<Evaluation> {
    let filter = EvaluationFilter {
        id: Some(id),
        ..EvaluationFilter::default()
    };
    let rows = db::evaluation::list(conn, &RunPattern::All, &filter, None, 1).await?;
    rows.into_iter()
        .next()
        .ok_or_else(|| ApiError::internal(format!("evaluation {id} is not there")))
}

/// Queues again, or parks, what dead workers held.
pub(crate) async fn expire(app: &App) -> ApiResult<()> {
    let txn = db::write_txn(&app.db).await?;
    let now = db::now_ms(&txn).await?;
    expire_in(&txn, now).await?;
    txn.commit().await?;
    Ok(())
}

async fn expire_in(txn: &DatabaseTransaction, now: i64) -> ApiResult<()> {
    for mut row in db::evaluation::expired(txn, now).await? {
        row.n_expiries += 1;
        let worker = row.worker.clone().unwrap_or_default();
        if row.n_expiries >= MAX_EXPIRIES {
            let reason = format!("{} leases ran out, the last with worker `{worker}`", row.n_expiries);
            end(txn, row, EvaluationState::Parked, Some(reason)).await?;
        } else {
            queue_again(txn, row, now, format!("worker `{worker}` went silent")).await?;
        }
    }
    Ok(())
}

async fn queue_again(
    txn: &DatabaseTransaction,
    mut row: EvaluationModel,
    not_before_ms: i64,
    reason: String,
) -> ApiResult<()> {
    row.state = EvaluationState::Queued.as_str().to_owned();
    row.not_before_ms = not_before_ms;
    row.reason = Some(reason);
    row.lease_sha256 = None;
    row.lease_expires_at_ms = None;
    row.token_id = None;
    row.progress = None;
    Ok(db::evaluation::save(txn, row).await?)
}

/// Queues an evaluation that has ended once more, from the beginning and with its counts at zero, for a revision whose
/// files can be read.
pub(crate) async fn queue_anew(
    txn: &impl ConnectionTrait,
    mut row: EvaluationModel,
    revision_id: i64,
) -> ApiResult<()> {
    row.revision_id = revision_id;
    row.state = EvaluationState::Queued.as_str().to_owned();
    row.reason = None;
    row.n_failures = 0;
    row.n_expiries = 0;
    row.not_before_ms = 0;
    row.finished_at_ms = None;
    row.lease_sha256 = None;
    Ok(db::evaluation::save(txn, row).await?)
}

/// Ends an evaluation and tells every run that shows it.
pub(crate) async fn end(
    txn: &DatabaseTransaction,
    mut row: EvaluationModel,
    state: EvaluationState,
    reason: Option<String>,
) -> ApiResult<()> {
    let id = row.id;
    row.state = state.as_str().to_owned();
    row.reason = reason.clone();
    row.finished_at_ms = Some(db::now_ms(txn).await?);
    row.lease_expires_at_ms = None;
    row.progress = None;
    db::evaluation::save(txn, row).await?;
    let kind = if state == EvaluationState::Done {
        EventKind::EvaluationDone
    } else {
        EventKind::EvaluationEnded
    };
    let data = json!({ "evaluation": id, "state": state, "reason": reason });
    for (run_id, step) in db::evaluation::linked(txn, id).await? {
        db::event::insert(txn, run_id, step, kind, data.clone()).await?;
    }
    counter!("fineline_evaluations_total", "state" => state.as_str()).increment(1);
    Ok(())
}

/// The row of an evaluation whose live lease the caller holds.
async fn held(txn: &DatabaseTransaction, caller: &Caller, id: Uuid, lease: &str) -> ApiResult<EvaluationModel> {
    let row = db::evaluation::find(txn, id).await?;
    let now = db::now_ms(txn).await?;
    let mine = |row: &EvaluationModel| {
        row.state == EvaluationState::Leased.as_str()
            && row.token_id == caller.token_id
            && is_lease(row, lease)
            && row.lease_expires_at_ms.is_some_and(|until| until > now)
    };
    row.filter(mine).ok_or_else(|| lost(id))
}

fn is_lease(row: &EvaluationModel, lease: &str) -> bool {
    row.lease_sha256.as_deref() == Some(Digest::of(lease.as_bytes()).as_bytes().as_slice())
}

fn lost(id: Uuid) -> ApiError {
    ApiError::new(
        ErrorCode::LeaseLost,
        format!("the lease on evaluation `{id}` is over or another's"),
    )
    .hint("drop the work and claim anew")
}

/// Keeps a lease and says how far the worker is.
///
/// # Errors
/// 409 when the lease is lost.
pub(crate) async fn renew(
    app: &App,
    caller: &Caller,
    id: Uuid,
    lease: &str,
    progress: Progress,
) -> ApiResult<RenewedLease> {
    let txn = db::write_txn(&app.db).await?;
    let mut row = held(&txn, caller, id, lease).await?;
    row.lease_expires_at_ms = Some(db::now_ms(&txn).await? + TTL_S as i64 * 1000);
    row.progress = Some(serde_json::to_value(progress).map_err(ApiError::internal)?);
    db::evaluation::save(&txn, row).await?;
    txn.commit().await?;
    Ok(RenewedLease { ttl_s: TTL_S })
}

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
    let txn = db::write_txn(&app.db).await?;
    let row = held(&txn, caller, id, lease).await?;
    require_task(&txn, &row, task).await?;
    db::score::replace_task(&txn, &row, task, &scores).await?;
    txn.commit().await?;
    app.changed.notify_waiters();
    Ok(())
}

async fn tasks(txn: &DatabaseTransaction, row: &EvaluationModel) -> ApiResult<Vec<String>> {
    let digest = row
        .suite_digest
        .as_slice()
        .try_into()
        .map(Digest::from_bytes)
        .map_err(ApiError::internal)?;
    let suite = db::suite::find(txn, &digest).await?;
    let suite = suite.ok_or_else(|| ApiError::internal("an evaluation has no suite"))?;
    Ok(suite.tasks())
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
/// 409 when the lease is lost, 422 when a task has no scores.
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
    let scored = db::score::scored_tasks(&txn, id).await?;
    if let Some(missing) = tasks(&txn, &row).await?.iter().find(|task| !scored.contains(*task)) {
        return Err(ApiError::unprocessable(format!(
            "task `{missing}` of evaluation `{id}` has no scores yet"
        )));
    }
    row.result_digest = Some(done.result_digest.as_bytes().to_vec());
    end(&txn, row, EvaluationState::Done, None).await?;
    let evaluation = shown(&txn, id).await?;
    txn.commit().await?;
    app.changed.notify_waiters();
    Ok(evaluation)
}

/// Ends a try without scores: back in the queue after a while, parked at the third time, or failed for good.
///
/// # Errors
/// 409 when the lease is lost.
pub(crate) async fn fail(
    app: &App,
    caller: &Caller,
    id: Uuid,
    lease: &str,
    failure: FailEvaluation,
) -> ApiResult<Evaluation> {
    let reason: String = failure.reason.chars().take(4000).collect();
    let txn = db::write_txn(&app.db).await?;
    let mut row = held(&txn, caller, id, lease).await?;
    row.n_failures += 1;
    if !failure.retryable {
        end(&txn, row, EvaluationState::Failed, Some(reason)).await?;
    } else if row.n_failures >= MAX_FAILURES {
        end(&txn, row, EvaluationState::Parked, Some(reason)).await?;
    } else {
        let not_before = db::now_ms(&txn).await? + (BACK_OFF_MS << (row.n_failures - 1));
        queue_again(&txn, row, not_before, format!("failed, tried again: {reason}")).await?;
    }
    let evaluation = shown(&txn, id).await?;
    txn.commit().await?;
    app.changed.notify_waiters();
    Ok(evaluation)
}
