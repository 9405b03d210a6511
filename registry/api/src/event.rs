//! Events: what happened to a run, written in the transaction of what they tell.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::run::RunName;
use crate::text::words;

words! {
    /// What happened.
    pub enum EventKind {
        /// A step became ready.
        CheckpointReady = "checkpoint_ready",
        /// A ready step became a model that can be evaluated, or another one, by its run's default tokenizer.
        CheckpointEvaluable = "checkpoint_evaluable",
        /// A step failed verification.
        CheckpointFailed = "checkpoint_failed",
        /// A step was taken away.
        CheckpointDeleted = "checkpoint_deleted",
        /// An evaluation was queued.
        EvaluationQueued = "evaluation_queued",
        /// An evaluation has all its scores.
        EvaluationDone = "evaluation_done",
        /// An evaluation failed, was parked or cancelled.
        EvaluationEnded = "evaluation_ended",
    }
}

/// One event of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Rises with time; give it as `after` to read on.
    pub id: i64,
    /// The run.
    pub run: RunName,
    /// The step it concerns.
    pub step: u64,
    /// What happened.
    pub kind: EventKind,
    /// Facts by name.
    pub data: Value,
    /// When.
    pub created_at: DateTime<Utc>,
}
