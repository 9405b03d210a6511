//! A task as lm-eval's YAML says it, read without running anything.
//!
//! One parser serves the command line (which collects a task's data files), the registry (which checks uploads) and the
//! evaluator (which runs it). Not here: templates, prompts and metrics, which are the evaluator's.
//!
//! **Invariant:** a field or a value that is not understood is refused by name, never passed over: a task either means
//! what lm-eval means by it, or it does not run.

use std::collections::BTreeMap;
use std::fmt;

use serde_yaml_ng::{Mapping, Value};

use crate::error::shown;
use crate::yaml;

/// Why a task is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task `{task}` is refused: {what}")]
pub struct TaskError {
    task: String,
    what: String,
}

/// What a task asks of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputType {
    /// The log-likelihoods of several continuations of one context.
    MultipleChoice,
    /// The log-likelihood of one continuation.
    Loglikelihood,
    /// The log-likelihood of a whole text.
    LoglikelihoodRolling,
}

/// How a document gives a text, a target or choices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A field's name or a Jinja template, told apart by the document's fields.
    Text(String),
    /// A fixed number.
    Int(i64),
    /// A fixed list.
    List(Vec<String>),
}

/// A metric of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Share of right decisions.
    Acc,
    /// The same by log-likelihood over the continuation's characters.
    AccNorm,
    /// exp of the mean negative log-likelihood.
    Perplexity,
    /// exp of the negative log-likelihood per word.
    WordPerplexity,
    /// exp of the negative log-likelihood per byte.
    BytePerplexity,
    /// Negative log-likelihood per byte, in bits.
    BitsPerByte,
}

impl Metric {
    /// lm-eval's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Acc => "acc",
            Self::AccNorm => "acc_norm",
            Self::Perplexity => "perplexity",
            Self::WordPerplexity => "word_perplexity",
            Self::BytePerplexity => "byte_perplexity",
            Self::BitsPerByte => "bits_per_byte",
        }
    }

    /// Which way is better.
    pub const fn higher_is_better(self) -> bool {
        matches!(self, Self::Acc | Self::AccNorm)
    }

    const fn of(output: OutputType) -> &'static [Self] {
        match output {
            OutputType::MultipleChoice => &[Self::Acc, Self::AccNorm],
            OutputType::Loglikelihood => &[Self::Perplexity, Self::Acc],
            OutputType::LoglikelihoodRolling => &[Self::WordPerplexity, Self::BytePerplexity, Self::BitsPerByte],
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFile {
    /// Its name.
    pub task: String,
    /// What it asks.
    pub output_type: OutputType,
    /// Its data files by split, relative to the YAML.
    pub data_files: BTreeMap<String, Vec<String>>,
    /// The split that is scored: the test split, else the validation split.
    pub scored_split: String,
    /// The split that shots come from.
    pub fewshot_split: Option<String>,
    /// Shots.
    pub num_fewshot: u32,
    /// What stands before everything.
    pub description: String,
    /// What stands between shots.
    pub fewshot_delimiter: String,
    /// What stands between a context and its continuation.
    pub target_delimiter: String,
    /// The context.
    pub doc_to_text: Source,
    /// The right answer.
    pub doc_to_target: Source,
    /// The choices.
    pub doc_to_choice: Option<Source>,
    /// The metrics, in the file's order.
    pub metrics: Vec<Metric>,
    /// `metadata.version`, as written.
    pub version: String,
}

/// Fields that say nothing about what is scored, or what only other backends use.
const IRRELEVANT: &[&str] = &[
    "tag",
    "task_alias",
    "dataset_name",
    "should_decontaminate",
    "doc_to_decontamination_query",
];

impl TaskFile {
    /// Reads a task.
    ///
    /// # Errors
    /// [`TaskError`] that names the task, the field, and what to do.
    pub fn parse(yaml: &str) -> Result<Self, TaskError> {
        let refused = |task: &str, what: String| TaskError {
            task: shown(task),
            what: shown(&what),
        };
        let root = yaml::parse(yaml).map_err(|error| refused("?", format!("no YAML: {error}")))?;
        let Value::Mapping(fields) = root else {
            return Err(refused("?", "the YAML is no mapping".to_owned()));
        };
        let task = match fields.get("task") {
            Some(Value::String(task)) if is_name(task) => task.clone(),
            other => {
                return Err(refused(
                    "?",
                    format!("`task` must be a name of 1 to 128 bytes, it is {other:?}"),
                ));
            }
        };
        Fields { fields }.read(&task).map_err(|what| refused(&task, what))
    }
}

fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len()) && !name.chars().any(char::is_control)
}

struct Fields {
    fields: Mapping,
}

type Res<T> = Result<T, String>;

impl Fields {
    fn read(mut self, task: &str) -> Res<TaskFile> {
        for (key, value) in &self.fields {
            refuse_functions(key.as_str().unwrap_or("?"), value)?;
        }
        self.fields.remove("task");
        for field in IRRELEVANT {
            self.fields.remove(*field);
        }
        let output_type = self.output_type()?;
        let data_files = self.data_files()?;
        let splits = ["test_split", "validation_split", "training_split", "fewshot_split"].map(|key| self.text(key));
        let [test, validation, training, fewshot] = splits;
        let (test, validation, training, fewshot) = (test?, validation?, training?, fewshot?);
        let scored_split = test
            .or_else(|| validation.clone())
            .ok_or("it needs a `test_split` or a `validation_split`")?;
        if !data_files.contains_key(&scored_split) {
            return Err(format!("`data_files` has nothing for the split `{scored_split}`"));
        }
        let fewshot_split = fewshot.or(training).or(validation);
        let (doc_to_text, doc_to_target) = (self.source("doc_to_text")?, self.source("doc_to_target")?);
        let doc_to_choice = self.source("doc_to_choice")?;
        if output_type == OutputType::MultipleChoice && doc_to_choice.is_none() {
            return Err("`multiple_choice` needs `doc_to_choice`".to_owned());
        }
        self.sampler()?;
        self.fixed("repeats", &Value::from(1))?;
        let task_file = TaskFile {
            task: task.to_owned(),
            output_type,
            data_files,
            scored_split,
            fewshot_split,
            num_fewshot: self.number("num_fewshot")?.unwrap_or(0),
            description: self.text("description")?.unwrap_or_default(),
            fewshot_delimiter: self.text("fewshot_delimiter")?.unwrap_or_else(|| "\n\n".to_owned()),
            target_delimiter: self.text("target_delimiter")?.unwrap_or_else(|| " ".to_owned()),
            doc_to_text: doc_to_text.unwrap_or_else(|| Source::Text(String::new())),
            doc_to_target: doc_to_target.ok_or("`doc_to_target` is missing")?,
            doc_to_choice,
            metrics: self.metrics(output_type)?,
            version: self.version()?,
        };
        match self.fields.keys().next() {
            Some(key) => Err(format!(
                "its field `{}` is not understood: take it away",
                key.as_str().unwrap_or("?")
            )),
            None => Ok(task_file),
        }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.fields.remove(key).filter(|value| !value.is_null())
    }

    fn text(&mut self, key: &str) -> Res<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("`{key}` must be text")),
        }
    }

    fn number(&mut self, key: &str) -> Res<Option<u32>> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => {
                let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
                number
                    .map(Some)
                    .ok_or_else(|| format!("`{key}` must be a number from 0 on"))
            }
        }
    }

    fn fixed(&mut self, key: &str, only: &Value) -> Res<()> {
        match self.take(key) {
            Some(value) if value != *only => Err(format!("`{key}` may only be {only:?} so far")),
            _ => Ok(()),
        }
    }

    fn output_type(&mut self) -> Res<OutputType> {
        match self.text("output_type")?.as_deref() {
            Some("multiple_choice") => Ok(OutputType::MultipleChoice),
            Some("loglikelihood") => Ok(OutputType::Loglikelihood),
            Some("loglikelihood_rolling") => Ok(OutputType::LoglikelihoodRolling),
            Some(other) => Err(format!(
                "output type `{other}` is not supported: use `multiple_choice`, `loglikelihood` or `loglikelihood_rolling`"
            )),
            None => Err("`output_type` is missing".to_owned()),
        }
    }

    fn data_files(&mut self) -> Res<BTreeMap<String, Vec<String>>> {
        match self.text("dataset_path")?.as_deref() {
            Some("json") => {}
            Some(other) => {
                return Err(format!(
                    "`dataset_path` is `{other}`: only `json` with local `data_files` so far"
                ));
            }
            None => return Err("`dataset_path` is missing: use `json` with `data_files`".to_owned()),
        }
        let Some(Value::Mapping(mut kwargs)) = self.take("dataset_kwargs") else {
            return Err("`dataset_kwargs` with `data_files` is missing".to_owned());
        };
        let Some(Value::Mapping(files)) = kwargs.remove("data_files") else {
            return Err("`data_files` must name files by split".to_owned());
        };
        if let Some(key) = kwargs.keys().next() {
            return Err(format!(
                "`dataset_kwargs.{}` is not understood",
                key.as_str().unwrap_or("?")
            ));
        }
        let mut data_files = BTreeMap::new();
        for (split, value) in files {
            let split = split.as_str().ok_or("a split of `data_files` is no text")?.to_owned();
            let paths = strings(&value).filter(|paths| !paths.is_empty());
            let paths = paths.ok_or_else(|| format!("`data_files.{split}` must be a path or a list of paths"))?;
            let is_jsonl = |path: &String| [".jsonl", ".json"].iter().any(|end| path.ends_with(end));
            if let Some(path) = paths.iter().find(|path| !is_jsonl(path)) {
                return Err(format!("data file `{path}` is no JSONL: only JSONL is read so far"));
            }
            data_files.insert(split, paths);
        }
        Ok(data_files)
    }

    fn source(&mut self, key: &str) -> Res<Option<Source>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(Source::Text(text))),
            Some(Value::Number(number)) => match number.as_i64() {
                Some(number) => Ok(Some(Source::Int(number))),
                None => Err(format!("`{key}` may be a whole number, it is {number}")),
            },
            Some(value @ Value::Sequence(_)) => match strings(&value) {
                Some(list) => Ok(Some(Source::List(list))),
                None => Err(format!("`{key}` must be a list of texts (quote `yes` and `no`)")),
            },
            Some(_) => Err(format!("`{key}` must be text, a number or a list of texts")),
        }
    }

    fn sampler(&mut self) -> Res<()> {
        let Some(config) = self.take("fewshot_config") else {
            return Ok(());
        };
        let Value::Mapping(mut config) = config else {
            return Err("`fewshot_config` is no mapping".to_owned());
        };
        match config.remove("sampler") {
            None => {}
            Some(Value::String(sampler)) if sampler == "first_n" => {}
            Some(other) => return Err(format!("few-shot sampler {other:?} is not supported: use `first_n`")),
        }
        match config.keys().next() {
            Some(key) => Err(format!(
                "`fewshot_config.{}` is not understood",
                key.as_str().unwrap_or("?")
            )),
            None => Ok(()),
        }
    }

    fn metrics(&mut self, output: OutputType) -> Res<Vec<Metric>> {
        let possible = Metric::of(output);
        let Some(list) = self.take("metric_list") else {
            return Ok(possible.to_vec());
        };
        let Value::Sequence(list) = list else {
            return Err("`metric_list` is no list".to_owned());
        };
        let mut metrics = Vec::new();
        for entry in list {
            let name = entry
                .get("metric")
                .and_then(Value::as_str)
                .ok_or("an entry of `metric_list` has no `metric`")?;
            let metric = possible.iter().copied().find(|metric| metric.as_str() == name);
            let known: Vec<_> = possible.iter().map(|metric| metric.as_str()).collect();
            let metric =
                metric.ok_or_else(|| format!("metric `{name}` is not supported here: use {}", known.join(", ")))?;
            for (key, value) in entry.as_mapping().into_iter().flatten() {
                let usual = match key.as_str() {
                    Some("metric") => true,
                    Some("aggregation") => ["mean", "perplexity", "weighted_perplexity", "bits_per_byte"]
                        .iter()
                        .any(|name| value.as_str() == Some(name)),
                    Some("higher_is_better") => value.as_bool() == Some(metric.higher_is_better()),
                    _ => false,
                };
                if !usual {
                    let key = key.as_str().unwrap_or("?");
                    return Err(format!("metric `{name}` with `{key}: {value:?}` is not supported"));
                }
            }
            metrics.push(metric);
        }
        if metrics.is_empty() {
            Err("`metric_list` is empty".to_owned())
        } else {
            Ok(metrics)
        }
    }

    fn version(&mut self) -> Res<String> {
        let version = self
            .take("metadata")
            .and_then(|metadata| metadata.get("version").cloned());
        match version {
            None => Ok(String::new()),
            Some(Value::String(version)) => Ok(version),
            Some(Value::Number(version)) => Ok(version.to_string()),
            Some(_) => Err("`metadata.version` must be a number or text".to_owned()),
        }
    }
}

fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Sequence(list) => list.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// A `!function` is Python that we never run.
fn refuse_functions(field: &str, value: &Value) -> Res<()> {
    match value {
        Value::Tagged(tagged) => {
            let function = tagged.value.as_str().unwrap_or("?");
            Err(format!(
                "its field `{field}` is `{} {function}`, Python that is never run here: write it as a template, or prepare \
                 the data before",
                tagged.tag
            ))
        }
        Value::Mapping(map) => map.values().try_for_each(|value| refuse_functions(field, value)),
        Value::Sequence(list) => list.iter().try_for_each(|value| refuse_functions(field, value)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "task: t\ndataset_path: json\ndataset_kwargs: {data_files: {test: a.jsonl}}\n\
        output_type: multiple_choice\ntest_split: test\ndoc_to_text: q\ndoc_to_target: 0\ndoc_to_choice: [a, b]\n";

    #[test]
    fn defaults_are_lm_evals() {
        let task = TaskFile::parse(GOOD).unwrap();
        assert_eq!(task.metrics, [Metric::Acc, Metric::AccNorm]);
        assert_eq!(
            (task.target_delimiter.as_str(), task.fewshot_delimiter.as_str()),
            (" ", "\n\n")
        );
        assert_eq!(task.doc_to_target, Source::Int(0));
        assert_eq!(task.data_files["test"], ["a.jsonl"]);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let cases = [
            (
                "doc_to_text: !function utils.f\n",
                "`doc_to_text` is `!function utils.f`",
            ),
            ("process_docs: !function utils.g\n", "utils.g"),
            ("shuffle: true\n", "`shuffle` is not understood"),
            ("output_type: generate_until\n", "`generate_until` is not supported"),
            ("metric_list: [{metric: f1}]\n", "metric `f1`"),
            ("fewshot_config: {sampler: random}\n", "sampler"),
            ("doc_to_choice: [yes, no]\n", ""),
            ("dataset_path: org/name\n", "`org/name`"),
        ];
        for (extra, expected) in cases {
            let key = extra.split(':').next().unwrap();
            let yaml: String = GOOD
                .lines()
                .filter(|line| !line.starts_with(&format!("{key}:")))
                .map(|line| format!("{line}\n"))
                .collect();
            match TaskFile::parse(&format!("{yaml}{extra}")) {
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("task `t`") && text.contains(expected), "{text}");
                }
                Ok(_) => assert!(expected.is_empty(), "{extra} passed"),
            }
        }
    }

    #[test]
    fn real_tasks_are_read_or_refused_for_their_functions() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/lm_eval/tasks");
        let Ok(entries) = std::fs::read_dir(&dir) else {
            println!("skipped: format/task: there is no ../shared/data beside the clone");
            return;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            let yaml = std::fs::read_to_string(&path).unwrap();
            let refused = yaml.contains("!function") || yaml.contains("generate_until");
            assert_eq!(
                TaskFile::parse(&yaml).is_err(),
                refused,
                "{}: {:?}",
                path.display(),
                TaskFile::parse(&yaml).err()
            );
        }
    }
}
