//! Taking checkpoints and runs away. References go at once, bytes with a collection after the grace.
//!
//! **Invariant:** a step with a tag or a release goes only by force; what was measured of it stays unless it is asked
//! for; what its evaluations would read is there, or they are cancelled, in the same transaction.

use std::collections::HashSet;

use fineline_api::error::ErrorCode;
use fineline_api::{DeletedCheckpoint, Deletion, EvaluationState, EventKind, Reference};
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
        _ => db::revision::ready_ones(conn, run.id, Of::Step(named.step)).await?,
    };
    revisions(app, run, doomed, options, "deleted").await
}

fn one_step(run: &RunRow, reference: &Reference, holders: &[RevisionRow]) -> ApiResult<()> {
    let steps: HashSet<u64> = holders.iter().map(|row| row.step).collect();
    if steps.len() <= 1 {
        return Ok(());
    }
    let message = format!("{} steps of run `{}` hold `{reference}`", steps.len(), run.name);
    Err(ApiError::new(ErrorCode::Conflict, message).hint("name the step that is to go"))
}

/// Takes revisions of a run away; why goes to the event.
pub(crate) async fn revisions(
    app: &App,
    run: &RunRow,
    doomed: Vec<RevisionRow>,
    options: DeleteOptions,
    why: &str,
) -> ApiResult<Deletion> {
    let deletion = describe(app, run, &doomed, options.dry_run).await?;
    if let Some(named) = deletion
        .checkpoints
        .iter()
        .find(|gone| !gone.names.is_empty() && !options.force)
    {
        return Err(has_names(run, named));
    }
    if options.dry_run {
        return Ok(deletion);
    }
    let txn = db::write_txn(&app.db).await?;
    for revision in &doomed {
        revision_in(&txn, run, revision, options, why).await?;
    }
    fail_point!("delete.before_commit");
    txn.commit().await?;
    app.changed.notify_waiters();
    Ok(deletion)
}

fn has_names(run: &RunRow, gone: &DeletedCheckpoint) -> ApiError {
    let message = format!(
        "step {} of run `{}` bears `{}`",
        gone.step,
        run.name,
        gone.names.join("`, `")
    );
    ApiError::new(ErrorCode::Conflict, message)
        .hint("tagged and released steps go only with `--force`, their tags and releases with them")
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

/// Lets an evaluation read another revision that shows its scores; without one it is cancelled.
async fn move_or_cancel(txn: &DatabaseTransaction, mut evaluation: EvaluationModel) -> ApiResult<()> {
    match db::evaluation::other_holder(txn, &evaluation).await? {
        Some((run_id, revision_id)) => {
            (evaluation.run_id, evaluation.revision_id) = (run_id, revision_id);
            Ok(db::evaluation::save(txn, evaluation).await?)
        }
        None => lease::end(txn, evaluation, EvaluationState::Cancelled, Some(CANCELLED.to_owned())).await,
    }
}

/// Takes a run away with everything in it, its scores too. Its name is free at once.
///
/// # Errors
/// 409 when it has tags or releases and force is not said.
pub(crate) async fn run(app: &App, run: &RunRow, options: DeleteOptions) -> ApiResult<Deletion> {
    let doomed = all_ready(app, run).await?;
    let deletion = describe(app, run, &doomed, options.dry_run).await?;
    if let Some(named) = deletion
        .checkpoints
        .iter()
        .find(|gone| !gone.names.is_empty() && !options.force)
    {
        return Err(has_names(run, named));
    }
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

/// A finished evaluation whose scores another run shows stays with that one.
async fn move_away(txn: &impl ConnectionTrait, mut evaluation: EvaluationModel) -> ApiResult<()> {
    if let Some((run_id, revision_id)) = db::evaluation::other_holder(txn, &evaluation).await? {
        (evaluation.run_id, evaluation.revision_id) = (run_id, revision_id);
        db::evaluation::save(txn, evaluation).await?;
    }
    Ok(())
}

async fn all_ready(app: &App, run: &RunRow) -> ApiResult<Vec<RevisionRow>> {
    let filter = db::revision::RevisionFilter {
        state: Some(fineline_api::CheckpointState::Ready),
        all_revisions: true,
        ..Default::default()
    };
    Ok(db::revision::list(app.db.reader(), run.id, filter, None, u64::from(u32::MAX)).await?)
}

/// What would go, and how many stored bytes nothing else needs.
async fn describe(app: &App, run: &RunRow, doomed: &[RevisionRow], dry_run: bool) -> ApiResult<Deletion> {
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
    deletion.freed_bytes = freed_bytes(app, run, &ids).await?;
    Ok(deletion)
}

/// Stored bytes of the chunks that only these revisions of the run hold.
async fn freed_bytes(app: &App, run: &RunRow, doomed: &[i64]) -> ApiResult<u64> {
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
    let chunks: Vec<Digest> = chunks.into_iter().collect();
    Ok(db::collect::count_held_by(conn, &chunks, 1).await?.stored_bytes)
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
