//! Suites of tasks and their bindings to runs. A suite's files travel as a multipart form: a part `definition` (JSON,
//! [`fineline_format::suite::SuiteDefinition`]) and a part named by its digest for each file.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use fineline_format::Digest;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::run::RunPattern;
use crate::text::{string_schema, words};

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

words! {
    /// Which of the steps that wait for a binding's suite is evaluated next.
    #[derive(Default)]
    pub enum StepOrder {
        /// New steps as they came, then those of a back-fill in its own order.
        #[default]
        Arrival = "arrival",
        /// The highest step.
        Newest = "newest",
        /// The one that is furthest from what is measured, so that a curve is known at evenly spread steps at any time.
        Coarse = "coarse",
    }
}

/// Every evaluable step: what a binding asks for that says nothing else.
pub const fn every_step() -> u64 {
    1
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
    /// Which of the steps that are there already are evaluated too; none when absent.
    #[serde(default)]
    pub backfill: Backfill,
    /// Only steps that this divides, from 1 on; every step when absent.
    #[serde(default = "every_step")]
    pub every: u64,
    /// Which step comes next; `arrival` when absent.
    #[serde(default)]
    pub order: StepOrder,
}

/// Which of the steps that are there already are evaluated too, and in which order. New steps come before all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Backfill {
    /// `none`: only steps that are yet to come.
    #[default]
    None,
    /// `all`: every step, in the order of the steps.
    All,
    /// `newest=N`: the newest N steps of each run, from the newest on.
    Newest(u64),
    /// `coarse`: every step, coarse to fine (last, first, middle, quarters, …), so that curves show early.
    Coarse,
}

string_schema!(Backfill, "newest=20", "`none`, `all`, `newest=N` or `coarse`");

impl From<bool> for Backfill {
    fn from(all: bool) -> Self {
        if all { Self::All } else { Self::None }
    }
}

impl FromStr for Backfill {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let newest = text.strip_prefix("newest=").and_then(|n| n.parse().ok());
        match (text, newest) {
            ("none", _) => Ok(Self::None),
            ("all", _) => Ok(Self::All),
            ("coarse", _) => Ok(Self::Coarse),
            (_, Some(n)) if n > 0 => Ok(Self::Newest(n)),
            _ => Err(format!("`{text}` is no back-fill: write `all`, `newest=N` or `coarse`")),
        }
    }
}

impl fmt::Display for Backfill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::All => f.write_str("all"),
            Self::Newest(n) => write!(f, "newest={n}"),
            Self::Coarse => f.write_str("coarse"),
        }
    }
}

impl TryFrom<String> for Backfill {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Backfill> for String {
    fn from(backfill: Backfill) -> Self {
        backfill.to_string()
    }
}

/// What a back-fill would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackfillPlan {
    /// Runs with a step that it takes.
    pub n_runs: u64,
    /// Steps that it takes.
    pub n_steps: u64,
    /// Evaluations that it would queue.
    pub n_to_queue: u64,
    /// Steps whose evaluation is there already, or comes with that of another step of the same model.
    pub n_shown: u64,
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
    /// Only steps that this divides are evaluated.
    #[serde(default = "every_step")]
    pub every: u64,
    /// Which step comes next.
    #[serde(default)]
    pub order: StepOrder,
    /// Samples a task at most, as the suite says.
    #[serde(default)]
    pub limit: Option<u64>,
    /// Evaluations that the call queued.
    #[serde(default)]
    pub n_queued: u64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_back_fill_is_read_as_it_is_written() {
        for word in ["none", "all", "newest=20", "coarse"] {
            assert_eq!(word.parse::<Backfill>().unwrap().to_string(), word);
        }
        for bad in ["newest=0", "newest", "newest=-1", "fine", ""] {
            assert!(bad.parse::<Backfill>().unwrap_err().contains("`newest=N`"), "{bad}");
        }
        let absent = r#"{"pattern":"lab/a","suite":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","dtype":"float32"}"#;
        let absent: CreateBinding = serde_json::from_str(absent).unwrap();
        assert_eq!(absent.backfill, Backfill::None);
        assert_eq!((absent.every, absent.order), (1, StepOrder::Arrival));
    }
}
