//! Push sessions: how a step's files come in; nothing of one is visible before its commit.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use fineline_format::Digest;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::ErrorDetail;
use crate::run::RunName;
use crate::text::words;

words! {
    /// Where a push session stands.
    pub enum PushSessionState {
        /// Takes chunks and files.
        Open = "open",
        /// Committed; its files are being read back.
        Verifying = "verifying",
        /// Its checkpoint is ready.
        Committed = "committed",
        /// Verification failed; `failure` says why.
        Failed = "failed",
        /// Taken back by the pusher.
        Aborted = "aborted",
        /// Nobody spoke to it for too long.
        Expired = "expired",
    }
}

/// Opens a push session for a step.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatePushSession {
    /// The training step.
    pub step: u64,
    /// Another spelling of the step (`ckpt_100`), usable as a reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Tokens trained on until this step; the run's `tokens_per_step` gives it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Training loss at this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Further facts by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Tags to set when it becomes ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Whether to make a new revision where the step holds other bytes.
    #[serde(default)]
    pub replace: bool,
    /// The manifest that will be committed, when it is known already: a step that holds it answers `committed` at once
    /// and one that holds another answers 409 before a byte moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub manifest_digest: Option<Digest>,
    /// A word that the ranks of a job share: who opens a session of that name for the step while one is there joins it,
    /// and each adds its files before one commits. Such a session has no manifest before its commit, and what its
    /// members say of the step adds up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_name: Option<String>,
    /// Whether to join a session of that name only: 404 when there is none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub join_only: bool,
}

/// Ends a push session; its answer is the session, then `verifying` or already `committed`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CommitPushSession {
    /// The digest of the manifest that the pusher means: a file of another rank that is missing shows here.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub manifest_digest: Digest,
}

/// A push session.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PushSession {
    /// Its id.
    pub id: Uuid,
    /// The run.
    pub run: RunName,
    /// The step.
    pub step: u64,
    /// The word that its members share, when it is one of several ranks.
    #[serde(default)]
    pub session_name: Option<String>,
    /// Where it stands.
    pub state: PushSessionState,
    /// Whether the step held this very checkpoint before, so that nothing changed.
    pub unchanged: bool,
    /// The checkpoint's digest, once committed or verifying.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub digest: Option<Digest>,
    /// Files added so far.
    pub n_files: u64,
    /// Chunks whose bytes arrived in this session.
    pub n_received_chunks: u64,
    /// Raw bytes of those chunks.
    pub received_bytes: u64,
    /// Why it failed.
    pub failure: Option<ErrorDetail>,
    /// What looked wrong without blocking; filled when committed.
    pub warnings: Vec<String>,
    /// Why its checkpoint is stored and can't be evaluated; filled when committed.
    #[serde(default)]
    pub not_evaluable: Option<String>,
    /// When it was opened.
    pub created_at: DateTime<Utc>,
}
