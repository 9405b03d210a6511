//! Retention: which steps a run keeps by its rule. The rule is applied when it is set, and by the sweep from then on.

use fineline_api::{CheckpointState, Deletion, Retention};
use sea_orm::ConnectionTrait;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::revision::{RevisionFilter, RevisionRow};
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::service::delete::{self, DeleteOptions};

/// Sets a run's rule and applies it; with `dry_run` only says what would go.
///
/// # Errors
/// 400 for a rule that keeps nothing.
pub(crate) async fn set(
    app: &App,
    caller: &Caller,
    run: &RunRow,
    rule: Retention,
    dry_run: bool,
) -> ApiResult<Deletion> {
    if rule.keep_last == 0 {
        return Err(ApiError::invalid(
            "`keep_last` is `0`: a run keeps its newest step at least",
        ));
    }
    if rule.keep_every == Some(0) {
        return Err(ApiError::invalid("`keep_every` is `0`: it divides no step"));
    }
    let going = doomed(app.db.reader(), run.id, rule).await?;
    let mut deletion = delete::describe(app, caller, run, &going, dry_run).await?;
    if dry_run {
        return Ok(deletion);
    }
    let txn = db::write_txn(&app.db).await?;
    db::run::set_retention(&txn, run.id, Some(&rule)).await?;
    txn.commit().await?;
    let gone = apply(app, run, rule).await?;
    let is_gone = |step: u64| gone.iter().any(|row| row.step == step);
    deletion.checkpoints.retain(|row| is_gone(row.step));
    Ok(deletion)
}

/// Takes a run's rule away: it keeps all that it still has.
pub(crate) async fn unset(app: &App, run: &RunRow) -> ApiResult<()> {
    let txn = db::write_txn(&app.db).await?;
    db::run::set_retention(&txn, run.id, None).await?;
    Ok(txn.commit().await?)
}

/// Applies every run's rule.
pub(crate) async fn apply_all(app: &App) -> ApiResult<()> {
    let mut after = 0;
    while let Some(run) = db::run::with_retention(app.db.reader(), after, 1).await?.pop() {
        after = run.id;
        let Some(rule) = run.retention else { continue };
        if doomed(app.db.reader(), run.id, rule).await?.is_empty() {
            continue;
        }
        if let Err(error) = apply(app, &run, rule).await {
            tracing::error!(run = %run.name, %error, "a rule of retention is put off");
        }
    }
    Ok(())
}

/// Deletes what the rule does not keep, if it is still the run's: looked at where nobody else writes, so that a step that
/// just came, went, was tagged or waits for scores counts.
async fn apply(app: &App, run: &RunRow, rule: Retention) -> ApiResult<Vec<RevisionRow>> {
    let txn = db::write_txn(&app.db).await?;
    if db::run::get(&txn, run.id).await?.retention != Some(rule) {
        return Ok(Vec::new());
    }
    let gone = doomed(&txn, run.id, rule).await?;
    delete::revisions_in(&txn, run, &gone, DeleteOptions::default(), "retention").await?;
    txn.commit().await?;
    app.changed.notify_waiters();
    Ok(gone)
}

/// The revisions of the steps that the rule does not keep. A step with a name, or with an evaluation that is not
/// finished, in any of its revisions is kept.
async fn doomed(conn: &impl ConnectionTrait, run_id: i64, rule: Retention) -> ApiResult<Vec<RevisionRow>> {
    let filter = RevisionFilter {
        state: Some(CheckpointState::Ready),
        all_revisions: true,
        ..RevisionFilter::default()
    };
    let mut rows = db::revision::list(conn, run_id, filter, None, u64::from(u32::MAX)).await?;
    let mut steps: Vec<u64> = rows.iter().filter(|row| row.current).map(|row| row.step).collect();
    let n_newest = usize::try_from(rule.keep_last).unwrap_or(usize::MAX);
    let newest = steps.split_off(steps.len().saturating_sub(n_newest));
    let oldest_kept = newest.first().copied().unwrap_or(0);
    rows.retain(|row| row.step < oldest_kept && rule.keep_every.is_none_or(|every| row.step % every != 0));
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let pending = db::evaluation::pending(conn, &ids).await?;
    let mut named = std::collections::HashMap::new();
    for batch in ids.chunks(500) {
        named.extend(db::tag::names(conn, batch).await?);
    }
    let kept = |row: &RevisionRow| pending.contains(&row.id) || named.contains_key(&row.id);
    let kept_steps: std::collections::HashSet<u64> = rows.iter().filter(|row| kept(row)).map(|row| row.step).collect();
    rows.retain(|row| !kept_steps.contains(&row.step));
    Ok(rows)
}
