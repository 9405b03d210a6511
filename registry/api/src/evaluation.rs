//! Evaluations: one suite on one model in one dtype, done by a worker under a lease.
//!
//! A worker names its lease in the header [`LEASE_HEADER`] of every call after the claim.

use chrono::{DateTime, Utc};
use fineline_format::Digest;
use fineline_format::suite::SuiteDefinition;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::run::RunName;
use crate::text::words;

/// The header that carries a lease's token.
pub const LEASE_HEADER: &str = "fineline-lease";

words! {
    /// Where an evaluation stands.
    pub enum EvaluationState {
        /// Waits for a worker; `reason` says why.
        Queued = "queued",
        /// With a worker.
        Leased = "leased",
        /// All scores are there.
        Done = "done",
        /// The worker says that no try can succeed.
        Failed = "failed",
        /// Given up after 3 failures or 5 expiries; `retry` queues it again.
        Parked = "parked",
        /// Taken back by a user.
        Cancelled = "cancelled",
    }
}

/// An evaluation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Evaluation {
    /// Its id.
    pub id: Uuid,
    /// The run whose step it was queued for.
    pub run: RunName,
    /// That step.
    pub step: u64,
    /// Whether the checkpoint of that step was deleted; one that was not finished then was cancelled.
    #[serde(default)]
    pub deleted: bool,
    /// The checkpoint that a worker reads.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub checkpoint: Digest,
    /// What it is keyed by, with suite and dtype, within the namespace.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub model_digest: Digest,
    /// The suite's name.
    pub suite: String,
    /// The suite.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub suite_digest: Digest,
    /// The dtype that it is computed in.
    pub dtype: String,
    /// The model's architecture, which a worker must take.
    pub architecture: Option<String>,
    /// Where it stands.
    pub state: EvaluationState,
    /// Why it waits, failed or was parked.
    pub reason: Option<String>,
    /// Failures so far.
    pub n_failures: u32,
    /// Leases that ran out so far (death, preemption).
    pub n_expiries: u32,
    /// The worker that has or had it.
    pub worker: Option<String>,
    /// What the worker last said of itself.
    pub progress: Option<Progress>,
    /// When the lease runs out.
    pub lease_expires_at: Option<DateTime<Utc>>,
    /// When it was queued.
    pub created_at: DateTime<Utc>,
    /// When the present or last lease began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// Asks for work that the worker can do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimEvaluation {
    /// What the worker is called.
    pub worker: String,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Memory that a model may take.
    pub memory_bytes: u64,
    /// What it computes in: `float32`, …
    pub dtypes: Vec<String>,
    /// As config.json's `architectures` names them.
    pub architectures: Vec<String>,
    /// Seconds that the server may wait for work to appear, at most 30.
    #[serde(default)]
    pub wait_s: u64,
    /// Chosen at random for each claim. The same claim sent again, its answer lost, gets the same lease; without it the
    /// work that a lost answer gave waits until the lease runs out.
    #[serde(default)]
    pub claim_id: Option<Uuid>,
    /// The version of the worker's harness. Tasks that an earlier lease scored with the same one are not asked again;
    /// without it all are.
    #[serde(default)]
    pub harness_version: Option<String>,
}

/// Work, and the right to do it for a while.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lease {
    /// Goes into [`LEASE_HEADER`].
    pub token: String,
    /// Seconds until it runs out unless renewed.
    pub ttl_s: u64,
    /// What is to be done.
    pub evaluation: Evaluation,
    /// The tasks; their files are read from the suite by digest.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub suite: SuiteDefinition,
    /// The tokenizer that the run lends, in place of what the checkpoint has of one; empty when it has its own.
    #[serde(default)]
    pub tokenizer: Vec<TokenizerFile>,
    /// Tasks that are scored already: a worker before this one died or failed behind them. They need not be done.
    #[serde(default)]
    pub scored: Vec<ScoredTask>,
}

/// A file of a tokenizer that a run lends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenizerFile {
    /// Its name in the checkpoint's folder.
    pub path: String,
    /// SHA-256 of its bytes.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub digest: Digest,
}

/// A task whose scores are there.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScoredTask {
    /// The task's name.
    pub task: String,
    /// The digest of its scores, which the result's digest is over.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub scores_digest: Digest,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("evaluation", &self.evaluation)
            .finish_non_exhaustive()
    }
}

/// How far a worker is; also what a heartbeat says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Progress {
    /// The task at hand.
    pub task: Option<String>,
    /// Requests done over all tasks.
    pub n_done: u64,
    /// Requests over all tasks.
    pub n_total: u64,
    /// Tokens that the model computes a second, since the lease began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_s: Option<f64>,
    /// Seconds until all is done, if the rest of the requests goes on as those of this lease did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_s: Option<u64>,
    /// Whether the worker is still at another evaluation and holds this one for its next: nothing of it is computed, so that the
    /// worker's death says nothing against it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ahead: bool,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenewedLease {
    /// Seconds until it runs out unless renewed.
    pub ttl_s: u64,
}

/// Ends an evaluation with all its scores posted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompleteEvaluation {
    /// SHA-256 over every task's scores, whoever computed them (`fineline_api::result::result_digest`). It must be that of
    /// the scores which the registry holds; the same lease with the same digest again is a success.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub result_digest: Digest,
}

/// Ends a try before all scores are there; told again under the same lease it changes nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailEvaluation {
    /// Why, for people.
    pub reason: String,
    /// Whether another try could succeed.
    pub retryable: bool,
}
