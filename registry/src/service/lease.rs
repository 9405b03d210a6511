//! Leases: claiming an evaluation, keeping it, ending it.
//!
//! queued → leased → done / failed / parked / cancelled. A failure that may pass goes back to queued with a back-off and
//! parks at the third; a lease that runs out (death, preemption) is counted apart and parks at the fifth, unless its worker held it
//! for later and was still at another; one that its worker gives back is not counted. Whichever way, the tasks that were scored stay
//! scored: nothing of it says anything against them.
//!
//! **Invariant:** only the holder of the live lease writes; everyone else gets 409 `lease_lost`. A call whose answer was
//! lost gets the same answer when it comes again.

use std::collections::BTreeSet;
use std::time::Duration;

use fineline_api::error::ErrorCode;
use fineline_api::{
    ClaimEvaluation, Evaluation, EvaluationState, EventKind, FailEvaluation, Lease, Progress, RenewedLease, RunPattern,
    ScoredTask, scores_digest,
};
use fineline_format::Digest;
use metrics::counter;
use sea_orm::{ConnectionTrait, DatabaseTransaction};
use serde::Deserialize as _;
use serde_json::json;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::evaluation::{EvaluationFilter, EvaluationModel};
use crate::db::revision::RevisionRow;
use crate::db::suite::SuiteRow;
use crate::error::{ApiError, ApiResult};
use crate::service::token::{generate_secret, secret_from};
use crate::service::{schedule, tokenizer};

const MAX_FAILURES: i32 = 3;
const MAX_EXPIRIES: i32 = 5;

/// How often a wait looks whether another replica ended the lease.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a claim came to.
enum Claimed {
    Lease(Box<Lease>),
    Nothing,
    /// It had a lease, which is over: it gets no other, since nobody may be left to do the work.
    Spent,
}

/// Gives the first work of the queue that the worker can do, and of its run and suite the step that is next in their order; waits for some as long as it asks, at most 30 s. A claim that comes again
/// gets the lease that it got before.
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
        .chain([&claim.worker, &claim.device])
        .chain(&claim.harness_version);
    if claim.dtypes.len() + claim.architectures.len() > 200 || words.clone().any(|word| word.len() > 128) {
        return Err(ApiError::invalid(
            "a claim names at most 200 dtypes and architectures of 128 bytes each",
        ));
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(claim.wait_s.min(30));
    loop {
        let changed = app.changed.notified();
        match try_claim(app, caller, token_id, &claim).await? {
            Claimed::Lease(lease) => {
                app.changed.notify_waiters();
                return Ok(Some(*lease));
            }
            Claimed::Spent => return Ok(None),
            Claimed::Nothing => {}
        }
        if tokio::time::Instant::now() >= deadline {
            return Ok(None);
        }
        let look_again = (tokio::time::Instant::now() + Duration::from_secs(2)).min(deadline);
        let _ = tokio::time::timeout_at(look_again, changed).await;
    }
}

async fn try_claim(app: &App, caller: &Caller, token_id: Uuid, claim: &ClaimEvaluation) -> ApiResult<Claimed> {
    let txn = db::write_txn(&app.db).await?;
    db::worker::see(&txn, token_id, claim).await?;
    let now = db::now_ms(&txn).await?;
    expire_in(&txn, now).await?;
    let claimed = match before(&txn, token_id, claim).await? {
        Some(row) if row.state == EvaluationState::Leased.as_str() => give(app, &txn, row, claim, now).await?,
        Some(_) => Claimed::Spent,
        None => match db::lease::pick(&txn, &caller.pattern, claim, now).await? {
            Some(first) => {
                let mut row = schedule::next(&txn, first, claim, now).await?;
                row.state = EvaluationState::Leased.as_str().to_owned();
                row.reason = None;
                row.worker = Some(claim.worker.clone());
                row.token_id = Some(token_id);
                row.progress = None;
                row.claim_sha256 = claim.claim_id.map(|id| claim_digest(id).as_bytes().to_vec());
                row.started_at_ms = Some(now);
                give(app, &txn, row, claim, now).await?
            }
            None => Claimed::Nothing,
        },
    };
    txn.commit().await?;
    if matches!(claimed, Claimed::Lease(_)) {
        counter!("fineline_leases_granted_total").increment(1);
    }
    Ok(claimed)
}

/// What the same claim got before.
async fn before(
    txn: &DatabaseTransaction,
    token_id: Uuid,
    claim: &ClaimEvaluation,
) -> ApiResult<Option<EvaluationModel>> {
    match claim.claim_id {
        Some(id) => Ok(db::lease::find_by_claim(txn, token_id, &claim_digest(id)).await?),
        None => Ok(None),
    }
}

fn claim_digest(id: Uuid) -> Digest {
    Digest::of(id.as_bytes())
}

/// Writes the lease into the row, from now on, and hands it out with all that the worker needs.
async fn give(
    app: &App,
    txn: &DatabaseTransaction,
    mut row: EvaluationModel,
    claim: &ClaimEvaluation,
    now: i64,
) -> ApiResult<Claimed> {
    let id = row.id;
    // It follows from the claim, so that it is the same whichever of two answers arrives. Nobody else knows the claim's id.
    let token = match claim.claim_id {
        Some(claim) => secret_from(&format!("{claim} {id} {}", row.started_at_ms.unwrap_or_default())),
        None => generate_secret(),
    };
    let ttl_s = app.options.lease.ttl_s;
    row.lease_sha256 = Some(Digest::of(token.as_bytes()).as_bytes().to_vec());
    row.lease_expires_at_ms = Some(now + ms(ttl_s));
    let suite = suite(txn, &row).await?;
    let lent = row.tokenizer_digest.as_deref().map(<[u8; 32]>::try_from).transpose();
    let lent = lent.map_err(ApiError::internal)?.map(Digest::from_bytes);
    let tokenizer = tokenizer::lent(txn, lent).await?;
    db::evaluation::save(txn, row).await?;
    let scored = scored(txn, id, claim.harness_version.as_deref()).await?;
    let evaluation = shown(txn, id).await?;
    let suite = suite.named(evaluation.suite.clone());
    Ok(Claimed::Lease(Box::new(Lease {
        token,
        ttl_s,
        evaluation,
        suite,
        scored,
        tokenizer,
    })))
}

/// The tasks that a harness of this version has scored already. What another one scored is done again: one evaluation
/// never mixes two.
async fn scored(txn: &DatabaseTransaction, id: Uuid, version: Option<&str>) -> ApiResult<Vec<ScoredTask>> {
    let mut tasks = db::score::by_task(txn, id).await?;
    tasks.retain(|_, scores| {
        scores
            .iter()
            .all(|score| Some(score.harness_version.as_str()) == version)
    });
    let keep: BTreeSet<String> = tasks.keys().cloned().collect();
    db::score::clear(txn, id, &keep).await?;
    let scored = |(task, scores): (String, Vec<_>)| ScoredTask {
        task,
        scores_digest: scores_digest(&scores),
    };
    Ok(tasks.into_iter().map(scored).collect())
}

/// The suite of an evaluation.
pub(crate) async fn suite(txn: &DatabaseTransaction, row: &EvaluationModel) -> ApiResult<SuiteRow> {
    let digest = row.suite_digest.as_slice().try_into();
    let digest = digest.map(Digest::from_bytes).map_err(ApiError::internal)?;
    let suite = db::suite::find(txn, &digest).await?;
    suite.ok_or_else(|| ApiError::internal("an evaluation has no suite"))
}

fn ms(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000)
}

/// An evaluation as the API shows it.
pub(crate) async fn shown(conn: &impl ConnectionTrait, id: Uuid) -> ApiResult<Evaluation> {
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
    let n_expired = expire_in(&txn, now).await?;
    txn.commit().await?;
    if n_expired > 0 {
        app.changed.notify_waiters();
    }
    Ok(())
}

async fn expire_in(txn: &DatabaseTransaction, now: i64) -> ApiResult<usize> {
    let expired = db::lease::expired(txn, now).await?;
    let n_expired = expired.len();
    for row in expired {
        run_out(txn, row, now).await?;
    }
    Ok(n_expired)
}

/// Ends a lease whose worker is gone: back in the queue, or parked at the fifth time.
async fn run_out(txn: &DatabaseTransaction, mut row: EvaluationModel, now: i64) -> ApiResult<()> {
    counter!("fineline_leases_expired_total").increment(1);
    let worker = row.worker.clone().unwrap_or_default();
    if row.progress.as_ref().is_some_and(is_ahead) {
        return queue_again(txn, row, now, format!("worker `{worker}` went silent before it began")).await;
    }
    row.n_expiries += 1;
    if row.n_expiries < MAX_EXPIRIES {
        return queue_again(txn, row, now, format!("worker `{worker}` went silent")).await;
    }
    let reason = format!(
        "{} leases ran out, the last with worker `{worker}`: its process was killed, ran out of memory or lost the \
         network; see its log and the machine's, then `fineline eval retry {}`",
        row.n_expiries, row.id
    );
    end(txn, row, EvaluationState::Parked, Some(reason)).await
}

/// Whether a worker said last that it was still at other work.
fn is_ahead(progress: &serde_json::Value) -> bool {
    Progress::deserialize(progress).is_ok_and(|progress| progress.ahead)
}

/// How a worker came to be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// By itself. That counts as a lease that ran out: what it held may have killed it.
    Died,
    /// We stopped it, which says nothing against what it held.
    Stopped,
}

/// Ends the leases of a worker that is known to be gone, before they run out.
pub(crate) async fn take_back(app: &App, token_id: Uuid, gone: Gone) -> ApiResult<()> {
    let txn = db::write_txn(&app.db).await?;
    let now = db::now_ms(&txn).await?;
    for row in db::lease::leased_by(&txn, token_id).await? {
        match gone {
            Gone::Died => run_out(&txn, row, now).await?,
            Gone::Stopped => queue_again(&txn, row, now, "its worker was stopped".to_owned()).await?,
        }
    }
    txn.commit().await?;
    app.changed.notify_waiters();
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
    row.progress = None;
    Ok(db::evaluation::save(txn, row).await?)
}

/// Ends the lease of an evaluation through no fault of its worker; it waits for the next one.
pub(crate) async fn take_away(txn: &DatabaseTransaction, row: EvaluationModel, reason: &str) -> ApiResult<()> {
    let now = db::now_ms(txn).await?;
    queue_again(txn, row, now, reason.to_owned()).await
}

/// Queues an evaluation that has ended once more, from the beginning and with its counts at zero, for a revision whose
/// files can be read.
pub(crate) async fn queue_anew(
    txn: &impl ConnectionTrait,
    mut row: EvaluationModel,
    revision: &RevisionRow,
) -> ApiResult<()> {
    db::evaluation::point_to(&mut row, revision);
    row.state = EvaluationState::Queued.as_str().to_owned();
    row.reason = None;
    row.n_failures = 0;
    row.n_expiries = 0;
    row.not_before_ms = 0;
    row.finished_at_ms = None;
    row.lease_sha256 = None;
    db::score::clear(txn, row.id, &BTreeSet::new()).await?;
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
    counter!("fineline_evaluations_ended_total", "state" => state.as_str()).increment(1);
    Ok(())
}

/// The row of an evaluation whose live lease the caller holds.
pub(crate) async fn held(
    conn: &impl ConnectionTrait,
    caller: &Caller,
    id: Uuid,
    lease: &str,
) -> ApiResult<EvaluationModel> {
    let row = db::evaluation::find(conn, id).await?;
    let now = db::now_ms(conn).await?;
    let mine = |row: &EvaluationModel| {
        row.state == EvaluationState::Leased.as_str()
            && row.token_id == caller.token_id
            && is_lease(row, lease)
            && row.lease_expires_at_ms.is_some_and(|until| until > now)
    };
    row.filter(mine).ok_or_else(|| lost(id))
}

/// Whether that is the token of the row's lease, live or over.
pub(crate) fn is_lease(row: &EvaluationModel, lease: &str) -> bool {
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
/// 409 when the lease is lost, 400 for what breaks a bound.
pub(crate) async fn renew(
    app: &App,
    caller: &Caller,
    id: Uuid,
    lease: &str,
    progress: Progress,
) -> ApiResult<RenewedLease> {
    if progress.task.as_ref().is_some_and(|task| task.len() > 256) {
        return Err(ApiError::invalid("the task of a heartbeat has 256 bytes at most"));
    }
    let txn = db::write_txn(&app.db).await?;
    let mut row = held(&txn, caller, id, lease).await?;
    let ttl_s = app.options.lease.ttl_s;
    row.lease_expires_at_ms = Some(db::now_ms(&txn).await? + ms(ttl_s));
    row.progress = Some(serde_json::to_value(progress).map_err(ApiError::internal)?);
    db::evaluation::save(&txn, row).await?;
    txn.commit().await?;
    counter!("fineline_lease_heartbeats_total").increment(1);
    Ok(RenewedLease { ttl_s })
}

/// Waits while a lease is held, at most so long.
///
/// # Errors
/// 409 as soon as the lease is lost.
pub(crate) async fn wait(app: &App, caller: &Caller, id: Uuid, lease: &str, wait: Duration) -> ApiResult<()> {
    let deadline = tokio::time::Instant::now() + wait;
    while tokio::time::Instant::now() < deadline {
        let changed = app.changed.notified();
        held(app.db.reader(), caller, id, lease).await?;
        // Another replica may be the one that takes it back.
        let look_again = (tokio::time::Instant::now() + LOOK_AGAIN).min(deadline);
        let _ = tokio::time::timeout_at(look_again, changed).await;
    }
    Ok(())
}

/// Ends a try before all scores are there: back in the queue after a while, parked at the third time, or failed for good.
/// The same lease again changes nothing.
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
    if was_ended_by(&txn, id, lease).await? {
        return shown(&txn, id).await;
    }
    let mut row = held(&txn, caller, id, lease).await?;
    row.failed_lease_sha256 = row.lease_sha256.clone();
    row.n_failures += 1;
    if !failure.retryable {
        end(&txn, row, EvaluationState::Failed, Some(reason)).await?;
    } else if row.n_failures >= MAX_FAILURES {
        end(&txn, row, EvaluationState::Parked, Some(reason)).await?;
    } else {
        let not_before = db::now_ms(&txn).await? + (ms(app.options.lease.back_off_s) << (row.n_failures - 1));
        queue_again(&txn, row, not_before, format!("failed, tried again: {reason}")).await?;
    }
    let evaluation = shown(&txn, id).await?;
    txn.commit().await?;
    app.changed.notify_waiters();
    Ok(evaluation)
}

/// Ends a lease whose worker stops: at once in the queue for the next one, and counted against nothing. The same lease again
/// changes nothing.
///
/// # Errors
/// 409 when the lease is lost.
pub(crate) async fn release(app: &App, caller: &Caller, id: Uuid, lease: &str) -> ApiResult<Evaluation> {
    let txn = db::write_txn(&app.db).await?;
    if was_ended_by(&txn, id, lease).await? {
        return shown(&txn, id).await;
    }
    let mut row = held(&txn, caller, id, lease).await?;
    row.failed_lease_sha256 = row.lease_sha256.clone();
    let reason = format!("worker `{}` gave it back", row.worker.as_deref().unwrap_or_default());
    let now = db::now_ms(&txn).await?;
    queue_again(&txn, row, now, reason).await?;
    let evaluation = shown(&txn, id).await?;
    txn.commit().await?;
    counter!("fineline_leases_released_total").increment(1);
    app.changed.notify_waiters();
    Ok(evaluation)
}

/// Whether the last try that its worker ended before all scores were there, by a failure or by giving it back, was under that lease.
async fn was_ended_by(txn: &DatabaseTransaction, id: Uuid, lease: &str) -> ApiResult<bool> {
    let row = db::evaluation::find(txn, id).await?;
    let ended = row.and_then(|row| row.failed_lease_sha256);
    Ok(ended.as_deref() == Some(Digest::of(lease.as_bytes()).as_bytes().as_slice()))
}
