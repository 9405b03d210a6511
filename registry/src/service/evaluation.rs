//! Evaluations as users see and steer them.

use std::collections::BTreeMap;

use fineline_api::error::ErrorCode;
use fineline_api::{CheckpointState, Evaluation, EvaluationState, Page, Scope, TaskScore};
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::evaluation::EvaluationFilter;
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::service::{content, lease};

/// A worker that did not ask for this long is taken for gone.
const WORKER_SILENCE_MS: i64 = 60_000;

/// A page of evaluations that concern runs which the caller reads.
///
/// # Errors
/// 400 for a cursor that is none of ours.
pub(crate) async fn list(
    app: &App,
    caller: &Caller,
    filter: &EvaluationFilter,
    cursor: Option<&str>,
    limit: u64,
) -> ApiResult<Page<Evaluation>> {
    let after: Option<Uuid> = cursor
        .map(str::parse)
        .transpose()
        .map_err(|_| ApiError::invalid("that cursor is none of ours"))?;
    let mut items = db::evaluation::list(app.db.reader(), &caller.pattern, filter, after, limit + 1).await?;
    let more = items.len() as u64 > limit;
    items.truncate(limit as usize);
    let next_cursor = items.last().filter(|_| more).map(|item| item.id.to_string());
    explain(app, &mut items).await?;
    Ok(Page { items, next_cursor })
}

/// How many evaluations that concern runs which the caller reads stand where; of those that `run` shows, when it is named.
pub(crate) async fn count(
    app: &App,
    caller: &Caller,
    run: Option<&RunRow>,
) -> ApiResult<BTreeMap<EvaluationState, u64>> {
    Ok(db::evaluation::count_by_state(app.db.reader(), &caller.pattern, run.map(|run| run.id)).await?)
}

/// The scores of an evaluation so far, by task.
///
/// # Errors
/// 404 when there is no such evaluation, or it concerns no run that the caller reads.
pub(crate) async fn scores(app: &App, caller: &Caller, id: Uuid) -> ApiResult<BTreeMap<String, Vec<TaskScore>>> {
    get(app, caller, id).await?;
    Ok(db::score::by_task(app.db.reader(), id).await?)
}

/// An evaluation.
///
/// # Errors
/// 404 when there is none, or it concerns no run that the caller reads.
pub(crate) async fn get(app: &App, caller: &Caller, id: Uuid) -> ApiResult<Evaluation> {
    let filter = EvaluationFilter {
        id: Some(id),
        ..EvaluationFilter::default()
    };
    let mut found = db::evaluation::list(app.db.reader(), &caller.pattern, &filter, None, 1).await?;
    explain(app, &mut found).await?;
    found
        .pop()
        .ok_or_else(|| ApiError::not_found(format!("evaluation `{id}`")))
}

/// Says why what is queued waits.
async fn explain(app: &App, evaluations: &mut [Evaluation]) -> ApiResult<()> {
    if !evaluations.iter().any(|item| item.state == EvaluationState::Queued) {
        return Ok(());
    }
    let conn = app.db.reader();
    let now = db::now_ms(conn).await?;
    let workers = db::worker::seen_since(conn, now - WORKER_SILENCE_MS).await?;
    let busy = db::lease::any_leased(conn).await?;
    for item in evaluations
        .iter_mut()
        .filter(|item| item.state == EvaluationState::Queued)
    {
        let architecture = item.architecture.clone().unwrap_or_default();
        let why = if item.architecture.is_none() {
            "its config.json names no architecture, so no worker can take it".to_owned()
        } else if workers.is_empty() && !busy {
            "no worker has asked for work in the last 60 s".to_owned()
        } else if !workers.is_empty() && !workers.iter().any(|(_, takes)| takes.contains(&architecture)) {
            format!("no worker that is asking takes architecture `{architecture}`")
        } else if !workers.is_empty() && !workers.iter().any(|(dtypes, _)| dtypes.contains(&item.dtype)) {
            format!("no worker that is asking computes in `{}`", item.dtype)
        } else {
            "waits for a free worker".to_owned()
        };
        item.reason = Some(match item.reason.take() {
            Some(before) => format!("{why} ({before})"),
            None => why,
        });
    }
    Ok(())
}

/// Queues again what failed, was parked or cancelled, with its counts at zero and without the scores that it has: who
/// asks for another try may mistrust what came of the last.
///
/// # Errors
/// 404 for an unknown one, 403 without the scope `write`, 409 for one that has not ended so.
pub(crate) async fn retry(app: &App, caller: &Caller, id: Uuid) -> ApiResult<Evaluation> {
    let shown = get(app, caller, id).await?;
    caller.require(Scope::Write)?;
    let txn = db::write_txn(&app.db).await?;
    let row = db::evaluation::find(&txn, id).await?;
    let row = row.ok_or_else(|| ApiError::internal("an evaluation vanished"))?;
    let ended = [
        EvaluationState::Failed,
        EvaluationState::Parked,
        EvaluationState::Cancelled,
    ];
    if !ended.iter().any(|state| state.as_str() == row.state) {
        let message = format!("evaluation `{id}` is {} and can't be tried again", shown.state);
        return Err(ApiError::new(ErrorCode::Conflict, message).hint("only failed, parked and cancelled ones can"));
    }
    let revision = db::revision::get(&txn, row.revision_id).await?;
    let revision = match db::evaluation::other_holder(&txn, &row).await? {
        _ if revision.state == CheckpointState::Ready => revision,
        Some(other) if other.state == CheckpointState::Ready => other,
        _ => {
            let message = format!("the checkpoint of evaluation `{id}` was deleted");
            return Err(ApiError::new(ErrorCode::Conflict, message).hint("push the step again: it is evaluated then"));
        }
    };
    lease::queue_anew(&txn, row, &revision).await?;
    txn.commit().await?;
    app.changed.notify_waiters();
    get(app, caller, id).await
}

/// Takes an evaluation back; a worker that has it loses its lease.
///
/// # Errors
/// 404 for an unknown one, 403 without the scope `write`, 409 for one that has ended.
pub(crate) async fn cancel(app: &App, caller: &Caller, id: Uuid) -> ApiResult<Evaluation> {
    let shown = get(app, caller, id).await?;
    caller.require(Scope::Write)?;
    let txn = db::write_txn(&app.db).await?;
    let row = db::evaluation::find(&txn, id).await?;
    let row = row.ok_or_else(|| ApiError::internal("an evaluation vanished"))?;
    let open = [EvaluationState::Queued, EvaluationState::Leased];
    if !open.iter().any(|state| state.as_str() == row.state) {
        let message = format!("evaluation `{id}` is {} and can't be cancelled", shown.state);
        return Err(ApiError::new(ErrorCode::Conflict, message).hint("only queued and leased ones can"));
    }
    lease::end(
        &txn,
        row,
        EvaluationState::Cancelled,
        Some("cancelled by a user".to_owned()),
    )
    .await?;
    txn.commit().await?;
    app.changed.notify_waiters();
    get(app, caller, id).await
}

/// The sample log of a task.
///
/// # Errors
/// 404 when the caller may not know of the evaluation or there is no log.
pub(crate) async fn samples(app: &App, caller: &Caller, id: Uuid, task: &str) -> ApiResult<bytes::Bytes> {
    get(app, caller, id).await?;
    let file = db::score::find_samples(app.db.reader(), id, task).await?;
    let file = file.ok_or_else(|| ApiError::not_found(format!("sample log of task `{task}` in evaluation `{id}`")))?;
    content::read_content(app, &file).await
}
