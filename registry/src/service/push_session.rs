//! Push sessions: opening, filling, ending. Nothing of one is visible before its checkpoint is ready; committing stands
//! in `commit`, sharing one by name in `join`.

use fineline_api::error::{ErrorCode, ErrorDetail};
use fineline_api::reference::{LATEST, check_given_name, check_name};
use fineline_api::{CheckpointFile, CreatePushSession, PushSession, PushSessionState, Reference};
use fineline_format::manifest::MAX_FILES;
use fineline_format::{Digest, check_path};
use sea_orm::DatabaseTransaction;
use uuid::Uuid;

use crate::app::App;
use crate::db;
use crate::db::push_session::{NewSession, SessionFile, SessionRow};
use crate::db::revision::NewRevision;
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::recipe;
use crate::service::{checkpoint, join};

/// The most of anything that a push may say besides its files.
const MAX_METADATA_BYTES: usize = 16 << 10;

/// Opens a session, or goes on with the unfinished one for the same step and manifest. A step that holds the manifest
/// already answers `committed` at once and nothing changes, unless stored bytes of it are damaged: then the session
/// takes them again.
///
/// # Errors
/// 400 for what breaks a bound, 409 when the step holds other bytes and `replace` is not said, or a name is taken.
pub(crate) async fn create(app: &App, run: &RunRow, new: CreatePushSession) -> ApiResult<PushSession> {
    check_request(&new)?;
    let (step, manifest_digest) = (new.step, new.manifest_digest);
    let is_whole = match &manifest_digest {
        Some(manifest) => checkpoint::is_whole(app, manifest).await?,
        None => false,
    };
    let txn = db::write_txn(&app.db).await?;
    // What pushes for long, as a source does, found the run long ago.
    if db::run::is_deleted(&txn, run.id).await? {
        return Err(ApiError::not_found(format!("run `{}`", run.name)));
    }
    check_names(&txn, run, &new).await?;
    if let Some(name) = new.session_name.clone() {
        let session = join::join(&txn, run, name, new).await?;
        txn.commit().await?;
        return describe(app, run, session).await;
    }
    let current = db::revision::current(&txn, run.id, step).await?;
    let session = match (current, manifest_digest) {
        (Some(row), Some(manifest)) if row.checkpoint == Some(manifest) && is_whole => {
            let done = NewSession {
                run_id: run.id,
                revision_id: None,
                step,
                name: None,
                state: PushSessionState::Committed,
                unchanged: true,
                manifest_digest,
            };
            db::push_session::insert(&txn, done).await?
        }
        (Some(row), Some(manifest)) if row.checkpoint != Some(manifest) && !new.replace => {
            return Err(step_exists(run, step));
        }
        _ => open_or_resume(&txn, run, new).await?,
    };
    txn.commit().await?;
    describe(app, run, session).await
}

async fn open_or_resume(txn: &DatabaseTransaction, run: &RunRow, new: CreatePushSession) -> ApiResult<SessionRow> {
    let (step, manifest_digest) = (new.step, new.manifest_digest);
    let revision = new_revision(run, new);
    if let Some(manifest) = &manifest_digest
        && let Some(session) = db::push_session::find_unfinished(txn, run.id, step, manifest).await?
    {
        if let Some(id) = session.revision_id {
            db::revision::update(txn, id, &revision).await?;
        }
        db::push_session::touch(txn, session.id, 0, 0).await?;
        return Ok(session);
    }
    let revision = db::revision::insert(txn, revision).await?;
    let session = NewSession {
        run_id: run.id,
        revision_id: Some(revision.id),
        step,
        name: None,
        state: PushSessionState::Open,
        unchanged: false,
        manifest_digest,
    };
    Ok(db::push_session::insert(txn, session).await?)
}

/// What a push says of its step.
pub(crate) fn new_revision(run: &RunRow, new: CreatePushSession) -> NewRevision {
    let per_step = run.attributes.tokens_per_step;
    NewRevision {
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
    }
}

/// Checks the names that the step will bear against those that the run has.
async fn check_names(txn: &DatabaseTransaction, run: &RunRow, new: &CreatePushSession) -> ApiResult<()> {
    for tag in &new.tags {
        if db::tag::is_release(txn, run.id, tag).await? {
            let message = format!("`{tag}` is a release of run `{}` and can't be a tag", run.name);
            return Err(ApiError::new(ErrorCode::Conflict, message).hint("choose another tag"));
        }
    }
    if let Some(label) = &new.label
        && let Some(step) = db::revision::other_step_of_label(txn, run.id, label, new.step).await?
    {
        let message = format!("label `{label}` is step {step} of run `{}`", run.name);
        return Err(ApiError::new(ErrorCode::Conflict, message).hint("choose another label"));
    }
    Ok(())
}

fn check_request(new: &CreatePushSession) -> ApiResult<()> {
    if i64::try_from(new.step).is_err() || new.tokens.is_some_and(|tokens| i64::try_from(tokens).is_err()) {
        return Err(ApiError::invalid(format!(
            "step `{}` or its tokens are beyond 2^63",
            new.step
        )));
    }
    match &new.session_name {
        Some(name) => check_name("session name", name).map_err(ApiError::invalid)?,
        None if new.join_only => return Err(ApiError::invalid("only a session with a name can be joined")),
        None => {}
    }
    if let (Some(name), Some(_)) = (&new.session_name, &new.manifest_digest) {
        return Err(ApiError::invalid(format!(
            "session `{name}` is of several ranks and has no manifest before its commit"
        )));
    }
    if new.loss.is_some_and(|loss| !loss.is_finite()) {
        return Err(ApiError::invalid("loss must be a finite number"));
    }
    if let Some(label) = &new.label {
        check_label(label, new.step)?;
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

/// A label is a spelling of its own step and of nothing else.
///
/// # Errors
/// 400 for one that already means something else.
pub(crate) fn check_label(label: &str, step: u64) -> ApiResult<()> {
    check_name("label", label).map_err(ApiError::invalid)?;
    match label.parse() {
        Ok(Reference::Step(named)) if named == step => Ok(()),
        Ok(Reference::Name(name)) if name != LATEST => Ok(()),
        _ => Err(ApiError::invalid(format!(
            "label `{label}` is refused for step {step}: it already means something else"
        ))),
    }
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
    match (&session.name, session.state) {
        (_, PushSessionState::Open) => Ok(session),
        (Some(name), state) => Err(join::closed(name, id, state)),
        (None, _) => Err(not_open(id)),
    }
}

/// A session of the run.
///
/// # Errors
/// 404 when there is none of that id.
pub(crate) async fn find(app: &App, run: &RunRow, id: Uuid) -> ApiResult<SessionRow> {
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

/// A session as the API shows it.
pub(crate) async fn describe(app: &App, run: &RunRow, session: SessionRow) -> ApiResult<PushSession> {
    let conn = app.db.reader();
    let (mut warnings, mut not_evaluable) = (Vec::new(), None);
    if session.state == PushSessionState::Committed {
        let revision = match session.revision_id {
            Some(id) => Some(db::revision::get(conn, id).await?),
            None => db::revision::current(conn, run.id, session.step).await?,
        };
        if let Some(revision) = revision {
            let digests: Vec<Digest> = revision.checkpoint.into_iter().collect();
            let contents = db::checkpoint::find_many(conn, &digests).await?;
            not_evaluable = contents
                .values()
                .find_map(|content| checkpoint::not_evaluable(&revision, content));
            if session.revision_id.is_some() {
                warnings = revision.warnings;
            }
        }
    }
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
        session_name: session.name,
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
        not_evaluable,
        created_at: chrono::DateTime::from_timestamp_millis(session.created_at_ms).unwrap_or_default(),
    })
}

/// The files of a session without their recipes, by path.
///
/// # Errors
/// 404 when there is none of that id.
pub(crate) async fn files(app: &App, run: &RunRow, id: Uuid) -> ApiResult<Vec<CheckpointFile>> {
    find(app, run, id).await?;
    let files = db::push_session::files(app.db.reader(), id).await?;
    let describe = |file: SessionFile| CheckpointFile {
        path: file.path,
        size_bytes: file.size_bytes,
        digest: file.digest,
        chunks: Vec::new(),
    };
    Ok(files.into_iter().map(describe).collect())
}

/// Gives a session a file with its recipe.
///
/// # Errors
/// 422 for a path or a recipe that breaks a rule, 404 / 409 for the session, 409 where another rank added other bytes.
pub(crate) async fn add_file(app: &App, run: &RunRow, id: Uuid, file: CheckpointFile) -> ApiResult<()> {
    let session = find_open(app, run, id).await?;
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
    join::check_file(&txn, &session, &file).await?;
    db::push_session::put_file(&txn, id, &file).await?;
    if db::push_session::count_files(&txn, id).await? > MAX_FILES as u64 {
        return Err(ApiError::unprocessable(format!(
            "a checkpoint has at most {MAX_FILES} files: pack the small ones"
        )));
    }
    Ok(txn.commit().await?)
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
