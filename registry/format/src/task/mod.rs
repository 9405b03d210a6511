//! A task as lm-eval's YAML says it, read without running anything.
//!
//! One parser serves the command line (which collects a task's data files), the registry (which checks uploads) and the
//! evaluator (which runs it). Not here: templates, prompts and metrics, which are the evaluator's.
//!
//! **Invariant:** a field or a value that is not understood is refused by name, never passed over: a task either means
//! what lm-eval means by it, or it does not run.

mod fewshot;
mod fields;
mod filter;
mod function;
mod generation;
mod metric;
mod raw;

use std::collections::BTreeMap;

use serde_yaml_ng::Value;

pub use fewshot::{Fewshot, Pool, Sampler};
pub use fields::DataFormat;
pub use filter::{Extraction, Filter, FilterPipeline};
pub use function::{Builtin, Function, Role};
pub use generation::Generating;
pub use metric::{ExactMatch, Metric};
pub use raw::{Member, RawGroup, RawTask};

use crate::error::shown;
use crate::yaml;
use fewshot::Inherited;
use fields::{Fields, Res, refuse_functions};

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
    /// The log-likelihoods of several continuations of one context, or of one continuation of several contexts.
    MultipleChoice,
    /// The log-likelihood of one continuation.
    Loglikelihood,
    /// The log-likelihood of a whole text.
    LoglikelihoodRolling,
    /// A text that goes on from a context.
    GenerateUntil,
}

impl OutputType {
    /// lm-eval's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MultipleChoice => "multiple_choice",
            Self::Loglikelihood => "loglikelihood",
            Self::LoglikelihoodRolling => "loglikelihood_rolling",
            Self::GenerateUntil => "generate_until",
        }
    }
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
    /// A preparation of lm-eval's own that is built in.
    Function(Function),
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFile {
    /// Its name.
    pub task: String,
    /// What it asks.
    pub output_type: OutputType,
    /// The container of its data files.
    pub data_format: DataFormat,
    /// Its data files by split, relative to the YAML.
    pub data_files: BTreeMap<String, Vec<String>>,
    /// The split that is scored: the test split, else the validation split.
    pub scored_split: String,
    /// What prepares its documents.
    pub process_docs: Option<Function>,
    /// Shots; a task that says 0 itself stays without, whatever a suite asks for, as in lm-eval.
    pub num_fewshot: Option<u32>,
    /// Where its shots come from.
    pub fewshot: Fewshot,
    /// What stands before everything.
    pub description: String,
    /// What stands between a context and its continuation.
    pub target_delimiter: String,
    /// What stands at the end of a context.
    pub gen_prefix: Option<String>,
    /// The context; a number of the choices where they stand in the contexts.
    pub doc_to_text: Source,
    /// The right answer.
    pub doc_to_target: Source,
    /// The choices.
    pub doc_to_choice: Option<Source>,
    /// What works out results in place of the metrics' own rules.
    pub process_results: Option<Function>,
    /// The metrics, in the file's order.
    pub metrics: Vec<Metric>,
    /// The settings of `exact_match`.
    pub exact_match: ExactMatch,
    /// What it asks of generation, where it generates.
    pub generating: Option<Generating>,
    /// From answers to what is scored; each is scored on its own.
    pub filters: Vec<FilterPipeline>,
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
        let fields = Fields {
            fields,
            within: "",
            task: task.clone(),
        };
        fields.read(&task).map_err(|what| refused(&task, what))
    }
}

impl TaskFile {
    /// The shots of a document when a suite asks for so many: a task that says 0 itself stays without, as in lm-eval.
    pub fn shots(&self, asked: Option<u32>) -> u32 {
        match self.num_fewshot {
            Some(0) => 0,
            own => asked.or(own).unwrap_or(0),
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len()) && !name.chars().any(char::is_control)
}

impl Fields {
    fn read(mut self, task: &str) -> Res<TaskFile> {
        if self.fields.contains_key("include") {
            return Err(
                "its field `include` names another file: put both into one, as `fineline suite apply` does".to_owned(),
            );
        }
        self.fields.remove("task");
        for field in IRRELEVANT {
            self.fields.remove(*field);
        }
        self.fixed("unsafe_code", &Value::from(false))?;
        self.fixed("repeats", &Value::from(1))?;
        let output_type = self.output_type()?;
        let (data_format, data_files) = self.data()?;
        let splits = ["test_split", "training_split", "validation_split"].map(|key| self.text(key));
        let [test, training, validation] = splits;
        let (test, training, validation) = (test?, training?, validation?);
        let scored_split = test
            .clone()
            .or_else(|| validation.clone())
            .ok_or("it needs a `test_split` or a `validation_split`")?;
        if !data_files.contains_key(&scored_split) {
            return Err(format!("`data_files` has nothing for the split `{scored_split}`"));
        }
        let doc_to_text = self.source("doc_to_text", Role::Text)?;
        let doc_to_text = doc_to_text.unwrap_or_else(|| Source::Text(String::new()));
        let doc_to_target = self.source("doc_to_target", Role::Target)?;
        let doc_to_target = doc_to_target.ok_or("`doc_to_target` is missing")?;
        let doc_to_choice = self.source("doc_to_choice", Role::Choice)?;
        if output_type == OutputType::MultipleChoice && doc_to_choice.is_none() {
            return Err("`multiple_choice` needs `doc_to_choice`".to_owned());
        }
        let process_docs = self.function("process_docs", Role::Docs)?;
        let process_results = self.function("process_results", Role::Results)?;
        let delimiter = self.text("fewshot_delimiter")?.unwrap_or_else(|| "\n\n".to_owned());
        let target_delimiter = self.text("target_delimiter")?.unwrap_or_else(|| " ".to_owned());
        let gen_prefix = self.text("gen_prefix")?;
        let generating = self.generating(output_type, &delimiter)?;
        let fewshot_split = self.text("fewshot_split")?;
        let fewshot = self.fewshot(Inherited {
            fewshot: Fewshot {
                sampler: Sampler::Default,
                pool: None,
                drops_document: false,
                doc_to_text: doc_to_text.clone(),
                doc_to_target: doc_to_target.clone(),
                doc_to_choice: doc_to_choice.clone(),
                process_docs: process_docs.clone(),
                gen_prefix: gen_prefix.clone(),
                delimiter,
                target_delimiter: target_delimiter.clone(),
            },
            fewshot_split,
            splits: [test, training, validation],
        })?;
        let (metrics, exact_match) = self.metrics(output_type, process_results.as_ref())?;
        let task_file = TaskFile {
            task: task.to_owned(),
            output_type,
            data_format,
            data_files,
            scored_split,
            process_docs,
            num_fewshot: self.number("num_fewshot")?,
            fewshot,
            description: self.text("description")?.unwrap_or_default(),
            target_delimiter,
            gen_prefix,
            doc_to_text,
            doc_to_target,
            doc_to_choice,
            process_results,
            metrics,
            exact_match,
            generating,
            filters: self.filters(output_type)?,
            version: self.version()?,
        };
        // What is null says nothing, as in lm-eval's own files.
        self.fields.retain(|_, value| !value.is_null());
        match self.fields.iter().next() {
            Some((key, value)) => {
                let key = key.as_str().unwrap_or("?");
                refuse_functions(key, value)?;
                Err(format!("its field `{key}` is not understood: take it away"))
            }
            None => Ok(task_file),
        }
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
            (task.target_delimiter.as_str(), task.fewshot.delimiter.as_str()),
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
            ("output_type: chat\n", "`chat` is not supported"),
            ("metric_list: [{metric: bleu}]\n", "metric `bleu`"),
            ("metric_list: [{metric: acc, aggregation: median}]\n", "`aggregation:"),
            ("metric_list: [{metric: acc, aggregation: !function a.b}]\n", "a.b"),
            ("fewshot_config: {sampler: random}\n", "sampler"),
            ("fewshot_config: {samples: !function utils.shots}\n", "utils.shots"),
            (
                "fewshot_config: {fewshot_indices: [1]}\n",
                "`fewshot_config.fewshot_indices`",
            ),
            (
                "filter_list: [{name: f, filter: [{function: lowercase}]}]\n",
                "filter `f`",
            ),
            ("repeats: 2\n", "`repeats` may only be 1"),
            (
                "process_docs: !function utils_copa.doc_to_text\n",
                "utils_copa.doc_to_text",
            ),
            ("doc_to_choice: [yes, no]\n", ""),
            ("doc_to_choice: {a: x, b: y}\n", ""),
            ("doc_to_text: !function utils_copa.doc_to_text\n", ""),
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
    fn real_tasks_are_read() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/lm_eval/tasks");
        let Ok(entries) = std::fs::read_dir(&dir) else {
            println!("skipped: format/task: there is no ../shared/data beside the clone");
            return;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            let yaml = std::fs::read_to_string(&path).unwrap();
            assert_eq!(TaskFile::parse(&yaml).err(), None, "{}", path.display());
        }
    }

    const GENERATES: &str = "task: g\ndataset_path: json\ndataset_kwargs: {data_files: a.jsonl}\n\
        validation_split: train\ndoc_to_text: q\ndoc_to_target: a\n";

    #[test]
    fn what_generates_has_lm_evals_defaults() {
        let task = TaskFile::parse(GENERATES).unwrap();
        assert_eq!(task.output_type, OutputType::GenerateUntil);
        let generating = task.generating.unwrap();
        assert_eq!(
            (generating.max_tokens, generating.until),
            (256, vec!["\n\n".to_owned()])
        );
        let logged = serde_json::to_string(&generating.kwargs).unwrap();
        assert_eq!(
            logged,
            r#"{"temperature":0.0,"do_sample":false,"max_gen_toks":256,"until":["\n\n"]}"#
        );
        assert_eq!(task.metrics, [Metric::ExactMatch]);
        assert_eq!(task.filters[0].steps, [Filter::TakeFirst]);
        // Neither a few-shot split nor a test split: lm-eval takes them for the same.
        assert!(task.fewshot.drops_document);
        assert_eq!(task.fewshot.pool, Some(Pool::Split("train".to_owned())));
    }

    #[test]
    fn sampling_and_unknown_settings_of_generation_are_refused_by_name() {
        for (extra, expected) in [
            ("generation_kwargs: {do_sample: true}", "`generation_kwargs.do_sample`"),
            (
                "generation_kwargs: {temperature: 0.7}",
                "`generation_kwargs.temperature`",
            ),
            ("generation_kwargs: {top_p: 0.9}", "`generation_kwargs.top_p`"),
            (
                "generation_kwargs: {max_gen_toks: 0}",
                "`generation_kwargs.max_gen_toks`",
            ),
            ("generation_kwargs: {until: [1]}", "`generation_kwargs.until`"),
            (
                "filter_list: [{name: f, filter: [{function: format_span}]}]",
                "`format_span`",
            ),
            (
                "filter_list: [{name: f, filter: [{function: regex, flags: 1}]}]",
                "`flags`",
            ),
            (
                "filter_list: [{name: f, filter: [{function: custom, filter_fn: !function a.b}]}]",
                "a.b",
            ),
            ("filter_list: [{name: f, filter: []}]", "1 to 32 functions"),
            (
                "filter_list: [{name: f, filter: [{function: take_first}, {function: lowercase}]}]",
                "must end with its only `take_first`",
            ),
        ] {
            let error = TaskFile::parse(&format!("{GENERATES}{extra}\n"))
                .unwrap_err()
                .to_string();
            assert!(error.contains("task `g`") && error.contains(expected), "{error}");
        }
    }
}
