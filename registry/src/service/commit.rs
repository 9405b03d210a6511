//! Committing a push session: from files that were named to a checkpoint that is verified.

use std::collections::HashSet;

use fineline_api::{PushSession, PushSessionState};
use fineline_format::{Digest, FileEntry, Manifest};
use sea_orm::DatabaseTransaction;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::push_session::SessionFile;
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::service::push_session::{describe, find, find_open, not_open, step_exists};
use crate::service::{checkpoint, possession};

/// Commits a session: its files must make the manifest that the pusher means, and every chunk must be there for the
/// caller. Its checkpoint is then read back before anybody sees it.
///
/// # Errors
/// 422 when the manifest is another or a chunk is missing, 409 when the step holds other bytes.
pub(crate) async fn commit(
    app: &App,
    caller: &Caller,
    run: &RunRow,
    id: Uuid,
    meant: Digest,
) -> ApiResult<PushSession> {
    let session = find(app, run, id).await?;
    let again = [PushSessionState::Verifying, PushSessionState::Committed].contains(&session.state);
    if again && session.manifest_digest == Some(meant) {
        return describe(app, run, session).await;
    }
    find_open(app, run, id).await?;
    let files = db::push_session::files(app.db.reader(), id).await?;
    check_manifest(&files, meant)?;
    check_chunks(app, caller, &files).await?;
    let is_whole = checkpoint::is_whole(app, &meant).await?;
    let named: Vec<Digest> = files
        .iter()
        .flat_map(|file| &file.chunks)
        .map(|chunk| chunk.digest)
        .collect();
    let revision_id = session
        .revision_id
        .ok_or_else(|| ApiError::internal("an open session has no revision"))?;
    let txn = db::write_txn(&app.db).await?;
    let revision = db::revision::get(&txn, revision_id).await?;
    db::push_session::set_manifest(&txn, id, &meant).await?;
    // Another rank may have added a file meanwhile, or said another recipe of one, whose chunks nobody checked; none can
    // from here on.
    if db::push_session::files(&txn, id).await? != files {
        let message = format!("push session `{id}` was given a file while it was committed");
        return Err(ApiError::unprocessable(message).hint("commit once, when every rank is done"));
    }
    match db::revision::current(&txn, run.id, session.step).await? {
        Some(current) if current.checkpoint == Some(meant) && is_whole => {
            let unchanged = PushSessionState::Committed;
            if !db::push_session::set_state(&txn, id, PushSessionState::Open, unchanged).await? {
                return Err(not_open(id));
            }
            drop_unchanged(&txn, id, revision_id).await?;
        }
        Some(current) if current.checkpoint != Some(meant) && !revision.may_replace(&current) => {
            return Err(step_exists(run, session.step));
        }
        _ => {
            // Named by one who may read them: from here on the run itself holds them, whatever is deleted elsewhere.
            db::possession::insert(&txn, run.id, &named, false).await?;
            if db::frame::revive_many(&txn, &named).await?.len() < named.iter().collect::<HashSet<_>>().len() {
                return Err(lost_a_chunk());
            }
            let verifying = PushSessionState::Verifying;
            let moved = db::push_session::set_state(&txn, id, PushSessionState::Open, verifying).await?;
            if !moved || !db::verification::begin(&txn, revision_id, &meant).await? {
                return Err(not_open(id));
            }
        }
    }
    fail_point!("commit.before_commit");
    txn.commit().await?;
    app.changed.notify_waiters();
    describe(app, run, find(app, run, id).await?).await
}

fn check_manifest(files: &[SessionFile], meant: Digest) -> ApiResult<()> {
    let found = manifest_of(files)?.digest();
    if found == meant {
        return Ok(());
    }
    let n = files.len();
    let message = format!("the session's {n} files make the manifest `{found}`, the commit means `{meant}`");
    Err(ApiError::unprocessable(message).hint("a file of another rank may be missing: add it, then commit"))
}

fn lost_a_chunk() -> ApiError {
    ApiError::unprocessable("a chunk of the session was lost while it was committed")
        .hint("repeat the push: what is still there is not sent again")
}

/// Ends a session whose step came to hold its very checkpoint in the meantime: a success that changes nothing.
pub(crate) async fn drop_unchanged(txn: &DatabaseTransaction, session_id: Uuid, revision_id: i64) -> ApiResult<()> {
    db::push_session::end(txn, session_id, PushSessionState::Committed, true, None).await?;
    db::push_session::detach(txn, session_id).await?;
    Ok(db::revision::delete(txn, revision_id).await?)
}

/// The manifest that a session's files make.
///
/// # Errors
/// 422 when they make none.
pub(crate) fn manifest_of(files: &[SessionFile]) -> ApiResult<Manifest> {
    let entry = |file: &SessionFile| FileEntry {
        path: file.path.clone(),
        size_bytes: file.size_bytes,
        digest: file.digest,
    };
    Manifest::new(files.iter().map(entry).collect()).map_err(|error| ApiError::unprocessable(error.to_string()))
}

async fn check_chunks(app: &App, caller: &Caller, files: &[SessionFile]) -> ApiResult<()> {
    let digests: Vec<Digest> = files
        .iter()
        .flat_map(|file| &file.chunks)
        .map(|chunk| chunk.digest)
        .collect();
    let held = possession::held_chunks(app, caller, &digests).await?;
    for file in files {
        for (at, chunk) in file.chunks.iter().enumerate() {
            let message = match held.get(&chunk.digest) {
                Some(size_bytes) if *size_bytes == chunk.size_bytes => continue,
                Some(size_bytes) => format!("has {size_bytes} bytes, the file's recipe says {}", chunk.size_bytes),
                None => "was not sent".to_owned(),
            };
            let message = format!("chunk {at} of file `{}` (`{}`) {message}", file.path, chunk.digest);
            return Err(
                ApiError::unprocessable(message).hint("send it, or the file with its right recipe, then commit")
            );
        }
    }
    Ok(())
}
