//! Runs: one training trajectory each, named by the Hub's own grammar.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use fineline_format::Digest;
use serde::{Deserialize, Serialize};

use crate::deletion::Retention;
use crate::reference::Reference;
use crate::text::{said, string_schema};

/// The longest namespace or name, in bytes.
const MAX_PART_BYTES: usize = 96;

/// Names that a URL of the server itself begins with, now or later.
const RESERVED_NAMESPACES: &[&str] = &[
    "api",
    "assets",
    "datasets",
    "docs",
    "evaluations",
    "healthz",
    "login",
    "logout",
    "metrics",
    "models",
    "new",
    "readyz",
    "runs",
    "settings",
    "spaces",
    "suites",
];

/// `namespace/name`: each part by the Hub's grammar (letters, digits, `.`, `_`, `-`; no `--` or `..`; neither begins
/// nor ends with `-` or `.`; at most 96 bytes; no `.git` at the end).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunName {
    namespace: String,
    name: String,
}

impl RunName {
    /// Takes both parts.
    ///
    /// # Errors
    /// A sentence that names the part and the rule it breaks.
    pub fn new(namespace: &str, name: &str) -> Result<Self, String> {
        check_part("namespace", namespace)?;
        check_part("name", name)?;
        if RESERVED_NAMESPACES.contains(&namespace.to_ascii_lowercase().as_str()) {
            return Err(format!("namespace `{namespace}` is reserved: choose another"));
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The part before the slash.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The part after the slash.
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn check_part(what: &str, part: &str) -> Result<(), String> {
    let edge = |c: char| c == '-' || c == '.';
    let rule = if part.is_empty() {
        "is empty"
    } else if part.len() > MAX_PART_BYTES {
        "is longer than 96 bytes"
    } else if !part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        "holds something other than letters, digits, `.`, `_` and `-`"
    } else if part.contains("--") || part.contains("..") {
        "holds `--` or `..`"
    } else if part.starts_with(edge) || part.ends_with(edge) {
        "begins or ends with `-` or `.`"
    } else if part.to_ascii_lowercase().ends_with(".git") {
        "ends in `.git`"
    } else {
        return Ok(());
    };
    Err(format!(
        "{what} `{}` {rule}: write the run as NAMESPACE/NAME",
        said(part)
    ))
}

impl FromStr for RunName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) => Self::new(namespace, name),
            None => Err(format!("`{}` is no run: write it as NAMESPACE/NAME", said(text))),
        }
    }
}

impl TryFrom<String> for RunName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RunName> for String {
    fn from(run: RunName) -> Self {
        run.to_string()
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which runs a token or a binding is for: `*`, `NAMESPACE/*`, `NAMESPACE/PREFIX*` or `NAMESPACE/NAME`. A star stands
/// only at the end, so containment can be decided exactly and asked of a database with a range.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RunPattern {
    /// `*`: every run.
    All,
    /// `NAMESPACE/PREFIX*`: runs of a namespace whose names begin so.
    Prefix {
        /// The namespace, whole.
        namespace: String,
        /// What the name begins with; may be empty.
        prefix: String,
    },
    /// `NAMESPACE/NAME`: one run.
    One(RunName),
}

impl RunPattern {
    /// Whether `run` is one of these.
    pub fn matches(&self, run: &RunName) -> bool {
        match self {
            Self::All => true,
            Self::Prefix { namespace, prefix } => run.namespace == *namespace && run.name.starts_with(prefix),
            Self::One(name) => name == run,
        }
    }

    /// Whether every run of `other`, existing or not, is one of these.
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (_, Self::All) => false,
            (_, Self::One(run)) => self.matches(run),
            (
                Self::Prefix {
                    namespace: a,
                    prefix: p,
                },
                Self::Prefix {
                    namespace: b,
                    prefix: q,
                },
            ) => a == b && q.starts_with(p),
            (Self::One(_), Self::Prefix { .. }) => false,
        }
    }

    /// Whether some run could be one of both.
    pub fn intersects(&self, other: &Self) -> bool {
        self.contains(other) || other.contains(self)
    }
}

impl FromStr for RunPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" {
            return Ok(Self::All);
        }
        let hint = "write `*`, `NAMESPACE/*`, `NAMESPACE/PREFIX*` or `NAMESPACE/NAME`";
        let Some((namespace, name)) = text.split_once('/') else {
            return Err(format!("`{}` is no pattern of runs: {hint}", said(text)));
        };
        match name.strip_suffix('*') {
            None => RunName::new(namespace, name).map(Self::One),
            Some(prefix) => {
                // A prefix may end where a name may not ("amber-"), so only its letters are checked.
                RunName::new(namespace, &format!("{}0", prefix.trim_start_matches('.')))
                    .map_err(|_| format!("`{}` is no pattern of runs: {hint}", said(text)))?;
                Ok(Self::Prefix {
                    namespace: namespace.to_owned(),
                    prefix: prefix.to_owned(),
                })
            }
        }
    }
}

impl TryFrom<String> for RunPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RunPattern> for String {
    fn from(pattern: RunPattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for RunPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Prefix { namespace, prefix } => write!(f, "{namespace}/{prefix}*"),
            Self::One(run) => write!(f, "{run}"),
        }
    }
}

impl fmt::Debug for RunPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

string_schema!(RunName, "lab/amber-7b", "A run: NAMESPACE/NAME");
string_schema!(
    RunPattern,
    "lab/*",
    "Runs: `*`, `NAMESPACE/*`, `NAMESPACE/PREFIX*` or `NAMESPACE/NAME`"
);

/// What describes a run; all optional, none of it part of any identity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunAttributes {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Parameters of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_parameters: Option<u64>,
    /// As config.json's `architectures` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// What it is trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_mix: Option<String>,
    /// How it is trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// Tokens that one step trains on; gives a step's tokens where a push does not say them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_step: Option<u64>,
    /// Further facts by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// Creates a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateRun {
    /// Its name.
    pub run: RunName,
    /// What describes it.
    #[serde(default)]
    pub attributes: RunAttributes,
}

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Run {
    /// Its name.
    pub run: RunName,
    /// What describes it.
    pub attributes: RunAttributes,
    /// Names the tokenizer that it lends to steps without one of their own.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub default_tokenizer: Option<Digest>,
    /// Which steps it keeps; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Ready checkpoints, current revisions only.
    pub n_checkpoints: u64,
    /// The newest ready step.
    pub latest_step: Option<u64>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
}

/// Makes the tokenizer of a checkpoint a run's default: lent to every step that has none of its own, which can then be
/// evaluated.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetTokenizer {
    /// The run of the checkpoint, which the caller must be able to read.
    pub run: RunName,
    /// The checkpoint: its `tokenizer.json` is taken with what else belongs to a tokenizer.
    pub reference: Reference,
    /// Whether steps that were lent another default before become other models, and are evaluated as such.
    #[serde(default)]
    pub backfill: bool,
}

/// A run's default tokenizer, and what setting it did.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DefaultTokenizer {
    /// Covers the names and digests of its files.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub digest: Digest,
    /// The names of its files.
    pub files: Vec<String>,
    /// Steps that became evaluable.
    pub n_evaluable: u64,
    /// Steps that were evaluable by another default and are by this one now.
    pub n_changed: u64,
    /// Steps that stay with another default: `backfill` was not said.
    pub n_left: u64,
    /// Evaluations that were queued.
    pub n_queued: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_hubs_grammar() {
        for good in ["lab/amber-7b", "m-a-p/Amber-Reproduce-998.24B", "a/b_c.d"] {
            assert_eq!(good.parse::<RunName>().unwrap().to_string(), good);
        }
        for bad in [
            "amber",
            "lab/",
            "/x",
            "lab/-x",
            "lab/x.",
            "lab/a--b",
            "lab/a..b",
            "lab/a b",
            "lab/x.git",
            "api/x",
            "a/b/c",
        ] {
            assert!(bad.parse::<RunName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn containment_of_patterns_agrees_with_matching() {
        let patterns = ["*", "lab/*", "lab/am*", "lab/amber-*", "lab/amber-7b", "other/*"];
        let runs = ["lab/amber-7b", "lab/am", "lab/other", "other/amber-7b"];
        for a in patterns.map(|p| p.parse::<RunPattern>().unwrap()) {
            for b in patterns.map(|p| p.parse::<RunPattern>().unwrap()) {
                for run in runs.map(|r| r.parse::<RunName>().unwrap()) {
                    if a.contains(&b) && b.matches(&run) {
                        assert!(a.matches(&run), "{a} contains {b} but not {run}");
                    }
                    if a.matches(&run) && b.matches(&run) {
                        assert!(a.intersects(&b), "{a} and {b} share {run}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_star_stands_only_at_the_end() {
        for bad in ["**", "*/x", "lab/*x", "lab/a*b", "lab", "lab/a/b*"] {
            assert!(bad.parse::<RunPattern>().is_err(), "{bad}");
        }
    }
}
