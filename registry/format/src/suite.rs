//! Suites of tasks, as uploaded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// A file of a suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobRef {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its bytes.
    pub size_bytes: u64,
}

/// A task of a suite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuiteTask {
    /// Its name.
    pub task: String,
    /// Its YAML, as uploaded.
    pub yaml: BlobRef,
    /// Its data files by split.
    pub data: BTreeMap<String, Vec<BlobRef>>,
}

/// A suite as uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuiteDefinition {
    /// Its name.
    pub suite: String,
    /// Its tasks.
    pub tasks: Vec<SuiteTask>,
    /// Samples a task at most.
    #[serde(default)]
    pub limit: Option<u64>,
    /// Shots, where the suite overrides its tasks.
    #[serde(default)]
    pub num_fewshot: Option<u32>,
    /// For generation.
    #[serde(default)]
    pub gen_kwargs: BTreeMap<String, String>,
}
