//! Where a task's shots come from and how they are written.

use serde_yaml_ng::{Mapping, Value};

use super::fields::{Fields, Res, json, refuse_functions};
use super::{Function, Role, Source};

/// The shots of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fewshot {
    /// How they are drawn.
    pub sampler: Sampler,
    /// What they are drawn from; nothing where the task has no split for them.
    pub pool: Option<Pool>,
    /// Whether one more is drawn and the document itself is dropped: lm-eval does so where the few-shot split is the
    /// test split by name, and also where the task names neither.
    pub drops_document: bool,
    /// The question of a shot.
    pub doc_to_text: Source,
    /// The answer of a shot.
    pub doc_to_target: Source,
    /// The choices of a shot.
    pub doc_to_choice: Option<Source>,
    /// What prepares its documents.
    pub process_docs: Option<Function>,
    /// What stands before its answer.
    pub gen_prefix: Option<String>,
    /// What stands behind a shot.
    pub delimiter: String,
    /// What stands between question and answer.
    pub target_delimiter: String,
}

/// How shots are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampler {
    /// By chance, from one generator a task.
    Default,
    /// The first ones of the pool.
    FirstN,
}

/// What shots are drawn from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pool {
    /// A split of the data.
    Split(String),
    /// Documents that stand in the task's file.
    Samples(Vec<serde_json::Value>),
}

/// What a shot has from its task where `fewshot_config` says nothing else.
#[derive(Debug)]
pub(super) struct Inherited {
    pub(super) fewshot: Fewshot,
    pub(super) fewshot_split: Option<String>,
    /// The test, training and validation splits.
    pub(super) splits: [Option<String>; 3],
}

impl Fields {
    pub(super) fn fewshot(&mut self, inherited: Inherited) -> Res<Fewshot> {
        let Inherited {
            mut fewshot,
            fewshot_split,
            splits,
        } = inherited;
        let mut config = match self.take("fewshot_config") {
            None => self.nested(Mapping::new(), "fewshot_config."),
            Some(Value::Mapping(fields)) => self.nested(fields, "fewshot_config."),
            Some(_) => return Err("`fewshot_config` is no mapping".to_owned()),
        };
        fewshot.sampler = match config.take("sampler") {
            None => Sampler::Default,
            Some(Value::String(sampler)) if sampler == "default" => Sampler::Default,
            Some(Value::String(sampler)) if sampler == "first_n" => Sampler::FirstN,
            Some(other) => {
                refuse_functions("fewshot_config.sampler", &other)?;
                return Err(format!(
                    "few-shot sampler {other:?} is not supported: use `default` or `first_n`"
                ));
            }
        };
        let split = config.text("split")?.or(fewshot_split);
        let samples = match config.take("samples") {
            None => None,
            Some(value) => {
                refuse_functions("fewshot_config.samples", &value)?;
                match json(&value) {
                    Some(serde_json::Value::Array(docs)) if docs.iter().all(serde_json::Value::is_object) => Some(docs),
                    _ => return Err("`fewshot_config.samples` must be a list of documents".to_owned()),
                }
            }
        };
        let [test, training, validation] = splits;
        fewshot.drops_document = split == test;
        fewshot.pool = match (split, samples) {
            (Some(split), _) => Some(Pool::Split(split)),
            (None, Some(docs)) => Some(Pool::Samples(docs)),
            (None, None) => training.or(validation).or(test).map(Pool::Split),
        };
        if let Some(source) = config.source("doc_to_text", Role::Text)? {
            fewshot.doc_to_text = source;
        }
        if let Some(source) = config.source("doc_to_target", Role::Target)? {
            fewshot.doc_to_target = source;
        }
        if let Some(source) = config.source("doc_to_choice", Role::Choice)? {
            fewshot.doc_to_choice = Some(source);
        }
        if let Some(function) = config.function("process_docs", Role::Docs)? {
            fewshot.process_docs = Some(function);
        }
        if let Some(prefix) = config.text("gen_prefix")? {
            fewshot.gen_prefix = Some(prefix);
        }
        if let Some(delimiter) = config.text("fewshot_delimiter")? {
            fewshot.delimiter = delimiter;
        }
        if let Some(delimiter) = config.text("target_delimiter")? {
            fewshot.target_delimiter = delimiter;
        }
        match config.fields.keys().next() {
            Some(key) => Err(format!(
                "`fewshot_config.{}` is not understood",
                key.as_str().unwrap_or("?")
            )),
            None => Ok(fewshot),
        }
    }

    fn nested(&self, fields: Mapping, within: &'static str) -> Self {
        Self {
            fields,
            within,
            task: self.task.clone(),
        }
    }
}
