//! Bringing one checkpoint of a source in: a push session whose files come from there, small ones first, then the commit that
//! every push ends with. What the files say of the step (index, trainer's state) is read back from the store.
//!
//! **Invariant:** the session's name follows from what comes in, so whoever does this again, after a crash at any point, goes
//! on in the same session, and a checkpoint that came in is not brought a second time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::file::FileRow;
use crate::db::revision::{SOURCE, SOURCE_LOCATION, SOURCE_PLACE};
use crate::db::run::RunRow;
use crate::db::source::SourceRow;
use crate::db::source_file::FileRead;
use crate::error::ApiError;
use crate::service::fetch::{Destination, fetch};
use crate::service::ingest_error::IngestError;
use crate::service::source_claim::Claim;
use crate::service::{commit, content, possession, push_session, shipped};
use crate::source::plan::Planned;
use crate::source::{Object, Origin};
use fineline_api::error::ErrorCode;
use fineline_api::{CheckpointFile, CreatePushSession, PushSession, PushSessionState, SourceLocation};
use fineline_format::trainer_state::{self, TrainerState};
use fineline_format::weights::{MAX_INDEX_BYTES, index_path, weight_files};
use fineline_format::{Digest, FileEntry, Hasher, Manifest};
use tokio::time::Instant;

/// Files up to this size come before the others: what an index names shows before a shard is read.
const SMALL_BYTES: u64 = 64 << 20;

/// How long a verification is waited for before the next checkpoint comes in.
const WAIT_FOR: Duration = Duration::from_secs(30);

/// The most of a digest that names a session.
const NAME_HEX: usize = 32;

/// The push session of a checkpoint whose files are all there.
#[derive(Debug)]
pub(crate) struct Pushed {
    /// Being verified, or ended.
    pub(crate) session: PushSession,
    warnings: Vec<String>,
}

/// What came in.
#[derive(Debug)]
pub(crate) struct Brought {
    pub(crate) checkpoint: Digest,
    pub(crate) warnings: Vec<String>,
}

/// What was committed of a checkpoint before, when it is not known what became of it.
///
/// # Errors
/// Of the database.
pub(crate) async fn pushed(claim: &Claim, run: &RunRow, planned: &Planned) -> Result<Option<Pushed>, IngestError> {
    let name = session_name(&claim.source, planned);
    let step = planned.step.unwrap_or_default();
    let session = db::push_session::newest_named(claim.app.db.reader(), run.id, step, &name).await?;
    let Some(session) = session.filter(|session| session.state != PushSessionState::Open) else {
        return Ok(None);
    };
    Ok(Some(Pushed {
        session: push_session::describe(&claim.app, run, session).await?,
        warnings: Vec::new(),
    }))
}

/// Fetches a checkpoint and commits it; after `deadline` no further large file is begun. A step that is there with other bytes is replaced only where they came of the same
/// place.
///
/// # Errors
/// [`IngestError::Waiting`] when its index names what is not there, [`IngestError::Wrong`] when the step holds what did not
/// come from here, [`IngestError::Later`] after the deadline.
pub(crate) async fn push(
    claim: &Claim,
    run: &RunRow,
    origin: &Arc<Origin>,
    planned: &Planned,
    deadline: Instant,
) -> Result<Pushed, IngestError> {
    let Claim { app, source, .. } = claim;
    check_free(app, source, run, planned).await?;
    let caller = Caller::of_source(&run.name, source.created_at_ms);
    let (mut new, mut warnings) = new_session(app, source, run, planned).await?;
    let session = push_session::create(app, run, new.clone()).await?;
    if session.state != PushSessionState::Open {
        return Ok(Pushed { session, warnings });
    }
    let to = Destination {
        source_id: source.id,
        run_id: run.id,
        session: session.id,
        place: planned.place.clone(),
        caller,
    };
    let committed = async {
        let (manifest, disagrees) = fill(app, &to, run, origin, planned, &mut new, deadline).await?;
        warnings.extend(disagrees);
        claim.renew().await?;
        fail_point!("ingest.before_commit");
        match commit::commit(app, &to.caller, run, to.session, manifest).await {
            Err(error) if error.code() == ErrorCode::StepExists => Err(taken(run, planned)),
            committed => Ok(committed?),
        }
    };
    match committed.await {
        Ok(session) => Ok(Pushed { session, warnings }),
        Err(error @ (IngestError::Waiting(_) | IngestError::Wrong(_))) => {
            give_up(app, run, &session).await;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// What became of a pushed checkpoint, whichever server verifies it; `None` when that takes longer than one waits.
///
/// # Errors
/// [`IngestError::Wrong`] when it was verified and is none.
pub(crate) async fn outcome(claim: &Claim, run: &RunRow, pushed: Pushed) -> Result<Option<Brought>, IngestError> {
    let Claim { app, source, .. } = claim;
    let ended = match pushed.session.state {
        PushSessionState::Verifying => push_session::get(app, run, pushed.session.id, WAIT_FOR).await?,
        _ => pushed.session,
    };
    let checkpoint = match (ended.state, ended.digest) {
        (PushSessionState::Verifying, _) => return Ok(None),
        (PushSessionState::Committed, Some(digest)) => digest,
        _ => {
            let why = ended
                .failure
                .map_or_else(|| ended.state.to_string(), |failure| failure.message);
            return Err(IngestError::Wrong(format!("its verification ended: {why}")));
        }
    };
    let caller = Caller::of_source(&run.name, source.created_at_ms);
    let mut warnings = ended.warnings;
    warnings.extend(pushed.warnings);
    warnings.extend(ended.not_evaluable.map(|why| format!("it is not evaluated: {why}")));
    warnings.extend(shipped::take_scores(app, &caller, run, checkpoint).await?);
    fail_point!("ingest.brought");
    Ok(Some(Brought { checkpoint, warnings }))
}

/// Refuses a checkpoint of which is known, before it is read, that its step holds other bytes from elsewhere.
async fn check_free(app: &App, source: &SourceRow, run: &RunRow, planned: &Planned) -> Result<(), IngestError> {
    let step = planned.step.unwrap_or_default();
    let Some(current) = db::revision::current(app.db.reader(), run.id, step).await? else {
        return Ok(());
    };
    if current.came_of(&origin_of(source, planned)) {
        return Ok(());
    }
    let held = possession::manifest(app, &current).await?;
    let is_held = |file: &Object| {
        held.get(&file.path).is_some_and(|there| {
            there.size_bytes == file.size_bytes && file.sha256.is_none_or(|said| said == there.digest)
        })
    };
    if held.files().len() == planned.files.len() && planned.files.iter().all(is_held) {
        return Ok(());
    }
    Err(taken(run, planned))
}

fn taken(run: &RunRow, planned: &Planned) -> IngestError {
    let (step, run, name) = (planned.step.unwrap_or_default(), &run.name, &planned.name);
    IngestError::Wrong(format!(
        "step {step} of run `{run}` holds other bytes, which did not come from here: delete the step to take these, or leave \
         `{name}` out with `--select`"
    ))
}

/// Where a checkpoint comes from, as its revision's metadata say it. The place of a Hub names the repository.
fn origin_of(source: &SourceRow, planned: &Planned) -> BTreeMap<String, String> {
    let server = match &source.definition.location {
        SourceLocation::Hub { endpoint, .. } => endpoint.clone().unwrap_or_default(),
        location => serde_json::to_string(location).unwrap_or_default(),
    };
    BTreeMap::from([
        (SOURCE.to_owned(), source.definition.name.clone()),
        // By digest: whoever reads the run need not know the server's folders.
        (SOURCE_LOCATION.to_owned(), Digest::of(server.as_bytes()).to_hex()),
        (SOURCE_PLACE.to_owned(), planned.place.clone()),
    ])
}

/// What a checkpoint's session is called: the same whoever brings the same files of the same place.
fn session_name(source: &SourceRow, planned: &Planned) -> String {
    let mut hasher = Hasher::new();
    for (_, part) in origin_of(source, planned) {
        hasher.update(part.as_bytes());
        hasher.update(b"\0");
    }
    hasher.update(planned.fingerprint().as_bytes());
    format!("source-{}", &hasher.finish().to_hex()[..NAME_HEX])
}

/// What a checkpoint's session is opened with, and what looks wrong of it.
async fn new_session(
    app: &App,
    source: &SourceRow,
    run: &RunRow,
    planned: &Planned,
) -> Result<(CreatePushSession, Vec<String>), IngestError> {
    let step = planned.step.unwrap_or_default();
    let mut warnings = Vec::new();
    let label = planned.name.trim_end_matches('/').to_owned();
    let mut label = Some(label).filter(|label| push_session::check_label(label, step).is_ok());
    if let Some(name) = &label
        && let Some(other) = db::revision::other_step_of_label(app.db.reader(), run.id, name, step).await?
    {
        warnings.push(format!("label `{name}` is step {other} already: this step has none"));
        label = None;
    }
    let mut metadata = origin_of(source, planned);
    metadata.insert("source_version".to_owned(), planned.version.clone());
    let new = CreatePushSession {
        step,
        label,
        tokens: planned.tokens,
        metadata,
        session_name: Some(session_name(source, planned)),
        ..CreatePushSession::default()
    };
    Ok((new, warnings))
}

/// Fetches the files of a checkpoint into its session; gives the manifest that they make, and how they disagree with its name.
async fn fill(
    app: &App,
    to: &Destination,
    run: &RunRow,
    origin: &Arc<Origin>,
    planned: &Planned,
    new: &mut CreatePushSession,
    deadline: Instant,
) -> Result<(Digest, Option<String>), IngestError> {
    let (small, large): (Vec<&Object>, Vec<&Object>) =
        planned.files.iter().partition(|file| file.size_bytes <= SMALL_BYTES);
    let mut read = BTreeMap::new();
    for object in small {
        read.insert(object.path.clone(), take(app, to, run, origin, object).await?);
    }
    check_index(app, planned, &read).await?;
    let state = trainer_state(app, &read).await?;
    new.tokens = new.tokens.or(state.tokens);
    new.loss = state.loss;
    let told = state.step.filter(|told| Some(*told) != planned.step);
    let disagrees = told.map(|told| {
        let step = planned.step.unwrap_or_default();
        format!("`trainer_state.json` says step `{told}`, it comes in as step `{step}`")
    });
    // Said again with what the files say.
    push_session::create(app, run, new.clone()).await?;
    for object in large {
        read.insert(object.path.clone(), take(app, to, run, origin, object).await?);
        // Behind a file and not before it: each look brings one more.
        if read.len() < planned.files.len() && Instant::now() >= deadline {
            return Err(IngestError::Later);
        }
    }
    let entry = |(path, read): (&String, &FileRead)| FileEntry {
        path: path.clone(),
        size_bytes: read.size_bytes,
        digest: read.digest.unwrap_or(Digest::of(b"")),
    };
    let manifest =
        Manifest::new(read.iter().map(entry).collect()).map_err(|error| IngestError::Wrong(error.to_string()))?;
    Ok((manifest.digest(), disagrees))
}

/// Fetches a file and gives it to the session.
async fn take(
    app: &App,
    to: &Destination,
    run: &RunRow,
    origin: &Arc<Origin>,
    object: &Object,
) -> Result<FileRead, IngestError> {
    let read = fetch(app, to, origin, object).await?;
    let digest = read
        .digest
        .ok_or_else(|| ApiError::internal("a file that was read has no digest"))?;
    let file = CheckpointFile {
        path: object.path.clone(),
        size_bytes: read.size_bytes,
        digest,
        chunks: read.chunks.clone(),
    };
    push_session::add_file(app, run, to.session, file).await?;
    Ok(read)
}

/// Ends a session of which nothing comes; what arrived stays possessed.
async fn give_up(app: &App, run: &RunRow, session: &PushSession) {
    let ended = async {
        let row = push_session::find(app, run, session.id).await?;
        push_session::abandon(app, &row, PushSessionState::Aborted).await
    };
    match ended.await {
        Err(error) if error.code() != ErrorCode::Conflict => {
            tracing::warn!(session = %session.id, %error, "a session of a source can't be ended: it expires");
        }
        _ => {}
    }
}

/// Compares an index with what is there: every shard that it names, and as many bytes as it says at the least.
async fn check_index(app: &App, planned: &Planned, read: &BTreeMap<String, FileRead>) -> Result<(), IngestError> {
    let nothing = Digest::of(b"");
    let entry = |file: &Object| FileEntry {
        path: file.path.clone(),
        size_bytes: file.size_bytes,
        digest: nothing,
    };
    let manifest = Manifest::new(planned.files.iter().map(entry).collect());
    let manifest = manifest.map_err(|error| IngestError::Wrong(error.to_string()))?;
    let Some(path) = index_path(&manifest) else {
        return Ok(());
    };
    let Some(json) = small_file(app, read.get(&path), MAX_INDEX_BYTES).await? else {
        return Err(IngestError::Wrong(format!(
            "index `{path}` has more than {MAX_INDEX_BYTES} bytes"
        )));
    };
    let found = weight_files(&manifest, Some(&json)).map_err(|error| IngestError::Waiting(error.to_string()))?;
    let said = total_size(&json);
    let shards = found.map(|found| found.shards).unwrap_or_default();
    let there: u64 = shards
        .iter()
        .filter_map(|shard| manifest.get(shard))
        .map(|file| file.size_bytes)
        .sum();
    match said {
        Some(said) if there < said => Err(IngestError::Waiting(format!(
            "its shards have {there} bytes, index `{path}` says {said}"
        ))),
        _ => Ok(()),
    }
}

/// The bytes of all shards that an index says, where it says them; some releases write them as a number with a point.
fn total_size(index_json: &[u8]) -> Option<u64> {
    let index: serde_json::Value = serde_json::from_slice(index_json).ok()?;
    let said = index.pointer("/metadata/total_size")?;
    said.as_u64().or_else(|| said.as_f64().map(|bytes| bytes as u64))
}

/// What the trainer's state says; nothing where it can't be read, which never keeps a checkpoint out.
async fn trainer_state(app: &App, read: &BTreeMap<String, FileRead>) -> Result<TrainerState, IngestError> {
    let json = small_file(app, read.get(trainer_state::PATH), SMALL_BYTES).await?;
    Ok(json
        .and_then(|json| trainer_state::parse(&json).ok())
        .unwrap_or_default())
}

/// A small file that was read, from the store.
async fn small_file(app: &App, read: Option<&FileRead>, max_bytes: u64) -> Result<Option<bytes::Bytes>, IngestError> {
    let Some(read) = read.filter(|read| read.size_bytes <= max_bytes) else {
        return Ok(None);
    };
    let row = FileRow {
        digest: read.digest.unwrap_or(Digest::of(b"")),
        size_bytes: read.size_bytes,
        chunks: read.chunks.clone(),
        tensors: None,
    };
    Ok(Some(content::read_whole(app, &row).await.map_err(ApiError::from)?))
}
