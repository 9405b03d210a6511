//! Taking checkpoints and runs away. References go at once, bytes with a collection after the grace.
//!
//! **Invariant:** a step with a tag or a release goes only by force; what was measured of it stays unless it is asked
//! for; what its evaluations would read is there, or they are cancelled, in the same transaction.

use std::collections::HashSet;

use fineline_api::error::ErrorCode;
use fineline_api::{CheckpointState, DeletedCheckpoint, Deletion, EvaluationState, EventKind, Reference};
use fineline_format::{Digest, Manifest};
use sea_orm::{ConnectionTrait, DatabaseTransaction};
use serde_json::json;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::evaluation::{EvaluationModel, QueuedFor};
use crate::db::revision::{Of, RevisionRow};
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::service::{checkpoint, lease};

const CANCELLED: &str = "its checkpoint was deleted";

/// What a deletion may do.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DeleteOptions {
    /// Tagged and released steps too.
    pub(crate) force: bool,
    /// Scores too.
    pub(crate) scores: bool,
    /// Only says what would go.
    pub(crate) dry_run: bool,
}

/// Takes a step away with all its revisions, or by digest that revision alone.
///
/// # Errors
/// 404 for the reference, 409 when a tag or a release points to it, or a digest is that of several steps.
pub(crate) async fn checkpoint(
    app: &App,
    caller: &Caller,
    run: &RunRow,
    reference: &Reference,
    options: DeleteOptions,
) -> ApiResult<Deletion> {
    let named = checkpoint::resolve(app, caller, run, reference).await?;
    let conn = app.db.reader();
    let doomed = match reference {
        Reference::Digest(digest) => {
            let holders = db::revision::ready_ones(conn, run.id, Of::Checkpoint(digest)).await?;
            one_step(run, reference, &holders)?;
            holders
        }
        // A name of a replaced revision means that one; else it means the step.
        _ if !named.current => vec![named],
        _ => db::revision::ready_ones(conn, run.id, Of::Step(named.step)).await?,
    };
    let deletion = describe(app, caller, run, &doomed, options.dry_run).await?;
    check_names(run, &deletion, options)?;
    if options.dry_run {
        return Ok(deletion);
    }
    let txn = db::write_txn(&app.db).await?;
    revisions_in(&txn, run, &doomed, options, "deleted").await?;
    fail_point!("delete.before_commit");
    txn.commit().await?;
    app.changed.notify_waiters();
    Ok(deletion)
}

fn one_step(run: &RunRow, reference: &Reference, holders: &[RevisionRow]) -> ApiResult<()> {
    let steps: HashSet<u64> = holders.iter().map(|row| row.step).collect();
    if steps.len() <= 1 {
        return Ok(());
    }
    let message = format!("{} steps of run `{}` hold `{reference}`", steps.len(), run.name);
    Err(ApiError::new(ErrorCode::Conflict, message).hint("name the step that is to go"))
}

/// Refuses tagged and released steps unless force is said.
fn check_names(run: &RunRow, deletion: &Deletion, options: DeleteOptions) -> ApiResult<()> {
    let named = deletion.checkpoints.iter().find(|gone| !gone.names.is_empty());
    match named {
        Some(gone) if !options.force => {
            let names = gone.names.join("`, `");
            let message = format!("step {} of run `{}` bears `{names}`", gone.step, run.name);
            Err(ApiError::new(ErrorCode::Conflict, message)
                .hint("tagged and released steps go only with `--force`, their tags and releases with them"))
        }
        _ => Ok(()),
    }
}

/// Takes revisions of a run away; why goes to the event. A step whose current revision goes alone points to the newest one
/// that it replaced.
pub(crate) async fn revisions_in(
    txn: &DatabaseTransaction,
    run: &RunRow,
    doomed: &[RevisionRow],
    options: DeleteOptions,
    why: &str,
) -> ApiResult<()> {
    for revision in doomed {
        revision_in(txn, run, revision, options, why).await?;
    }
    for revision in doomed.iter().filter(|revision| revision.current) {
        if let Some(newest) = db::revision::ready_ones(txn, run.id, Of::Step(revision.step))
            .await?
            .first()
        {
            db::revision::make_current(txn, newest).await?;
        }
    }
    Ok(())
}

async fn revision_in(
    txn: &DatabaseTransaction,
    run: &RunRow,
    revision: &RevisionRow,
    options: DeleteOptions,
    why: &str,
) -> ApiResult<()> {
    if !options.force && !db::tag::names(txn, &[revision.id]).await?.is_empty() {
        let message = format!("step {} of run `{}` was tagged just now", revision.step, run.name);
        return Err(ApiError::new(ErrorCode::Conflict, message).hint("look again, then delete with `--force`"));
    }
    if !db::revision::set_deleted(txn, revision.id).await? {
        return Ok(());
    }
    db::tag::delete_names(txn, revision.id).await?;
    for evaluation in db::evaluation::queued_for(txn, QueuedFor::Revision(revision.id)).await? {
        if is_unfinished(&evaluation) {
            move_or_cancel(txn, evaluation).await?;
        }
    }
    if options.scores {
        db::evaluation::unlink_all(txn, revision.id).await?;
        db::score::delete_posted(txn, revision.id).await?;
    }
    let data = json!({ "digest": revision.checkpoint, "reason": why });
    Ok(db::event::insert(txn, run.id, revision.step, EventKind::CheckpointDeleted, data).await?)
}

fn is_unfinished(evaluation: &EvaluationModel) -> bool {
    [EvaluationState::Queued, EvaluationState::Leased]
        .iter()
        .any(|state| state.as_str() == evaluation.state)
}

/// Lets an evaluation read another revision that shows its scores; without one it is cancelled. A worker that has it loses
/// its lease: what it reads is gone, and the other run may not be for its token.
async fn move_or_cancel(txn: &DatabaseTransaction, mut evaluation: EvaluationModel) -> ApiResult<()> {
    let Some(holder) = db::evaluation::other_holder(txn, &evaluation).await?.filter(is_ready) else {
        return lease::end(txn, evaluation, EvaluationState::Cancelled, Some(CANCELLED.to_owned())).await;
    };
    db::evaluation::point_to(&mut evaluation, &holder);
    if evaluation.state == EvaluationState::Leased.as_str() {
        return lease::take_away(txn, evaluation, CANCELLED).await;
    }
    Ok(db::evaluation::save(txn, evaluation).await?)
}

fn is_ready(revision: &RevisionRow) -> bool {
    revision.state == CheckpointState::Ready
}

/// A finished evaluation whose scores another run shows stays with that one.
async fn move_away(txn: &impl ConnectionTrait, mut evaluation: EvaluationModel) -> ApiResult<()> {
    if let Some(holder) = db::evaluation::other_holder(txn, &evaluation).await? {
        db::evaluation::point_to(&mut evaluation, &holder);
        db::evaluation::save(txn, evaluation).await?;
    }
    Ok(())
}

/// Takes a run away with everything in it, its scores too. Its name is free at once.
///
/// # Errors
/// 409 when it has tags or releases and force is not said.
pub(crate) async fn run(app: &App, caller: &Caller, run: &RunRow, options: DeleteOptions) -> ApiResult<Deletion> {
    let doomed = all_ready(app, run).await?;
    let deletion = describe(app, caller, run, &doomed, options.dry_run).await?;
    check_names(run, &deletion, options)?;
    if options.dry_run {
        return Ok(deletion);
    }
    let txn = db::write_txn(&app.db).await?;
    if !options.force && db::tag::any(&txn, run.id).await? {
        let message = format!("run `{}` has tags or releases", run.name);
        return Err(ApiError::new(ErrorCode::Conflict, message).hint("it goes only with `--force`"));
    }
    db::revision::set_all_deleted(&txn, run.id).await?;
    db::push_session::abort_all(&txn, run.id).await?;
    db::tag::delete_all(&txn, run.id).await?;
    for evaluation in db::evaluation::queued_for(&txn, QueuedFor::Run(run.id)).await? {
        if is_unfinished(&evaluation) {
            move_or_cancel(&txn, evaluation).await?;
        } else {
            move_away(&txn, evaluation).await?;
        }
    }
    db::run::set_deleted(&txn, run.id).await?;
    fail_point!("delete.run");
    txn.commit().await?;
    app.changed.notify_waiters();
    Ok(deletion)
}

async fn all_ready(app: &App, run: &RunRow) -> ApiResult<Vec<RevisionRow>> {
    let filter = db::revision::RevisionFilter {
        state: Some(CheckpointState::Ready),
        all_revisions: true,
        ..Default::default()
    };
    Ok(db::revision::list(app.db.reader(), run.id, filter, None, u64::from(u32::MAX)).await?)
}

/// What would go, and how many stored bytes nothing else needs.
pub(crate) async fn describe(
    app: &App,
    caller: &Caller,
    run: &RunRow,
    doomed: &[RevisionRow],
    dry_run: bool,
) -> ApiResult<Deletion> {
    let conn = app.db.reader();
    let ids: Vec<i64> = doomed.iter().map(|row| row.id).collect();
    let mut names = std::collections::HashMap::new();
    for batch in ids.chunks(500) {
        names.extend(db::tag::names(conn, batch).await?);
    }
    let digests: Vec<Digest> = doomed.iter().filter_map(|row| row.checkpoint).collect();
    let checkpoints = db::checkpoint::find_many(conn, &digests).await?;
    let mut deletion = Deletion {
        dry_run,
        ..Deletion::default()
    };
    for row in doomed {
        let Some(found) = row.checkpoint.and_then(|digest| checkpoints.get(&digest)) else {
            continue;
        };
        deletion.size_bytes += found.size_bytes;
        deletion.checkpoints.push(DeletedCheckpoint {
            step: row.step,
            digest: found.digest,
            size_bytes: found.size_bytes,
            names: names.remove(&row.id).unwrap_or_default(),
        });
    }
    // A number for people: what can't be counted does not keep anything from being deleted.
    deletion.freed_bytes = freed_bytes(app, caller, run, &ids).await.unwrap_or_else(|error| {
        tracing::error!(run = %run.name, %error, "what a deletion frees can't be counted");
        0
    });
    Ok(deletion)
}

/// Stored bytes of the chunks that these revisions hold, and neither another of the run nor another run that the caller may
/// know of. Where a run that it may not know of holds them too, nothing tells so: that many bytes come back at the most.
async fn freed_bytes(app: &App, caller: &Caller, run: &RunRow, doomed: &[i64]) -> ApiResult<u64> {
    let conn = app.db.reader();
    let doomed: HashSet<i64> = doomed.iter().copied().collect();
    let (mut going, mut staying) = (HashSet::new(), HashSet::new());
    let mut after = 0;
    loop {
        let revisions = db::revision::ready_checkpoints(conn, run.id, after, 500).await?;
        let Some((last, _)) = revisions.last() else { break };
        after = *last;
        for (id, digest) in revisions {
            let files = if doomed.contains(&id) { &mut going } else { &mut staying };
            files.insert(digest);
        }
    }
    let mut chunks = chunks_of(app, &going.difference(&staying).copied().collect::<Vec<_>>()).await?;
    for batch in staying.into_iter().collect::<Vec<_>>().chunks(100) {
        for chunk in chunks_of(app, batch).await? {
            chunks.remove(&chunk);
        }
    }
    let mut chunks: Vec<Digest> = chunks.into_iter().collect();
    let others = db::possession::held_by_others(conn, run.id, &caller.pattern, &chunks).await?;
    chunks.retain(|chunk| !others.contains(chunk));
    Ok(db::collect::stored_bytes(conn, &chunks).await?)
}

async fn chunks_of(app: &App, checkpoints: &[Digest]) -> ApiResult<HashSet<Digest>> {
    let conn = app.db.reader();
    let mut files = HashSet::new();
    for row in db::checkpoint::find_many(conn, checkpoints).await?.into_values() {
        let manifest = Manifest::from_json(&row.manifest).map_err(ApiError::internal)?;
        files.extend(manifest.files().iter().map(|file| file.digest));
    }
    let files: Vec<Digest> = files.into_iter().collect();
    let rows = db::file::find_many(conn, &files).await?;
    Ok(rows
        .into_values()
        .flat_map(|file| file.chunks)
        .map(|chunk| chunk.digest)
        .collect())
}
