//! Suites of tasks: the file that a user writes, and the definition that is uploaded and named by its digest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::shown;
use crate::{Digest, yaml};

/// The most tasks of a suite, and of its groups together, and its most groups.
const MAX_TASKS: usize = 1000;

/// The most metrics of a group.
const MAX_GROUP_METRICS: usize = 32;

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
    /// Paths of task files, relative to this file or absolute, and names of the library.
    pub tasks: Vec<String>,
    /// Where the data of the library's tasks come from.
    #[serde(default)]
    pub data: Option<String>,
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
    /// What a file would say that has nothing but one name of the library.
    pub fn of_one(name: &str) -> Self {
        Self {
            suite: name.to_owned(),
            tasks: vec![name.to_owned()],
            data: None,
            limit: None,
            dtype: EvalDtype::default(),
            num_fewshot: None,
            gen_kwargs: BTreeMap::new(),
        }
    }

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

/// A group of a suite's tasks, whose scores are brought together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuiteGroup {
    /// Its name, which no task has.
    pub group: String,
    /// `metadata.version`, as written.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Its tasks and those of the groups in it.
    pub tasks: Vec<String>,
    /// What is brought together.
    pub metrics: Vec<GroupMetric>,
}

/// A metric of a group: the mean of its tasks'.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupMetric {
    /// The metric.
    pub metric: String,
    /// The filters; all that its tasks have where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
    /// Whether a task counts by its samples.
    pub weight_by_size: bool,
}

/// A suite as uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuiteDefinition {
    /// Its name.
    pub suite: String,
    /// Its tasks.
    pub tasks: Vec<SuiteTask>,
    /// Its groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<SuiteGroup>,
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
        if let Some(task) = self.tasks.iter().find(|task| !names.insert(&task.task)) {
            return Err(SuiteError(format!(
                "suite `{}` has task `{}` twice",
                self.suite, task.task
            )));
        }
        self.check_groups(&names)
    }

    /// Every group has a name of its own and tasks of the suite.
    fn check_groups(&self, tasks: &BTreeSet<&String>) -> Result<(), SuiteError> {
        let refused = |group: &str, what: &str| {
            let group = shown(group);
            Err(SuiteError(format!("group `{group}` of suite `{}` {what}", self.suite)))
        };
        let mut names = BTreeSet::new();
        let mut n_tasks = 0;
        for SuiteGroup {
            group,
            version,
            tasks: its,
            metrics,
        } in &self.groups
        {
            let is_name = |name: &str| (1..=300).contains(&name.len()) && !name.contains(char::is_control);
            if !is_name(group) || version.len() > 128 || tasks.contains(group) || !names.insert(group) {
                return refused(
                    group,
                    "needs a name of 1 to 300 bytes that no task and no other group has",
                );
            }
            n_tasks += its.len();
            if its.is_empty() || n_tasks > 16 * MAX_TASKS || its.iter().collect::<BTreeSet<_>>().len() != its.len() {
                return refused(
                    group,
                    "needs tasks, each once, and not too many with those of the other groups",
                );
            }
            if let Some(task) = its.iter().find(|task| !tasks.contains(*task)) {
                return refused(group, &format!("has task `{}`, which the suite has not", shown(task)));
            }
            let words = |metric: &GroupMetric| {
                is_name(&metric.metric)
                    && metric.filters.len() <= MAX_GROUP_METRICS
                    && metric.filters.iter().all(|filter| is_name(filter))
            };
            if !(1..=MAX_GROUP_METRICS).contains(&metrics.len()) || !metrics.iter().all(words) {
                return refused(group, &format!("needs 1 to {MAX_GROUP_METRICS} metrics with names"));
            }
        }
        if self.groups.len() > MAX_TASKS {
            return Err(SuiteError(format!(
                "suite `{}` has more than {MAX_TASKS} groups",
                self.suite
            )));
        }
        Ok(())
    }

    /// The suite's digest: SHA-256 of the definition as JSON without white space and without the name, fields and
    /// splits in fixed order, tasks and groups sorted by name. It covers YAML, data, groups, limit and shots.
    pub fn digest(&self) -> Digest {
        let mut nameless = Self {
            suite: String::new(),
            ..self.clone()
        };
        nameless.tasks.sort_by(|a, b| a.task.cmp(&b.task));
        nameless.groups.sort_by(|a, b| a.group.cmp(&b.group));
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
            groups: Vec::new(),
            limit: None,
            num_fewshot: None,
        }
    }

    fn group(name: &str, tasks: &[&str]) -> SuiteGroup {
        SuiteGroup {
            group: name.to_owned(),
            version: String::new(),
            tasks: tasks.iter().map(|task| (*task).to_owned()).collect(),
            metrics: vec![GroupMetric {
                metric: "acc".to_owned(),
                filters: Vec::new(),
                weight_by_size: true,
            }],
        }
    }

    #[test]
    fn a_group_has_a_name_of_its_own_and_tasks_of_the_suite() {
        let with = |groups: &[SuiteGroup]| SuiteDefinition {
            groups: groups.to_vec(),
            ..definition("a", &["x", "y"])
        };
        let good = with(&[group("g", &["x", "y"]), group("h", &["x"])]);
        assert!(good.check().is_ok());
        assert_ne!(good.digest(), definition("a", &["x", "y"]).digest());
        assert_eq!(
            good.digest(),
            with(&[group("h", &["x"]), group("g", &["x", "y"])]).digest()
        );
        for bad in [
            group("x", &["y"]),
            group("", &["y"]),
            group("g", &[]),
            group("g", &["z"]),
            group("g", &["x", "x"]),
        ] {
            assert!(with(&[bad]).check().is_err());
        }
        assert!(with(&[group("g", &["x"]), group("g", &["y"])]).check().is_err());
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
