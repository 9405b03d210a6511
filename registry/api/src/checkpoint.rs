//! Checkpoints: immutable sets of files that steps of a run point to.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use fineline_format::Digest;
use serde::{Deserialize, Serialize};

use crate::run::RunName;
use crate::text::words;

words! {
    /// Where a checkpoint's revision stands.
    pub enum CheckpointState {
        /// A push session is open; nothing of it can be read.
        Receiving = "receiving",
        /// Committed; every file is being read back from the store.
        Verifying = "verifying",
        /// Every file was read back and has its digest.
        Ready = "ready",
        /// Verification found a fault, named in `failure`; never readable.
        Failed = "failed",
        /// Taken away; its bytes go with the next collection.
        Deleted = "deleted",
    }
}

/// One checkpoint of a run, as a step points to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Checkpoint {
    /// The run.
    pub run: RunName,
    /// The training step.
    pub step: u64,
    /// The spelling that it was pushed under (`ckpt_100`); a reference as good as the step.
    pub label: Option<String>,
    /// Where it stands.
    pub state: CheckpointState,
    /// Whether the step points to this revision (a replaced one stays readable by digest).
    pub current: bool,
    /// Earlier checkpoints of the step that it replaced and that are still readable by digest, the newest first.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub replaced: Vec<Digest>,
    /// Other steps of the run with the same model digest, one evaluation of which serves them all.
    #[serde(default)]
    pub same_model_steps: Vec<u64>,
    /// Whether weights, config and tokenizer are there, so that it can be evaluated.
    pub evaluable: bool,
    /// Why a ready one is stored and can't be evaluated, and what to do about it.
    #[serde(default)]
    pub not_evaluable: Option<String>,
    /// SHA-256 of its canonical manifest; absent while receiving.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub digest: Option<Digest>,
    /// Names the weights whatever their container and sharding; absent without weights or before ready.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub weights_digest: Option<Digest>,
    /// Names weights, config and tokenizer together: what an evaluation is keyed by.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub model_digest: Option<Digest>,
    /// As its config.json's `architectures` names it.
    pub architecture: Option<String>,
    /// Tokens trained on until this step.
    pub tokens: Option<u64>,
    /// Training loss at this step.
    pub loss: Option<f64>,
    /// What the push said besides.
    pub metadata: BTreeMap<String, String>,
    /// Tags and releases that point here.
    pub tags: Vec<String>,
    /// Files in the manifest.
    pub n_files: u64,
    /// Bytes of all its files.
    pub size_bytes: u64,
    /// What looked wrong without blocking, in sentences.
    pub warnings: Vec<String>,
    /// Why it failed.
    pub failure: Option<String>,
    /// Its evaluations by state.
    pub evaluations: EvaluationCounts,
    /// When the push began.
    pub created_at: DateTime<Utc>,
    /// When it became ready.
    pub ready_at: Option<DateTime<Utc>>,
}

/// How many evaluations stand where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EvaluationCounts {
    /// Waiting for a worker.
    pub queued: u64,
    /// With a worker.
    pub leased: u64,
    /// Finished with scores.
    pub done: u64,
    /// Failed for good by the worker's word.
    pub failed: u64,
    /// Given up after too many tries.
    pub parked: u64,
    /// Taken back by a user.
    pub cancelled: u64,
}

/// A piece of a file as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChunkRef {
    /// SHA-256 of its raw bytes.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub digest: Digest,
    /// Its raw bytes.
    pub size_bytes: u64,
}

/// A file of a checkpoint with its recipe; also what a push session is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckpointFile {
    /// Relative path with `/`.
    pub path: String,
    /// Its bytes.
    pub size_bytes: u64,
    /// SHA-256 of the whole file, as `sha256sum` prints it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub digest: Digest,
    /// Its chunks in order; their sizes add up to the file's.
    pub chunks: Vec<ChunkRef>,
}

/// A tensor of a checkpoint's weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// As safetensors names it (`BF16`).
    pub dtype: String,
    /// Its shape, outermost dimension first.
    pub shape: Vec<u64>,
    /// SHA-256 over the concatenated SHA-256s of its 16 MiB pieces.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub digest: Digest,
    /// The file that holds it.
    pub path: String,
}
