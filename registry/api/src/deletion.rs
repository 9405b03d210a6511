//! Taking checkpoints away: what a deletion or a rule of retention takes, and what that frees.

use fineline_format::Digest;
use serde::{Deserialize, Serialize};

/// A run's rule of retention: a step is kept when any of these says so. Tagged and released steps, and those whose
/// evaluations are not finished, are kept always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Retention {
    /// The newest so many steps, at least one.
    pub keep_last: u64,
    /// Every step that this divides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_every: Option<u64>,
}

/// What a deletion took, or would take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Deletion {
    /// Whether nothing was done yet.
    pub dry_run: bool,
    /// The checkpoints, by step.
    pub checkpoints: Vec<DeletedCheckpoint>,
    /// Bytes of all their files.
    pub size_bytes: u64,
    /// Stored bytes that nothing else needs: what collection brings back after the grace.
    pub freed_bytes: u64,
}

/// A checkpoint that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeletedCheckpoint {
    /// Its step.
    pub step: u64,
    /// Its digest.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub digest: Digest,
    /// Bytes of its files.
    pub size_bytes: u64,
    /// Tags and releases that go with it.
    pub names: Vec<String>,
}
