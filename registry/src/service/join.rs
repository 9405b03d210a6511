//! Joining a push session by name: the ranks of a job fill one session, one of them commits it.
//!
//! **Invariant:** a name means one session of a step from its opening on: while it is open, while it is verified, and as
//! long as the step holds what it committed. So every command of a job can be repeated, before and after the commit.

use std::collections::BTreeSet;

use fineline_api::error::ErrorCode;
use fineline_api::{CreatePushSession, PushSessionState};
use sea_orm::DatabaseTransaction;
use uuid::Uuid;

use crate::db;
use crate::db::push_session::{NewSession, SessionFile, SessionRow};
use crate::db::revision::{NewRevision, RevisionRow};
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::service::push_session::new_revision;

/// The session of that name for the step, opened when there is none, in the writing transaction: two ranks that come at
/// the same instant share one.
///
/// # Errors
/// 404 when there is none and the caller only joins.
pub(crate) async fn join(
    txn: &DatabaseTransaction,
    run: &RunRow,
    name: String,
    new: CreatePushSession,
) -> ApiResult<SessionRow> {
    let step = new.step;
    let only = new.join_only;
    if let Some(session) = db::push_session::find_named(txn, run.id, step, &name).await? {
        match session.state {
            PushSessionState::Open => {
                add_up(txn, run, &session, new).await?;
                db::push_session::touch(txn, session.id, 0, 0).await?;
                return Ok(session);
            }
            PushSessionState::Verifying => return Ok(session),
            _ if is_held(txn, run, &session).await? => return Ok(session),
            _ => {}
        }
    }
    if only {
        let what = format!("push session `{name}` for step {step} of run `{}`", run.name);
        return Err(ApiError::not_found(what).hint("add files first: `fineline push RUN STEP DIR --session NAME`"));
    }
    let revision = db::revision::insert(txn, new_revision(run, new)).await?;
    let session = NewSession {
        run_id: run.id,
        revision_id: Some(revision.id),
        step,
        name: Some(name),
        state: PushSessionState::Open,
        unchanged: false,
        manifest_digest: None,
    };
    Ok(db::push_session::insert(txn, session).await?)
}

/// Whether the step still holds what the session committed.
async fn is_held(txn: &DatabaseTransaction, run: &RunRow, session: &SessionRow) -> ApiResult<bool> {
    let current = db::revision::current(txn, run.id, session.step).await?;
    let held = current.and_then(|revision| revision.checkpoint);
    Ok(held.is_some() && held == session.manifest_digest)
}

/// Adds what one more member says of the step to what the others said; where they differ, the last word counts.
async fn add_up(
    txn: &DatabaseTransaction,
    run: &RunRow,
    session: &SessionRow,
    new: CreatePushSession,
) -> ApiResult<()> {
    let Some(id) = session.revision_id else { return Ok(()) };
    let before: RevisionRow = db::revision::get(txn, id).await?;
    let (mut metadata, said) = (before.metadata, new.metadata.clone());
    metadata.extend(said);
    let tags: BTreeSet<String> = before.tags.into_iter().chain(new.tags.clone()).collect();
    let sum = NewRevision {
        label: new.label.clone().or(before.label),
        // Not the run's tokens per step, which the first member got already.
        tokens: new.tokens.or(before.tokens),
        loss: new.loss.or(before.loss),
        metadata,
        tags: tags.into_iter().collect(),
        replace: new.replace || before.replace,
        ..new_revision(run, new)
    };
    Ok(db::revision::update(txn, id, &sum).await?)
}

/// Refuses a file at a path where another rank has added other bytes.
///
/// # Errors
/// 409 that names the path and both digests.
pub(crate) async fn check_file(txn: &DatabaseTransaction, session: &SessionRow, file: &SessionFile) -> ApiResult<()> {
    let Some(name) = &session.name else { return Ok(()) };
    match db::push_session::file_digest(txn, session.id, &file.path).await? {
        Some(there) if there != file.digest => {
            let (path, digest) = (&file.path, file.digest);
            let message = format!("file `{path}` is `{there}` in push session `{name}`, this push says `{digest}`");
            let hint = "let one rank write what all share, or give each its own path; after a job began anew, \
                take another session name";
            Err(ApiError::new(ErrorCode::Conflict, message).hint(hint))
        }
        _ => Ok(()),
    }
}

/// 409 for a named session that takes nothing more.
pub(crate) fn closed(name: &str, id: Uuid, state: PushSessionState) -> ApiError {
    let message = format!("push session `{name}` (`{id}`) is not open any more: it is {state}");
    ApiError::new(ErrorCode::Conflict, message).hint(
        "put a barrier before `--commit`; push all ranks' files again under another session name, with `--replace`",
    )
}
