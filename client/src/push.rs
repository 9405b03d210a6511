//! Pushing a folder as a step: check it, then read, hash, ask what is missing and send it in one pass, commit, wait until it
//! is ready. Where the step is there already the folder is hashed first, so that the registry can say that it holds this
//! very checkpoint, or other bytes, before anything is sent (docs/adr/0008).
//!
//! Nothing is visible before the commit. Chunks that arrived stay known to the run, so the same call after any
//! interruption sends what is still missing and no more. How files are cut stands in `plan`, how they are read and hashed
//! in `pass`, how they are sent in `send`.
//!
//! Several processes that push one step together stand in `ranks`.
//!
//! **Invariant:** no call is made before everything that can be checked here was checked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fineline_api::{CreatePushSession, PushSession, PushSessionState, Reference, RunName};
use fineline_format::Digest;
use fineline_format::trainer_state::TrainerState;
use uuid::Uuid;

use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::folder::{self, LocalFile};
use crate::http::Client;
use crate::pass::{Cuts, pass};
use crate::plan::{self, Plan};
use crate::progress::{Meter, Phase, Progress};
use crate::send::{Sender, Sent};
use crate::trainer_state;

/// How long the server is asked to wait for the end of verification before it answers.
const VERIFY_WAIT_S: u64 = 25;
const VERIFY_PAUSE: Duration = Duration::from_millis(50);

/// What a push says of its step.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// Tokens trained on until this step. When absent, `tokens_seen` or `num_input_tokens_seen` of a
    /// `trainer_state.json` in the folder gives it, else the run's `tokens_per_step`.
    pub tokens: Option<u64>,
    /// Training loss at this step. When absent, `train_loss` or `loss` of a `trainer_state.json` gives it, else the last
    /// loss of its log.
    pub loss: Option<f64>,
    /// Another spelling of the step (`ckpt_100`), usable as a reference.
    pub label: Option<String>,
    /// Further facts by name.
    pub metadata: BTreeMap<String, String>,
    /// Tags to set when it becomes ready.
    pub tags: Vec<String>,
    /// Whether to make a new revision where the step holds other bytes.
    pub replace: bool,
}

/// What a push did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PushOutcome {
    /// The step.
    pub step: u64,
    /// The checkpoint's digest.
    pub digest: Digest,
    /// Whether the step held this very checkpoint before.
    pub unchanged: bool,
    /// Bytes of all files.
    pub size_bytes: u64,
    /// Raw bytes of the different chunks that the registry held already.
    pub held_bytes: u64,
    /// Bytes of the frames that were sent.
    pub sent_bytes: u64,
    /// Those of them that went straight to the registry's bucket.
    pub direct_bytes: u64,
    /// Chunks that were sent.
    pub sent_chunks: u64,
    /// What looked wrong without blocking, and which files were left out.
    pub warnings: Vec<String>,
    /// Why the checkpoint is stored and can't be evaluated, and what to do about it.
    pub not_evaluable: Option<String>,
}

/// A folder that was found to be in order.
pub(crate) struct Prepared {
    pub(crate) cuts: Cuts,
    pub(crate) size_bytes: u64,
    trainer: TrainerState,
    pub(crate) warnings: Vec<String>,
}

/// Pushes the files of `dir` as `step` and returns once the registry has read all of them back.
///
/// Hidden files and those whose names say that they are unfinished (`.tmp`, `.partial`) are left out, with a warning.
/// `progress` is called from several threads and should return quickly.
///
/// # Errors
/// [`Error::Folder`], [`Error::Format`] or [`Error::Changed`] when the folder can't be pushed as it is,
/// [`Error::StepExists`] when the step holds other bytes, [`Error::NotReady`] when the registry finds a fault in what
/// arrived, and what every call may give.
pub async fn push(
    client: &Client,
    run: &RunName,
    step: u64,
    dir: &Path,
    options: &PushOptions,
    progress: impl Fn(&Progress) + Send + Sync + 'static,
) -> Result<PushOutcome> {
    let folder = dir.to_owned();
    let mut prepared = blocking(move || prepare(&folder, plan::check)).await?;
    let mut request = describe(step, options, &mut prepared);
    fail_point!("push.checked");
    let is_there = match client.get_checkpoint(run, &Reference::Step(step)).await {
        Ok(_) => true,
        Err(Error::NotFound(_)) => false,
        Err(error) => return Err(error),
    };
    let phase = if is_there { Phase::Hashing } else { Phase::Sending };
    let mut meter = Meter::new(progress, phase, prepared.size_bytes);
    let mut known = None;
    if is_there {
        let plan = pass(&prepared.cuts, None, client.buffers(), &meter).await?;
        request.manifest_digest = Some(plan.manifest.digest());
        known = Some(plan);
        fail_point!("push.hashed");
    }
    let session = client.create_push_session(run, &request).await?;
    fail_point!("push.opened");
    let (plan, sent, session) = match known {
        Some(plan) if session.state != PushSessionState::Open => (plan, Sent::default(), session),
        known => {
            if is_there {
                meter = meter.next(Phase::Sending, prepared.size_bytes);
            }
            let sending = send(client, run, session.id, &prepared, known.as_ref(), &meter);
            match sending.await {
                Ok(done) => done,
                Err(error) => {
                    // Only a courtesy: a session that hears nothing expires. Where nothing gets through it would only wait.
                    if !matches!(error, Error::Connection { .. } | Error::Stalled { .. }) {
                        client.abort_push_session(run, session.id).await.ok();
                    }
                    return Err(error);
                }
            }
        }
    };
    meter.next(Phase::Verifying, 0);
    let session = settle(client, run, session).await?;
    let mut warnings = prepared.warnings;
    warnings.extend(session.warnings);
    Ok(PushOutcome {
        step,
        digest: plan.manifest.digest(),
        unchanged: session.unchanged,
        size_bytes: plan.manifest.size_bytes(),
        held_bytes: plan.chunk_bytes() - sent.raw_bytes,
        sent_bytes: sent.frame_bytes,
        direct_bytes: sent.direct_bytes,
        sent_chunks: sent.n_chunks,
        warnings,
        not_evaluable: session.not_evaluable,
    })
}

/// Sends what is missing in one pass, and commits it. With a `known` plan the folder must still be that.
async fn send(
    client: &Client,
    run: &RunName,
    session: Uuid,
    prepared: &Prepared,
    known: Option<&Plan>,
    meter: &Meter,
) -> Result<(Plan, Sent, PushSession)> {
    let (plan, sent) = send_files(client, run, session, prepared, known, meter).await?;
    fail_point!("push.sent");
    let session = client.commit_push_session(run, session, plan.manifest.digest()).await;
    fail_point!("push.committed");
    Ok((plan, sent, session?))
}

/// Sends what is missing in one pass, and names the files to the session; keeps it alive meanwhile.
pub(crate) async fn send_files(
    client: &Client,
    run: &RunName,
    session: Uuid,
    prepared: &Prepared,
    known: Option<&Plan>,
    meter: &Meter,
) -> Result<(Plan, Sent)> {
    let sender = Sender::new(client, run, session);
    let _heartbeat = sender.heartbeat();
    let plan = pass(&prepared.cuts, Some(&sender), client.buffers(), meter).await?;
    if let Some(known) = known {
        let pairs = known.files.iter().zip(&plan.files).zip(prepared.cuts.iter());
        for ((before, now), (local, _)) in pairs {
            if before.digest != now.digest {
                return Err(Error::Changed(local.location.clone()));
            }
        }
    }
    sender.add_files(&plan.files).await?;
    Ok((plan, sender.sent()))
}

/// All that needs no registry and not all bytes, with the `check` that the folder must pass; blocking.
pub(crate) fn prepare(dir: &Path, check: impl FnOnce(&[LocalFile]) -> Result<()>) -> Result<Prepared> {
    let folder = folder::walk(dir)?;
    let mut warnings = folder.left_out;
    check(&folder.files)?;
    let (trainer, unread) = trainer_state::read(&folder.files);
    warnings.extend(unread);
    Ok(Prepared {
        size_bytes: folder.files.iter().map(|file| file.size_bytes).sum(),
        cuts: Arc::new(plan::cut(folder.files)?),
        trainer,
        warnings,
    })
}

pub(crate) fn describe(step: u64, options: &PushOptions, prepared: &mut Prepared) -> CreatePushSession {
    if let Some(told) = prepared.trainer.step.filter(|told| *told != step) {
        let warning = format!("`trainer_state.json` says step `{told}`, it is pushed as step `{step}`");
        prepared.warnings.push(warning);
    }
    CreatePushSession {
        step,
        label: options.label.clone(),
        tokens: options.tokens.or(prepared.trainer.tokens),
        loss: options.loss.or(prepared.trainer.loss),
        metadata: options.metadata.clone(),
        tags: options.tags.clone(),
        replace: options.replace,
        ..CreatePushSession::default()
    }
}

/// Waits until a session has ended well.
pub(crate) async fn settle(client: &Client, run: &RunName, mut session: PushSession) -> Result<PushSession> {
    loop {
        match session.state {
            PushSessionState::Committed => return Ok(session),
            PushSessionState::Verifying => {
                // The server waits for us; this only keeps a loop from spinning where it can't.
                tokio::time::sleep(VERIFY_PAUSE).await;
                session = client.get_push_session(run, session.id, VERIFY_WAIT_S).await?;
            }
            ended => {
                let reason = match session.failure {
                    Some(failure) => failure.message,
                    None => "its push session ended before it was committed: push again".to_owned(),
                };
                return Err(Error::NotReady {
                    step: session.step,
                    state: ended.as_str(),
                    reason,
                });
            }
        }
    }
}
