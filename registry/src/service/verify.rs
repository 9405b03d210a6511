//! Verifying: every file of a committed checkpoint is read back from the store and hashed, its containers of weights
//! are parsed from the stored bytes, and only then does it become ready. Runs beside the requests; revisions are claimed
//! by a lease, so that any replica can go on where another stopped.
//!
//! **Invariant:** a file whose digest the run does not possess is read back by the session's own recipe, whoever else
//! holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fineline_api::error::ErrorDetail;
use fineline_api::{EventKind, PushSessionState, RunPattern};
use fineline_format::weights::{self, MAX_INDEX_BYTES, WeightFiles};
use fineline_format::{Container, Digest, Manifest, ReadAt};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::app::App;
use crate::db;
use crate::db::file::{FileRow, TensorRow};
use crate::db::push_session::{SessionFile, SessionRow};
use crate::db::revision::{CheckpointRow, RevisionRow};
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::service::content::{StoredFile, hash_stored};
use crate::service::{push_session, ready};

/// How long a claim holds without being renewed.
const LEASE_MS: i64 = 60_000;

/// Checkpoints that are verified at the same time.
const MAX_CHECKPOINTS: usize = 2;

/// Files of a checkpoint that are read back at the same time.
const MAX_FILES: usize = 4;

/// The largest config.json that is read.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// What a tokenizer consists of, in the order in which the model digest takes it.
const TOKENIZER_FILES: [&str; 4] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
];

/// Verifies what is committed, until the task is dropped.
pub(crate) async fn run_forever(app: App) {
    let verifier = Uuid::now_v7();
    let slots = Arc::new(Semaphore::new(MAX_CHECKPOINTS));
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let changed = app.changed.notified();
        match claim(&app, verifier).await {
            Ok(Some(revision)) => {
                let app = app.clone();
                tasks.spawn(async move {
                    verify_with_lease(&app, verifier, revision).await;
                    drop(slot);
                });
            }
            Ok(None) => drop(tokio::time::timeout(Duration::from_secs(2), changed).await),
            Err(error) => {
                tracing::error!(%error, "can't look for checkpoints to verify");
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
    }
}

async fn claim(app: &App, verifier: Uuid) -> ApiResult<Option<RevisionRow>> {
    let txn = db::write_txn(&app.db).await?;
    let claimed = db::revision::claim_verifying(&txn, verifier, LEASE_MS).await?;
    txn.commit().await?;
    Ok(claimed)
}

async fn verify_with_lease(app: &App, verifier: Uuid, revision: RevisionRow) {
    let id = revision.id;
    let renew = async {
        loop {
            tokio::time::sleep(Duration::from_millis(LEASE_MS as u64 / 3)).await;
            if let Ok(txn) = db::write_txn(&app.db).await {
                let renewed = db::revision::renew_verifying(&txn, id, verifier, LEASE_MS).await;
                if renewed.is_ok() {
                    let _ = txn.commit().await;
                }
            }
        }
    };
    tokio::select! {
        () = renew => {}
        outcome = verify(app, revision) => if let Err(error) = outcome {
            // The store or the database is down: the claim runs out and is taken again.
            tracing::error!(revision = id, %error, "verification is put off");
        },
    }
}

/// Verifies one revision to its end: ready, or failed with the reason.
async fn verify(app: &App, revision: RevisionRow) -> ApiResult<()> {
    let conn = app.db.reader();
    let run = db::run::get(conn, revision.run_id).await?;
    let session = db::push_session::of_revision(conn, revision.id).await?;
    let session = session.ok_or_else(|| ApiError::internal("a verifying revision has no session"))?;
    let outcome = match examine(app, &run, &session).await {
        Ok(examined) => ready::publish(app, &run, &session, revision.clone(), examined).await,
        Err(error) => Err(error),
    };
    match outcome {
        Err(error) if is_a_verdict(&error) => fail(app, &run, &session, &revision, error).await?,
        other => other?,
    }
    app.changed.notify_waiters();
    Ok(())
}

/// Whether an error speaks of the checkpoint, not of the server.
fn is_a_verdict(error: &ApiError) -> bool {
    use fineline_api::ErrorCode::{Conflict, DigestMismatch, InvalidRequest, StepExists, Unprocessable};
    [Conflict, DigestMismatch, InvalidRequest, StepExists, Unprocessable].contains(&error.code())
}

async fn fail(app: &App, run: &RunRow, session: &SessionRow, revision: &RevisionRow, error: ApiError) -> ApiResult<()> {
    let detail: ErrorDetail = error.into_detail();
    let txn = db::write_txn(&app.db).await?;
    db::revision::set_failed(&txn, revision.id, &detail.message).await?;
    let failure = serde_json::to_string(&detail).map_err(ApiError::internal)?;
    db::push_session::end(&txn, session.id, PushSessionState::Failed, false, Some(failure)).await?;
    let data = json!({ "reason": detail.message });
    db::event::insert(&txn, run.id, revision.step, EventKind::CheckpointFailed, data).await?;
    Ok(txn.commit().await?)
}

/// What was found out about a checkpoint from its stored bytes.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) manifest: Manifest,
    pub(crate) files: Vec<FileRow>,
    pub(crate) checkpoint: CheckpointRow,
}

async fn examine(app: &App, run: &RunRow, session: &SessionRow) -> ApiResult<Examined> {
    let given = db::push_session::files(app.db.reader(), session.id).await?;
    let manifest = push_session::manifest_of(&given)?;
    let digests: Vec<Digest> = given.iter().map(|file| file.digest).collect();
    let possessed = db::possession::held(app.db.reader(), &RunPattern::One(run.name.clone()), false, &digests).await?;
    let read_back = |file: SessionFile| {
        let possessed = possessed.contains(&file.digest);
        async move { Ok::<_, ApiError>((file.path.clone(), read_back(app, file, possessed).await?)) }
    };
    let mut files: BTreeMap<String, FileRow> = stream::iter(given)
        .map(read_back)
        .buffer_unordered(MAX_FILES)
        .try_collect()
        .await?;

    let index_path = weights::index_path(&manifest);
    let index = match &index_path {
        Some(path) => Some(read_small(app, &files[path], path, MAX_INDEX_BYTES).await?),
        None => None,
    };
    let refused = |error: fineline_format::FormatError| ApiError::unprocessable(error.to_string());
    let weight_files = weights::weight_files(&manifest, index.as_deref()).map_err(refused)?;
    let weights_digest = match &weight_files {
        Some(found) => Some(examine_weights(app, found, index, &mut files).await?),
        None => None,
    };
    let architecture = match files.get("config.json") {
        Some(config) => architecture(&read_small(app, config, "config.json", MAX_CONFIG_BYTES).await?)?,
        None => None,
    };
    let checkpoint = CheckpointRow {
        digest: manifest.digest(),
        manifest: manifest.to_canonical_json(),
        n_files: files.len() as u64,
        size_bytes: manifest.size_bytes(),
        weights_digest,
        model_digest: model_digest(&manifest, weights_digest),
        architecture,
    };
    Ok(Examined {
        manifest,
        files: files.into_values().collect(),
        checkpoint,
    })
}

/// Reads a file back from the store and compares its digest, unless the run possesses the file and it was verified.
async fn read_back(app: &App, file: SessionFile, possessed: bool) -> ApiResult<FileRow> {
    if possessed && let Some(row) = db::file::find(app.db.reader(), &file.digest).await? {
        return Ok(row);
    }
    let found = hash_stored(app, &file.chunks).await?;
    if found != file.digest {
        let message = format!(
            "file `{}` reads back as `{found}`, the push said `{}`",
            file.path, file.digest
        );
        let error = ApiError::new(fineline_api::ErrorCode::DigestMismatch, message);
        return Err(error.hint("the file changed while it was pushed: push it again"));
    }
    Ok(FileRow {
        digest: file.digest,
        size_bytes: file.size_bytes,
        chunks: file.chunks,
        tensors: None,
    })
}

async fn read_small(app: &App, file: &FileRow, path: &str, max_bytes: u64) -> ApiResult<Vec<u8>> {
    if file.size_bytes > max_bytes {
        let message = format!("file `{path}` has {} bytes and may have {max_bytes}", file.size_bytes);
        return Err(ApiError::unprocessable(message));
    }
    let parts = crate::service::content::read_range(app, &file.chunks, 0..file.size_bytes);
    let parts: Vec<_> = parts.try_collect().await.map_err(ApiError::internal)?;
    Ok(parts.concat())
}

/// Lists and digests the tensors of all shards, checks them against the index, and gives the weights digest.
async fn examine_weights(
    app: &App,
    found: &WeightFiles,
    index: Option<Vec<u8>>,
    files: &mut BTreeMap<String, FileRow>,
) -> ApiResult<Digest> {
    let mut names_by_shard = BTreeMap::new();
    let mut rows = Vec::new();
    for shard in &found.shards {
        let file = files
            .get_mut(shard)
            .ok_or_else(|| ApiError::internal("a shard of the manifest has no file"))?;
        if file.tensors.is_none() {
            file.tensors = Some(read_tensors(app, shard, file).await?);
        }
        let tensors = file.tensors.iter().flatten();
        names_by_shard.insert(
            shard.clone(),
            tensors.clone().map(|t| t.name.clone()).collect::<BTreeSet<_>>(),
        );
        for tensor in tensors {
            let dtype = tensor.dtype.parse().map_err(ApiError::internal)?;
            rows.push((tensor.name.clone(), dtype, tensor.shape.clone(), tensor.digest));
        }
    }
    let refused = |error: fineline_format::FormatError| ApiError::unprocessable(error.to_string());
    if let (Some(path), Some(json)) = (&found.index, index) {
        weights::check_index(path, &json, &names_by_shard).map_err(refused)?;
    }
    weights::weights_digest(rows).map_err(refused)
}

async fn read_tensors(app: &App, shard: &str, file: &FileRow) -> ApiResult<Vec<TensorRow>> {
    let stored = StoredFile::new(app, &file.chunks);
    let name = shard.to_owned();
    let read = move || {
        let source: &dyn ReadAt = &stored;
        let container = Container::of(source, &name)?;
        let tensors = weights::read_tensors(source, container, &name)?;
        let known = |offset, size| stored.chunk_at(offset, size);
        let row = |tensor: fineline_format::Tensor| {
            let digest = weights::tensor_digest(source, &tensor, &known)?;
            Ok(TensorRow {
                name: tensor.name,
                dtype: tensor.dtype.to_string(),
                shape: tensor.shape,
                digest,
            })
        };
        tensors.into_iter().map(row).collect()
    };
    let read: Result<Vec<TensorRow>, fineline_format::FormatError> =
        tokio::task::spawn_blocking(read).await.map_err(ApiError::internal)?;
    read.map_err(|error| match error {
        fineline_format::FormatError::Io { .. } => ApiError::internal(error),
        verdict => ApiError::unprocessable(verdict.to_string()),
    })
}

/// The first of config.json's `architectures`.
fn architecture(config: &[u8]) -> ApiResult<Option<String>> {
    let config: serde_json::Value = serde_json::from_slice(config)
        .map_err(|error| ApiError::unprocessable(format!("file `config.json` is no JSON: {error}")))?;
    let first = config
        .get("architectures")
        .and_then(|list| list.get(0))
        .and_then(|name| name.as_str());
    Ok(first.filter(|name| name.len() <= 128).map(str::to_owned))
}

/// The model digest: SHA-256 over `{"config":…,"tokenizer":{name:…},"weights":…}` in hex, sorted, no white space;
/// `None` unless weights, config.json and tokenizer.json are there.
fn model_digest(manifest: &Manifest, weights: Option<Digest>) -> Option<Digest> {
    let hex = |name: &str| manifest.get(name).map(|file| file.digest.to_hex());
    hex("tokenizer.json")?;
    let tokenizer: BTreeMap<&str, String> = TOKENIZER_FILES
        .into_iter()
        .filter_map(|name| Some((name, hex(name)?)))
        .collect();
    let parts = BTreeMap::from([
        ("config", json!(hex("config.json")?)),
        ("tokenizer", json!(tokenizer)),
        ("weights", json!(weights?.to_hex())),
    ]);
    Some(Digest::of(
        &serde_json::to_vec(&parts).expect("strings are always JSON"),
    ))
}

#[cfg(test)]
mod tests {
    use fineline_format::FileEntry;

    use super::*;

    fn manifest(files: &[(&str, &[u8])]) -> Manifest {
        let entry = |(path, bytes): &(&str, &[u8])| FileEntry {
            path: (*path).to_owned(),
            size_bytes: bytes.len() as u64,
            digest: Digest::of(bytes),
        };
        Manifest::new(files.iter().map(entry).collect()).unwrap()
    }

    #[test]
    fn a_changed_readme_is_the_same_model_and_a_changed_tokenizer_another() {
        let weights = Some(Digest::of(b"w"));
        let base = model_digest(&manifest(&[("config.json", b"c"), ("tokenizer.json", b"t")]), weights);
        let readme = manifest(&[("config.json", b"c"), ("tokenizer.json", b"t"), ("README.md", b"r")]);
        let tokenizer = manifest(&[("config.json", b"c"), ("tokenizer.json", b"u")]);
        assert!(base.is_some());
        assert_eq!(model_digest(&readme, weights), base);
        assert_ne!(model_digest(&tokenizer, weights), base);
        assert_eq!(model_digest(&readme, None), None);
        assert_eq!(model_digest(&manifest(&[("config.json", b"c")]), weights), None);
    }

    #[test]
    fn an_architecture_is_read_from_the_config_alone() {
        assert_eq!(
            architecture(br#"{"architectures":["LlamaForCausalLM"]}"#)
                .unwrap()
                .as_deref(),
            Some("LlamaForCausalLM")
        );
        assert_eq!(architecture(b"{}").unwrap(), None);
        assert!(architecture(b"{").unwrap_err().to_string().contains("config.json"));
    }
}
