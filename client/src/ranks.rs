//! One step from several processes: the ranks of a job share the name of a push session. Each adds the files of its own
//! folder ([`push_part`]); after the job's barrier one commits them all ([`commit_parts`]).
//!
//! **Invariant:** each of these calls can be repeated after any interruption, before and after the commit; what arrived
//! is not sent again. None of them ends the session of the others but [`commit_parts`] and [`abort_parts`].

use std::collections::BTreeMap;
use std::path::Path;

use fineline_api::{CheckpointFile, CreatePushSession, PushSession, PushSessionState, RunName};
use fineline_format::{Digest, FileEntry, Manifest};
use uuid::Uuid;

use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::http::Client;
use crate::pass::pass;
use crate::plan::{self, Plan};
use crate::progress::{Meter, Phase, Progress};
use crate::push::{PushOptions, PushOutcome, describe, prepare, send_files, settle};
use crate::send::Sent;

/// What one process added.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PartOutcome {
    /// The step.
    pub step: u64,
    /// The name that the processes share.
    pub session_name: String,
    /// The session.
    pub session: Uuid,
    /// Where the session stands: `open`, or further when it was committed with these files already.
    pub state: PushSessionState,
    /// Files of this process.
    pub n_files: u64,
    /// Files that the session has by now, of all processes.
    pub n_session_files: u64,
    /// Bytes of this process's files.
    pub size_bytes: u64,
    /// Raw bytes of its different chunks that the registry held already.
    pub held_bytes: u64,
    /// Bytes of the frames that were sent.
    pub sent_bytes: u64,
    /// Chunks that were sent.
    pub sent_chunks: u64,
    /// Which files were left out, and what looked wrong without blocking.
    pub warnings: Vec<String>,
}

/// Adds the files of `dir` to the push session that all who say `session_name` for this step share, and opens it when
/// there is none. Nothing is visible before [`commit_parts`]. What the processes say in `options` adds up.
///
/// # Errors
/// [`Error::Conflict`] when another process added other bytes at the same path or the session ended meanwhile,
/// [`Error::NotReady`] when it was committed without these files; else as [`crate::push`].
pub async fn push_part(
    client: &Client,
    run: &RunName,
    step: u64,
    session_name: &str,
    dir: &Path,
    options: &PushOptions,
    progress: impl Fn(&Progress) + Send + Sync + 'static,
) -> Result<PartOutcome> {
    let folder = dir.to_owned();
    // An index may name the shards of other processes, so only the files themselves are checked.
    let mut prepared = blocking(move || prepare(&folder, plan::check_part)).await?;
    let request = CreatePushSession {
        session_name: Some(session_name.to_owned()),
        ..describe(step, options, &mut prepared)
    };
    fail_point!("push.checked");
    let session = client.create_push_session(run, &request).await?;
    fail_point!("push.opened");
    let (plan, sent) = if session.state == PushSessionState::Open {
        let meter = Meter::new(progress, Phase::Sending, prepared.size_bytes);
        send_files(client, run, session.id, &prepared, None, &meter).await?
    } else {
        let meter = Meter::new(progress, Phase::Hashing, prepared.size_bytes);
        let plan = pass(&prepared.cuts, None, client.buffers(), &meter).await?;
        (plan, Sent::default())
    };
    let there = client.list_push_session_files(run, session.id).await?;
    check_held(session_name, &session, &there, &plan)?;
    Ok(PartOutcome {
        step,
        session_name: session_name.to_owned(),
        session: session.id,
        state: session.state,
        n_files: plan.files.len() as u64,
        n_session_files: there.len() as u64,
        size_bytes: plan.manifest.size_bytes(),
        held_bytes: plan.chunk_bytes() - sent.raw_bytes,
        sent_bytes: sent.frame_bytes,
        sent_chunks: sent.n_chunks,
        warnings: prepared.warnings,
    })
}

/// Finds out that a session, which may have been committed by another process, has all of these files.
fn check_held(name: &str, session: &PushSession, there: &[CheckpointFile], plan: &Plan) -> Result<()> {
    let there: BTreeMap<&str, Digest> = there.iter().map(|file| (file.path.as_str(), file.digest)).collect();
    for file in &plan.files {
        if there.get(file.path.as_str()) != Some(&file.digest) {
            let (path, step, state) = (&file.path, session.step, session.state);
            return Err(Error::NotReady {
                step,
                state: state.as_str(),
                reason: format!(
                    "push session `{name}` does not have this `{path}`: put a barrier before the commit, and push all \
                     files again under another session name with replace (`--replace`)"
                ),
            });
        }
    }
    Ok(())
}

/// Commits what all processes added and returns once the registry has read all of it back. With `n_files` it refuses
/// when the session has fewer or more.
///
/// # Errors
/// [`Error::NotFound`] when there is no session of that name, [`Error::NotReady`] when it has another number of files,
/// else as [`crate::push`].
pub async fn commit_parts(
    client: &Client,
    run: &RunName,
    step: u64,
    session_name: &str,
    n_files: Option<u64>,
    options: &PushOptions,
) -> Result<PushOutcome> {
    let request = CreatePushSession {
        tokens: options.tokens,
        loss: options.loss,
        label: options.label.clone(),
        metadata: options.metadata.clone(),
        tags: options.tags.clone(),
        replace: options.replace,
        ..named(step, session_name)
    };
    let mut session = client.create_push_session(run, &request).await?;
    let files = client.list_push_session_files(run, session.id).await?;
    let n = files.len() as u64;
    if let Some(wanted) = n_files.filter(|wanted| *wanted != n) {
        return Err(Error::NotReady {
            step,
            state: session.state.as_str(),
            reason: format!(
                "push session `{session_name}` has {n} files and {wanted} are wanted: wait until every process has \
                 pushed its own, then commit"
            ),
        });
    }
    let entries = files.into_iter().map(|file| FileEntry {
        path: file.path,
        size_bytes: file.size_bytes,
        digest: file.digest,
    });
    let manifest = Manifest::new(entries.collect())?;
    let already = session.state != PushSessionState::Open;
    if !already {
        session = client.commit_push_session(run, session.id, manifest.digest()).await?;
        fail_point!("push.committed");
    }
    let session = settle(client, run, session).await?;
    Ok(PushOutcome {
        step,
        digest: manifest.digest(),
        unchanged: session.unchanged || already,
        size_bytes: manifest.size_bytes(),
        held_bytes: manifest.size_bytes(),
        sent_bytes: 0,
        direct_bytes: 0,
        sent_chunks: 0,
        warnings: session.warnings,
        not_evaluable: session.not_evaluable,
    })
}

/// Takes the session of that name back; what arrived is not sent again by a later push.
///
/// # Errors
/// [`Error::NotFound`] when there is none, [`Error::Conflict`] when it was committed.
pub async fn abort_parts(client: &Client, run: &RunName, step: u64, session_name: &str) -> Result<Uuid> {
    let session = client.create_push_session(run, &named(step, session_name)).await?;
    client.abort_push_session(run, session.id).await?;
    Ok(session.id)
}

/// Joins the session of that name and opens none.
fn named(step: u64, session_name: &str) -> CreatePushSession {
    CreatePushSession {
        step,
        session_name: Some(session_name.to_owned()),
        join_only: true,
        ..CreatePushSession::default()
    }
}
