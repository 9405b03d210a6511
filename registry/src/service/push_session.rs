//! Push sessions: opening, filling, committing. Nothing of one is visible before its checkpoint is ready.

use fineline_api::error::{ErrorCode, ErrorDetail};
use fineline_api::reference::{check_given_name, check_name};
use fineline_api::{CheckpointFile, CreatePushSession, PushSession, PushSessionState};
use fineline_format::manifest::MAX_FILES;
use fineline_format::{Digest, FileEntry, Manifest, check_path};
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::push_session::{NewSession, SessionFile, SessionRow};
use crate::db::revision::NewRevision;
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::recipe;
use crate::service::possession;

/// The most of anything that a push may say besides its files.
const MAX_METADATA_BYTES: usize = 16 << 10;

/// Opens a session, or goes on with the open one for the same step and manifest. A step that holds the manifest already
/// answers `committed` at once and nothing changes.
///
/// # Errors
/// 400 for what breaks a bound, 409 when the step holds other bytes and `replace` is not said.
pub(crate) async fn create(app: &App, run: &RunRow, new: CreatePushSession) -> ApiResult<PushSession> {
    check_request(&new)?;
    let txn = db::write_txn(&app.db).await?;
    for tag in &new.tags {
        if db::tag::is_release(&txn, run.id, tag).await? {
            let message = format!("`{tag}` is a release of run `{}` and can't be a tag", run.name);
            return Err(ApiError::new(ErrorCode::Conflict, message).hint("choose another tag"));
        }
    }
    if let Some(manifest) = &new.manifest_digest {
        let held = db::revision::current(&txn, run.id, new.step).await?;
        let session = if held.as_ref().is_some_and(|row| row.checkpoint == Some(*manifest)) {
            let done = NewSession {
                run_id: run.id,
                revision_id: None,
                step: new.step,
                state: PushSessionState::Committed,
                unchanged: true,
                manifest_digest: new.manifest_digest,
            };
            Some(db::push_session::insert(&txn, done).await?)
        } else if held.is_some() && !new.replace {
            return Err(step_exists(run, new.step));
        } else {
            db::push_session::find_open(&txn, run.id, new.step, manifest).await?
        };
        if let Some(session) = session {
            db::push_session::touch(&txn, session.id, 0, 0).await?;
            txn.commit().await?;
            return describe(app, run, session).await;
        }
    }
    let per_step = run.attributes.tokens_per_step;
    let revision = NewRevision {
        run_id: run.id,
        step: new.step,
        label: new.label,
        tokens: new
            .tokens
            .or_else(|| per_step.and_then(|tokens| tokens.checked_mul(new.step))),
        loss: new.loss,
        metadata: new.metadata,
        tags: new.tags,
        replace: new.replace,
    };
    let revision = db::revision::insert(&txn, revision).await?;
    let session = NewSession {
        run_id: run.id,
        revision_id: Some(revision.id),
        step: new.step,
        state: PushSessionState::Open,
        unchanged: false,
        manifest_digest: new.manifest_digest,
    };
    let session = db::push_session::insert(&txn, session).await?;
    txn.commit().await?;
    describe(app, run, session).await
}

fn check_request(new: &CreatePushSession) -> ApiResult<()> {
    if i64::try_from(new.step).is_err() || new.tokens.is_some_and(|tokens| i64::try_from(tokens).is_err()) {
        return Err(ApiError::invalid(format!(
            "step `{}` or its tokens are beyond 2^63",
            new.step
        )));
    }
    if new.loss.is_some_and(|loss| !loss.is_finite()) {
        return Err(ApiError::invalid("loss must be a finite number"));
    }
    if let Some(label) = &new.label {
        check_name("label", label).map_err(ApiError::invalid)?;
    }
    for tag in &new.tags {
        check_given_name("tag", tag).map_err(ApiError::invalid)?;
    }
    let metadata: usize = new.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    if metadata > MAX_METADATA_BYTES || new.tags.len() > 100 {
        return Err(ApiError::invalid("a push may say 16 KiB of metadata and 100 tags"));
    }
    Ok(())
}

/// 409 for a step that holds other bytes.
pub(crate) fn step_exists(run: &RunRow, step: u64) -> ApiError {
    let message = format!("step {step} of run `{}` holds other bytes", run.name);
    ApiError::new(ErrorCode::StepExists, message)
        .hint("push with `--replace` to make a new revision; the old one stays readable by its digest")
}

/// 409 for a session that takes nothing more.
pub(crate) fn not_open(id: Uuid) -> ApiError {
    ApiError::new(ErrorCode::Conflict, format!("push session `{id}` is not open any more"))
        .hint("repeat the push: what arrived is not sent again")
}

/// An open session of the run.
///
/// # Errors
/// 404 when there is none of that id, 409 when it is not open.
pub(crate) async fn find_open(app: &App, run: &RunRow, id: Uuid) -> ApiResult<SessionRow> {
    let session = find(app, run, id).await?;
    if session.state == PushSessionState::Open {
        Ok(session)
    } else {
        Err(not_open(id))
    }
}

async fn find(app: &App, run: &RunRow, id: Uuid) -> ApiResult<SessionRow> {
    let session = db::push_session::find(app.db.reader(), run.id, id).await?;
    session.ok_or_else(|| ApiError::not_found(format!("push session `{id}` in run `{}`", run.name)))
}

/// A session as the API shows it; waits up to `wait` for it to leave `verifying`.
///
/// # Errors
/// 404 when there is none of that id.
pub(crate) async fn get(app: &App, run: &RunRow, id: Uuid, wait: std::time::Duration) -> ApiResult<PushSession> {
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        let changed = app.changed.notified();
        let session = find(app, run, id).await?;
        if session.state != PushSessionState::Verifying || tokio::time::Instant::now() >= deadline {
            return describe(app, run, session).await;
        }
        // Another replica may be the one who verifies, so the database is looked at again without being woken too.
        let look_again = (tokio::time::Instant::now() + std::time::Duration::from_secs(1)).min(deadline);
        let _ = tokio::time::timeout_at(look_again, changed).await;
    }
}

async fn describe(app: &App, run: &RunRow, session: SessionRow) -> ApiResult<PushSession> {
    let conn = app.db.reader();
    let warnings = match session.revision_id {
        Some(id) if session.state == PushSessionState::Committed => db::revision::get(conn, id).await?.warnings,
        _ => Vec::new(),
    };
    let failure: Option<ErrorDetail> = session
        .failure
        .as_deref()
        .map(serde_json::from_str)
        .transpose()
        .map_err(ApiError::internal)?;
    Ok(PushSession {
        id: session.id,
        run: run.name.clone(),
        step: session.step,
        state: session.state,
        unchanged: session.unchanged,
        digest: session
            .manifest_digest
            .filter(|_| session.state != PushSessionState::Open),
        n_files: db::push_session::count_files(conn, session.id).await?,
        n_received_chunks: session.received_chunks,
        received_bytes: session.received_bytes,
        failure,
        warnings,
        created_at: chrono::DateTime::from_timestamp_millis(session.created_at_ms).unwrap_or_default(),
    })
}

/// Gives a session a file with its recipe.
///
/// # Errors
/// 422 for a path or a recipe that breaks a rule, 404 / 409 for the session.
pub(crate) async fn add_file(app: &App, run: &RunRow, id: Uuid, file: CheckpointFile) -> ApiResult<()> {
    find_open(app, run, id).await?;
    check_path(&file.path).map_err(|error| ApiError::unprocessable(error.to_string()))?;
    recipe::check(&file.path, file.size_bytes, &file.chunks).map_err(ApiError::unprocessable)?;
    if file.size_bytes == 0 && file.digest != Digest::of(b"") {
        let message = format!("file `{}` is empty and has another digest than nothing has", file.path);
        return Err(ApiError::new(ErrorCode::DigestMismatch, message));
    }
    let file = SessionFile {
        path: file.path,
        digest: file.digest,
        size_bytes: file.size_bytes,
        chunks: file.chunks,
    };
    let txn = db::write_txn(&app.db).await?;
    if !db::push_session::touch(&txn, id, 0, 0).await? {
        return Err(not_open(id));
    }
    db::push_session::put_file(&txn, id, &file).await?;
    if db::push_session::count_files(&txn, id).await? > MAX_FILES as u64 {
        return Err(ApiError::unprocessable(format!(
            "a checkpoint has at most {MAX_FILES} files: pack the small ones"
        )));
    }
    Ok(txn.commit().await?)
}

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
    if session.state != PushSessionState::Open {
        return Err(not_open(id));
    }
    let files = db::push_session::files(app.db.reader(), id).await?;
    let manifest = manifest_of(&files)?;
    let found = manifest.digest();
    if found != meant {
        let n = files.len();
        let message = format!("the session's {n} files make the manifest `{found}`, the commit means `{meant}`");
        return Err(ApiError::unprocessable(message).hint("a file of another rank may be missing: add it, then commit"));
    }
    check_chunks(app, caller, &files).await?;
    let revision_id = session
        .revision_id
        .ok_or_else(|| ApiError::internal("an open session has no revision"))?;
    let txn = db::write_txn(&app.db).await?;
    let revision = db::revision::get(&txn, revision_id).await?;
    if let Some(current) = db::revision::current(&txn, run.id, session.step).await? {
        if current.checkpoint == Some(meant) {
            db::push_session::set_manifest(&txn, id, &meant).await?;
            db::push_session::end(&txn, id, PushSessionState::Committed, true, None).await?;
            db::push_session::detach(&txn, id).await?;
            db::revision::delete(&txn, revision_id).await?;
            txn.commit().await?;
            return describe(app, run, find(app, run, id).await?).await;
        }
        if !revision.replace {
            return Err(step_exists(run, session.step));
        }
    }
    db::push_session::set_manifest(&txn, id, &meant).await?;
    let moved = db::push_session::set_state(&txn, id, PushSessionState::Open, PushSessionState::Verifying).await?;
    if !moved || !db::revision::set_verifying(&txn, revision_id, &meant).await? {
        return Err(not_open(id));
    }
    txn.commit().await?;
    app.changed.notify_waiters();
    describe(app, run, find(app, run, id).await?).await
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
        if let Some(at) = file.chunks.iter().position(|chunk| !held.contains(&chunk.digest)) {
            let digest = file.chunks[at].digest;
            let message = format!("chunk {at} of file `{}` (`{digest}`) was not sent", file.path);
            return Err(ApiError::unprocessable(message).hint("send it, then commit again"));
        }
    }
    Ok(())
}

/// Keeps a session from expiring.
///
/// # Errors
/// 404 / 409 for the session.
pub(crate) async fn heartbeat(app: &App, run: &RunRow, id: Uuid) -> ApiResult<()> {
    find_open(app, run, id).await?;
    let txn = db::write_txn(&app.db).await?;
    if !db::push_session::touch(&txn, id, 0, 0).await? {
        return Err(not_open(id));
    }
    Ok(txn.commit().await?)
}

/// Ends an open session without a checkpoint, as `to`: what arrived stays possessed, so that a later push resumes.
///
/// # Errors
/// 404 / 409 for the session.
pub(crate) async fn abandon(app: &App, session: &SessionRow, to: PushSessionState) -> ApiResult<()> {
    let txn = db::write_txn(&app.db).await?;
    if !db::push_session::set_state(&txn, session.id, PushSessionState::Open, to).await? {
        return Err(not_open(session.id));
    }
    if let Some(revision_id) = session.revision_id {
        db::push_session::detach(&txn, session.id).await?;
        db::revision::delete(&txn, revision_id).await?;
    }
    txn.commit().await?;
    app.changed.notify_waiters();
    Ok(())
}
