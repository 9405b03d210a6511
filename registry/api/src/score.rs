//! Scores by step: our evaluator's and those posted from outside, never mixed on one curve.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use fineline_format::Digest;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::reference::Reference;
use crate::run::RunName;

/// The harness name of our own scores; refused for those posted from outside.
pub const OWN_HARNESS: &str = "fineline";

/// One row of a run's scores.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Score {
    /// The run.
    pub run: RunName,
    /// The step.
    pub step: u64,
    /// Tokens trained on until that step.
    pub tokens: Option<u64>,
    /// As the task's YAML names it.
    pub task: String,
    /// As lm-eval names it (`acc_norm`).
    pub metric: String,
    /// As lm-eval names it (`none`).
    pub filter: String,
    /// The value.
    pub value: f64,
    /// Its standard error.
    pub stderr: Option<f64>,
    /// How `stderr` was had: `sample_mean`, `bootstrap`, `ratio_over_documents`; of groups `pooled`, `unweighted_mean`.
    pub stderr_method: Option<String>,
    /// Samples.
    pub n: u64,
    /// Samples of a task at most, where that left some out; such a score is never on one curve with one of all samples.
    #[serde(default)]
    pub limit: Option<u64>,
    /// Shots.
    pub n_shot: u32,
    /// Which way is better.
    pub higher_is_better: Option<bool>,
    /// Who measured; `fineline` is us.
    pub harness: String,
    /// Its version.
    pub harness_version: Option<String>,
    /// The dtype that it was computed in.
    pub dtype: Option<String>,
    /// The suite's name.
    pub suite: Option<String>,
    /// The checkpoint.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub checkpoint: Digest,
    /// The evaluation; absent for scores from outside.
    pub evaluation: Option<Uuid>,
    /// Whether the step points to that checkpoint now, or did so last before it was deleted.
    pub current: bool,
    /// Whether the checkpoint was deleted: what was measured stays.
    #[serde(default)]
    pub deleted: bool,
    /// Other revisions of the step that were replaced, whose scores are not on this curve.
    #[serde(default)]
    pub n_replaced: u64,
    /// The step of the run for which it was measured, where that is another one with the same model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluated_step: Option<u64>,
    /// Task version, BOS policy, seeds, digests of prompts and data, and the like.
    pub provenance: BTreeMap<String, String>,
    /// When it was posted.
    pub created_at: DateTime<Utc>,
}

/// A score of one task and metric, as a worker posts it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskScore {
    /// As lm-eval names it.
    pub metric: String,
    /// As lm-eval names it.
    pub filter: String,
    /// The value; finite.
    pub value: f64,
    /// Its standard error.
    #[serde(default)]
    pub stderr: Option<f64>,
    /// How it was had.
    #[serde(default)]
    pub stderr_method: Option<String>,
    /// Samples.
    pub n: u64,
    /// Shots.
    pub n_shot: u32,
    /// Which way is better.
    #[serde(default)]
    pub higher_is_better: Option<bool>,
    /// The harness's version.
    pub harness_version: String,
    /// What it takes to repeat it.
    #[serde(default)]
    pub provenance: BTreeMap<String, String>,
}

/// A score from outside.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExternalScore {
    /// The task's name.
    pub task: String,
    /// The metric's name.
    pub metric: String,
    /// The filter's name.
    #[serde(default = "no_filter")]
    pub filter: String,
    /// The value; finite.
    pub value: f64,
    /// Its standard error.
    #[serde(default)]
    pub stderr: Option<f64>,
    /// Samples.
    #[serde(default)]
    pub n: u64,
    /// Samples of a task at most, where that left some out (lm-eval's `--limit`).
    #[serde(default)]
    pub limit: Option<u64>,
    /// Shots.
    #[serde(default)]
    pub n_shot: u32,
    /// Which way is better.
    #[serde(default)]
    pub higher_is_better: Option<bool>,
    /// The dtype that it was computed in.
    #[serde(default)]
    pub dtype: Option<String>,
}

fn no_filter() -> String {
    "none".to_owned()
}

/// Posts scores from outside for one checkpoint; the same (task, metric, filter, shots, limit) of the harness again replaces
/// the value.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PostScores {
    /// The checkpoint.
    pub reference: Reference,
    /// Who measured (`lm-eval`, `opencompass`); never `fineline`.
    pub harness: String,
    /// Its version.
    #[serde(default)]
    pub harness_version: Option<String>,
    /// The scores.
    pub scores: Vec<ExternalScore>,
}
