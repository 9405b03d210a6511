//! Examining a committed checkpoint by its stored bytes alone: files are read back and hashed, containers of weights
//! parsed, tensors digested, the index held against its shards.
//!
//! **Invariant:** a file whose digest the run does not possess is read back by the session's own recipe, whoever else
//! holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;
use fineline_api::error::ErrorCode;
use fineline_format::weights::{self, MAX_INDEX_BYTES, WeightFiles};
use fineline_format::{Container, Digest, FormatError, Manifest, ReadAt, Tensor};
use futures::{StreamExt, TryStreamExt, stream};

use crate::app::App;
use crate::db;
use crate::db::checkpoint::CheckpointRow;
use crate::db::file::{FileRow, TensorRow};
use crate::db::push_session::{SessionFile, SessionRow};
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::service::commit::manifest_of;
use crate::service::content::{ReadError, find_damage, hash_stored, is_sound, read_whole};
use crate::service::model;
use crate::service::stored_file::StoredFile;

/// Files of a checkpoint that are read back at the same time.
const MAX_FILES: usize = 4;

/// The largest config.json that is read.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

const PUSH_AGAIN: &str = "the file changed while it was pushed: push it again";

/// What was found out about a checkpoint from its stored bytes.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) manifest: Manifest,
    pub(crate) files: Vec<FileRow>,
    /// Name and shape of every tensor of its weights.
    pub(crate) tensors: BTreeSet<(String, Vec<u64>)>,
    /// The file of its weights that is in PyTorch's legacy form, for which no tensor could be listed.
    pub(crate) legacy: Option<String>,
    pub(crate) checkpoint: CheckpointRow,
}

/// Reads a committed session's files back and finds out what they are.
///
/// # Errors
/// 422 for what is wrong with the checkpoint, 503 when database or store do not answer.
pub(crate) async fn examine(app: &App, run: &RunRow, session: &SessionRow) -> ApiResult<Examined> {
    let given = db::push_session::files(app.db.reader(), session.id).await?;
    let manifest = manifest_of(&given)?;
    let digests: Vec<Digest> = given.iter().map(|file| file.digest).collect();
    let possessed = db::possession::published(app.db.reader(), run.id, &digests).await?;
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
    let weight_files = weights::weight_files(&manifest, index.as_deref()).map_err(refused)?;
    let weights = match &weight_files {
        Some(found) => Some(examine_weights(app, found, index.as_deref(), &mut files).await?),
        None => None,
    };
    let (weights_digest, tensors, legacy) = match weights {
        Some(Weights::Listed(digest, tensors)) => (Some(digest), tensors, None),
        Some(Weights::Legacy(path)) => (None, BTreeSet::new(), Some(path)),
        None => (None, BTreeSet::new(), None),
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
        model_digest: model::own_tokenizer(&manifest)
            .and_then(|tokenizer| model::model_digest(&manifest, &tokenizer, weights_digest)),
        architecture,
    };
    Ok(Examined {
        manifest,
        files: files.into_values().collect(),
        tensors,
        legacy,
        checkpoint,
    })
}

/// Reads a file back from the store and compares its digest, unless the run possesses the file and it was verified.
async fn read_back(app: &App, file: SessionFile, possessed: bool) -> ApiResult<FileRow> {
    if possessed
        && let Some(row) = db::file::find(app.db.reader(), &file.digest).await?
        // One that lost a chunk is read back as it came now.
        && is_sound(app, &row).await?
    {
        if row.size_bytes == file.size_bytes {
            return Ok(row);
        }
        let (path, said, has) = (file.path, file.size_bytes, row.size_bytes);
        let message = format!("file `{path}` is said to have {said} bytes, its digest is of one with {has}");
        return Err(ApiError::new(ErrorCode::DigestMismatch, message).hint(PUSH_AGAIN));
    }
    fail_point!("verify.reading_back");
    let found = hash_stored(app, &file.chunks)
        .await
        .map_err(|error| read_failure(&file.path, error))?;
    if found != file.digest {
        find_damage(app, &file.chunks)
            .await
            .map_err(|error| read_failure(&file.path, error))?;
        let message = format!(
            "file `{}` reads back as `{found}`, the push said `{}`",
            file.path, file.digest
        );
        let error = ApiError::new(ErrorCode::DigestMismatch, message);
        return Err(error.hint(PUSH_AGAIN));
    }
    Ok(FileRow {
        digest: file.digest,
        size_bytes: file.size_bytes,
        chunks: file.chunks,
        tensors: None,
    })
}

/// What a failed read-back means: damage is said of the file, all else passes.
fn read_failure(path: &str, error: ReadError) -> ApiError {
    match error {
        ReadError::Damaged(_) => {
            tracing::error!(path, %error, "stored bytes are damaged");
            ApiError::unprocessable(format!(
                "file `{path}` can't be read back: the store lost or damaged a chunk of it"
            ))
            .hint("ask the operator to run `fineline-registry scrub`")
        }
        ReadError::Unavailable(_) => error.into(),
    }
}

async fn read_small(app: &App, file: &FileRow, path: &str, max_bytes: u64) -> ApiResult<Bytes> {
    if file.size_bytes > max_bytes {
        let message = format!("file `{path}` has {} bytes and may have {max_bytes}", file.size_bytes);
        return Err(ApiError::unprocessable(message));
    }
    read_whole(app, file).await.map_err(|error| read_failure(path, error))
}

/// What was found out about weights.
enum Weights {
    /// Their digest, with the names and shapes of the tensors.
    Listed(Digest, BTreeSet<(String, Vec<u64>)>),
    /// This file is in PyTorch's legacy form: they are kept and can't be listed.
    Legacy(String),
}

/// Lists and digests the tensors of all shards and checks them against the index.
async fn examine_weights(
    app: &App,
    found: &WeightFiles,
    index: Option<&[u8]>,
    files: &mut BTreeMap<String, FileRow>,
) -> ApiResult<Weights> {
    let mut names_by_shard = BTreeMap::new();
    let mut rows = Vec::new();
    for shard in &found.shards {
        let file = files
            .get_mut(shard)
            .ok_or_else(|| ApiError::internal("a shard of the manifest has no file"))?;
        let known = match file.tensors.take() {
            Some(known) => Some(known),
            None => read_tensors(app, shard, file).await?,
        };
        let Some(tensors) = known else {
            return Ok(Weights::Legacy(shard.clone()));
        };
        names_by_shard.insert(
            shard.clone(),
            tensors
                .iter()
                .map(|tensor| tensor.name.clone())
                .collect::<BTreeSet<_>>(),
        );
        for tensor in &tensors {
            let dtype = tensor.dtype.parse().map_err(ApiError::internal)?;
            rows.push((tensor.name.clone(), dtype, tensor.shape.clone(), tensor.digest));
        }
        file.tensors = Some(tensors);
    }
    if let (Some(path), Some(json)) = (&found.index, index) {
        weights::check_index(path, json, &names_by_shard).map_err(refused)?;
    }
    let tensors = rows
        .iter()
        .map(|(name, _, shape, _)| (name.clone(), shape.clone()))
        .collect();
    Ok(Weights::Listed(
        weights::weights_digest(rows).map_err(refused)?,
        tensors,
    ))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` asks for")]
fn refused(error: FormatError) -> ApiError {
    ApiError::unprocessable(error.to_string())
}

async fn read_tensors(app: &App, shard: &str, file: &FileRow) -> ApiResult<Option<Vec<TensorRow>>> {
    let stored = StoredFile::new(app, &file.chunks);
    let name = shard.to_owned();
    let read = move || {
        let source: &dyn ReadAt = &stored;
        let container = Container::of(source, &name)?;
        let tensors = weights::read_tensors(source, container, &name)?;
        let known = |offset, size| stored.chunk_at(offset, size);
        let row = |tensor: Tensor| {
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
    let read: Result<Vec<TensorRow>, FormatError> =
        tokio::task::spawn_blocking(read).await.map_err(ApiError::internal)?;
    if let Err(FormatError::LegacyTorch(_)) = &read {
        return Ok(None);
    }
    read.map(Some).map_err(|error| match error {
        FormatError::Io { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof => {
            ApiError::unprocessable(format!("file `{shard}` ends before its tensors do"))
        }
        FormatError::Io { source, .. } => match source.downcast::<ReadError>() {
            Ok(error) => read_failure(shard, error),
            Err(source) => ApiError::internal(source),
        },
        verdict => refused(verdict),
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
    let is_name = |name: &&str| name.len() <= 128 && !name.chars().any(char::is_control);
    Ok(first.filter(is_name).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_is_read_from_the_config_alone() {
        assert_eq!(
            architecture(br#"{"architectures":["LlamaForCausalLM"]}"#)
                .unwrap()
                .as_deref(),
            Some("LlamaForCausalLM")
        );
        assert_eq!(architecture(b"{}").unwrap(), None);
        // What no column of text can hold.
        assert_eq!(architecture(br#"{"architectures":["a\u0000b"]}"#).unwrap(), None);
        assert!(architecture(b"{").unwrap_err().to_string().contains("config.json"));
    }
}
