//! Suites of tasks and their bindings to runs. A suite's files travel as a multipart form: a part `definition` (JSON,
//! [`fineline_format::suite::SuiteDefinition`]) and a part named by its digest for each file.

use chrono::{DateTime, Utc};
use fineline_format::Digest;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::run::RunPattern;

/// The form part that holds the definition.
pub const DEFINITION_PART: &str = "definition";

/// The form part that holds the pattern of runs that the suite is uploaded for.
pub const PATTERN_PART: &str = "pattern";

/// The most bytes that a suite's upload may have.
pub const MAX_SUITE_BYTES: u64 = 256 << 20;

/// A suite: immutable, named by what it holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Suite {
    /// Covers YAML, data, limit and shots.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub digest: Digest,
    /// Its name; several digests may bear it over time.
    pub suite: String,
    /// The names of its tasks.
    pub tasks: Vec<String>,
    /// Samples a task at most.
    pub limit: Option<u64>,
    /// Shots where the suite overrides its tasks.
    pub num_fewshot: Option<u32>,
    /// Bytes of its files.
    pub size_bytes: u64,
    /// When it was first uploaded.
    pub created_at: DateTime<Utc>,
}

/// Binds a suite to runs: every evaluable step of them is evaluated. A pattern has one binding of a suite's name; a
/// newer one takes its place.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateBinding {
    /// The runs.
    pub pattern: RunPattern,
    /// The suite.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub suite: Digest,
    /// `float32`, `bfloat16` or `float16`: part of what is measured.
    pub dtype: String,
    /// Whether the steps that are there already are evaluated too.
    #[serde(default)]
    pub backfill: bool,
}

/// A binding of a suite to runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Binding {
    /// Its id.
    pub id: Uuid,
    /// The runs.
    pub pattern: RunPattern,
    /// The suite's name.
    pub suite: String,
    /// The suite.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub suite_digest: Digest,
    /// The dtype that it is computed in.
    pub dtype: String,
    /// Evaluations that the call queued.
    #[serde(default)]
    pub n_queued: u64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}
