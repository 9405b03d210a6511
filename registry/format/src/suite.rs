//! Suites of tasks: the file that a user writes, and the definition that is uploaded and named by its digest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::shown;
use crate::{Digest, yaml};

/// The most tasks of a suite.
const MAX_TASKS: usize = 1000;

/// Why a suite is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the suite is refused: {0}")]
pub struct SuiteError(String);

/// The dtype that an evaluation is computed in: part of what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvalDtype {
    /// IEEE binary32.
    #[default]
    Float32,
    /// bfloat16.
    Bfloat16,
    /// IEEE binary16.
    Float16,
}

impl EvalDtype {
    /// The name on the wire, as lm-eval writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
            Self::Float16 => "float16",
        }
    }
}

impl fmt::Display for EvalDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for EvalDtype {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Float32, Self::Bfloat16, Self::Float16];
        let found = all.into_iter().find(|dtype| dtype.as_str() == text);
        found.ok_or_else(|| format!("dtype `{}` is none of float32, bfloat16, float16", shown(text)))
    }
}

/// The file that a user writes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuiteFile {
    /// Its name.
    pub suite: String,
    /// Paths of task files, relative to this file or absolute.
    pub tasks: Vec<String>,
    /// Samples a task at most.
    #[serde(default)]
    pub limit: Option<u64>,
    /// The dtype that it is computed in.
    #[serde(default)]
    pub dtype: EvalDtype,
    /// Shots, instead of each task's own.
    #[serde(default)]
    pub num_fewshot: Option<u32>,
    /// For tasks that generate.
    #[serde(default)]
    pub gen_kwargs: BTreeMap<String, serde_yaml_ng::Value>,
}

impl SuiteFile {
    /// Reads a suite file.
    ///
    /// # Errors
    /// [`SuiteError`] that names the field.
    pub fn parse(yaml: &str) -> Result<Self, SuiteError> {
        let file =
            yaml::parse(yaml).and_then(|root| serde_yaml_ng::from_value(root).map_err(|error| error.to_string()));
        let file: Self = file.map_err(|error| SuiteError(shown(&error)))?;
        if file.tasks.is_empty() {
            return Err(SuiteError(format!(
                "suite `{}` has no tasks: list task files under `tasks`",
                file.suite
            )));
        }
        if !file.gen_kwargs.is_empty() {
            let message = format!(
                "suite `{}` has `gen_kwargs`: no task that generates is supported yet",
                file.suite
            );
            return Err(SuiteError(message));
        }
        Ok(file)
    }
}

/// A file of a suite, by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobRef {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its bytes.
    pub size_bytes: u64,
}

/// A task of a suite, by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuiteTask {
    /// Its name, as its YAML gives it.
    pub task: String,
    /// Its YAML.
    pub yaml: BlobRef,
    /// Its data files by split, in order.
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Shots, instead of each task's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_fewshot: Option<u32>,
}

impl SuiteDefinition {
    /// Checks the definition's own rules: a name, tasks, no task twice.
    ///
    /// # Errors
    /// [`SuiteError`] that names what breaks one.
    pub fn check(&self) -> Result<(), SuiteError> {
        let letters = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if !(1..=96).contains(&self.suite.len()) || !self.suite.bytes().all(letters) {
            let message = format!(
                "its name `{}` must be 1 to 96 letters, digits, `.`, `_` or `-`",
                self.suite
            );
            return Err(SuiteError(message));
        }
        if self.tasks.is_empty() || self.tasks.len() > MAX_TASKS {
            return Err(SuiteError(format!(
                "suite `{}` needs 1 to {MAX_TASKS} tasks",
                self.suite
            )));
        }
        if self.limit == Some(0) {
            return Err(SuiteError(format!("suite `{}` has a limit of 0 samples", self.suite)));
        }
        let mut names = BTreeSet::new();
        match self.tasks.iter().find(|task| !names.insert(&task.task)) {
            Some(task) => Err(SuiteError(format!(
                "suite `{}` has task `{}` twice",
                self.suite, task.task
            ))),
            None => Ok(()),
        }
    }

    /// The suite's digest: SHA-256 of the definition as JSON without white space and without the name, fields and
    /// splits in fixed order, tasks sorted by name. It covers YAML, data, limit and shots.
    pub fn digest(&self) -> Digest {
        let mut nameless = Self {
            suite: String::new(),
            ..self.clone()
        };
        nameless.tasks.sort_by(|a, b| a.task.cmp(&b.task));
        Digest::of(&serde_json::to_vec(&nameless).expect("strings and integers are always JSON"))
    }

    /// Every file of the suite; the same content may stand several times.
    pub fn blobs(&self) -> impl Iterator<Item = &BlobRef> {
        self.tasks
            .iter()
            .flat_map(|task| std::iter::once(&task.yaml).chain(task.data.values().flatten()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(suite: &str, tasks: &[&str]) -> SuiteDefinition {
        let blob = |text: &str| BlobRef {
            digest: Digest::of(text.as_bytes()),
            size_bytes: text.len() as u64,
        };
        let task = |name: &&str| SuiteTask {
            task: (*name).to_owned(),
            yaml: blob(name),
            data: BTreeMap::from([("test".to_owned(), vec![blob("data")])]),
        };
        SuiteDefinition {
            suite: suite.to_owned(),
            tasks: tasks.iter().map(task).collect(),
            limit: None,
            num_fewshot: None,
        }
    }

    #[test]
    fn the_digest_covers_content_and_not_the_name() {
        let base = definition("a", &["x", "y"]);
        assert_eq!(definition("b", &["y", "x"]).digest(), base.digest());
        assert_ne!(definition("a", &["x"]).digest(), base.digest());
        assert_ne!(
            SuiteDefinition {
                limit: Some(3),
                ..base.clone()
            }
            .digest(),
            base.digest()
        );
        assert_ne!(
            SuiteDefinition {
                num_fewshot: Some(3),
                ..base.clone()
            }
            .digest(),
            base.digest()
        );
    }

    #[test]
    fn a_definition_that_breaks_a_rule_is_refused() {
        assert!(definition("a", &["x", "y"]).check().is_ok());
        for bad in [
            definition("", &["x"]),
            definition("a b", &["x"]),
            definition("a", &[]),
            definition("a", &["x", "x"]),
        ] {
            assert!(bad.check().is_err());
        }
    }

    #[test]
    fn a_suite_file_is_read_with_its_defaults() {
        let file = SuiteFile::parse("suite: s\ntasks: [a.yaml]\nlimit: 5\n").unwrap();
        assert_eq!(
            (file.limit, file.dtype, file.num_fewshot),
            (Some(5), EvalDtype::Float32, None)
        );
        for bad in [
            "suite: s\n",
            "suite: s\ntasks: []\n",
            "suite: s\ntasks: [a]\nlimits: 5\n",
            "suite: s\ntasks: [a]\ndtype: f8\n",
        ] {
            assert!(SuiteFile::parse(bad).is_err(), "{bad}");
        }
    }
}
