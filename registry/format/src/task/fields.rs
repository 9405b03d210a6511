//! The fields of a task's mapping, taken one by one: what is left at the end was not understood.

use std::collections::BTreeMap;

use serde_yaml_ng::{Mapping, Value};

use super::{Function, OutputType, Role, Source};

pub(super) type Res<T> = Result<T, String>;

/// A mapping whose fields are taken.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) fields: Mapping,
    /// What its fields stand in, for messages: empty, or `fewshot_config.`.
    pub(super) within: &'static str,
    /// The task's name.
    pub(super) task: String,
}

/// The container that the data files are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataFormat {
    /// JSON objects, one a line or in one array.
    Json,
    /// Comma-separated values with a first line of names.
    Csv,
    /// Parquet, which the command line turns into JSON lines: nobody else reads it.
    Parquet,
}

impl Fields {
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.fields.remove(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, key: &str) -> Res<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => Err(self.refused_as(key, &value, "must be text")),
        }
    }

    pub(super) fn number(&mut self, key: &str) -> Res<Option<u32>> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => {
                let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
                number
                    .map(Some)
                    .ok_or_else(|| self.refused_as(key, &value, "must be a number from 0 on"))
            }
        }
    }

    /// A field that may stand there with one value alone.
    pub(super) fn fixed(&mut self, key: &str, only: &Value) -> Res<()> {
        match self.take(key) {
            Some(value) if value != *only => {
                let only = serde_yaml_ng::to_string(only).unwrap_or_default();
                Err(self.refused_as(key, &value, &format!("may only be {}", only.trim())))
            }
            _ => Ok(()),
        }
    }

    /// A field's refusal; that it names Python is more to the point than its type.
    fn refused_as(&self, key: &str, value: &Value, rule: &str) -> String {
        let field = format!("{}{key}", self.within);
        match refuse_functions(&field, value) {
            Err(message) => message,
            Ok(()) => format!("`{field}` {rule}"),
        }
    }

    /// How a document gives something.
    pub(super) fn source(&mut self, key: &str, role: Role) -> Res<Option<Source>> {
        let field = format!("{}{key}", self.within);
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(Source::Text(text))),
            Some(Value::Number(number)) => match number.as_i64() {
                Some(number) => Ok(Some(Source::Int(number))),
                None => Err(format!("`{field}` may be a whole number, it is {number}")),
            },
            Some(value @ Value::Sequence(_)) => match strings(&value) {
                Some(list) => Ok(Some(Source::List(list))),
                None => Err(refuse_functions(&field, &value)
                    .err()
                    .unwrap_or_else(|| format!("`{field}` must be a list of texts (quote `yes` and `no`)"))),
            },
            // lm-eval takes the values of a mapping of choices.
            Some(Value::Mapping(map)) if role == Role::Choice => match map.values().map(text).collect() {
                Some(list) => Ok(Some(Source::List(list))),
                None => {
                    refuse_functions(&field, &Value::Mapping(map))?;
                    Err(format!("`{field}` must map to texts"))
                }
            },
            Some(value @ Value::Tagged(_)) => Ok(Some(Source::Function(self.known_function(&field, role, &value)?))),
            Some(_) => Err(format!("`{field}` must be text, a number or a list of texts")),
        }
    }

    /// A field that may name Python and nothing else.
    pub(super) fn function(&mut self, key: &str, role: Role) -> Res<Option<Function>> {
        match self.take(key) {
            None => Ok(None),
            Some(value @ Value::Tagged(_)) => self.known_function(key, role, &value).map(Some),
            Some(_) => Err(format!("`{key}` must be a `!function`")),
        }
    }

    /// A `!function` that is built in.
    fn known_function(&self, field: &str, role: Role, value: &Value) -> Res<Function> {
        let reference = match value {
            Value::Tagged(tagged) if tagged.tag == "function" => tagged.value.as_str(),
            _ => None,
        };
        let function = reference.and_then(|reference| Function::parse(reference, &self.task));
        match function.filter(|function| !function.candidates(role).is_empty()) {
            Some(function) => Ok(function),
            None => Err(refuse_functions(field, value)
                .err()
                .unwrap_or_else(|| format!("`{field}` is not understood"))),
        }
    }

    pub(super) fn output_type(&mut self) -> Res<OutputType> {
        match self.text("output_type")?.as_deref() {
            Some("multiple_choice") => Ok(OutputType::MultipleChoice),
            Some("loglikelihood") => Ok(OutputType::Loglikelihood),
            Some("loglikelihood_rolling") => Ok(OutputType::LoglikelihoodRolling),
            // lm-eval's own default.
            Some("generate_until") | None => Ok(OutputType::GenerateUntil),
            Some(other) => Err(format!(
                "output type `{other}` is not supported: use `multiple_choice`, `loglikelihood`, \
                 `loglikelihood_rolling` or `generate_until`"
            )),
        }
    }

    /// Where the documents are: the container and its files by split.
    pub(super) fn data(&mut self) -> Res<(DataFormat, BTreeMap<String, Vec<String>>)> {
        let (format, endings): (_, &[&str]) = match self.text("dataset_path")?.as_deref() {
            Some("json") => (DataFormat::Json, &[".jsonl", ".json"]),
            Some("csv") => (DataFormat::Csv, &[".csv"]),
            Some("parquet") => (DataFormat::Parquet, &[".parquet"]),
            Some(other) => {
                return Err(format!(
                    "`dataset_path` is `{other}`: use `json`, `csv` or `parquet` with local `data_files`"
                ));
            }
            None => {
                return Err("`dataset_path` is missing: use `json`, `csv` or `parquet` with `data_files`".to_owned());
            }
        };
        let Some(Value::Mapping(mut kwargs)) = self.take("dataset_kwargs") else {
            return Err("`dataset_kwargs` with `data_files` is missing".to_owned());
        };
        // lm-eval itself takes it away.
        kwargs.remove("trust_remote_code");
        let files = match kwargs.remove("data_files") {
            Some(Value::Mapping(files)) => files,
            // Files without a split are the split `train`, as in the library that lm-eval reads data with.
            Some(files @ (Value::String(_) | Value::Sequence(_))) => {
                Mapping::from_iter([(Value::from("train"), files)])
            }
            _ => return Err("`data_files` must name files, or files by split".to_owned()),
        };
        if let Some(key) = kwargs.keys().next() {
            let key = key.as_str().unwrap_or("?");
            return Err(format!("`dataset_kwargs.{key}` is not understood"));
        }
        let mut data_files = BTreeMap::new();
        for (split, value) in files {
            let split = split.as_str().ok_or("a split of `data_files` is no text")?.to_owned();
            let paths = strings(&value).filter(|paths| !paths.is_empty());
            let paths = paths.ok_or_else(|| format!("`data_files.{split}` must be a path or a list of paths"))?;
            if let Some(path) = paths.iter().find(|path| !endings.iter().any(|end| path.ends_with(end))) {
                return Err(format!(
                    "data file `{path}` must end with {}, as `dataset_path` says",
                    endings.join(" or ")
                ));
            }
            if let Some(path) = paths.iter().find(|path| path.contains("://") || path.contains('*')) {
                return Err(format!("data file `{path}` must be one local file"));
            }
            data_files.insert(split, paths);
        }
        Ok((format, data_files))
    }

    pub(super) fn version(&mut self) -> Res<String> {
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

/// Texts of a list, or one.
pub(super) fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Sequence(list) => list.iter().map(text).collect(),
        _ => None,
    }
}

/// A text that is nothing else: what is tagged passes for one elsewhere.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// A `!function` is Python that we never run.
pub(super) fn refuse_functions(field: &str, value: &Value) -> Res<()> {
    match value {
        Value::Tagged(tagged) => {
            let function = tagged.value.as_str().unwrap_or("?");
            Err(format!(
                "its field `{field}` is `{} {function}`, Python that is never run here, and none of lm-eval's own that is \
                 built in: write it as a template, or prepare the data before",
                tagged.tag
            ))
        }
        Value::Mapping(map) => map.values().try_for_each(|value| refuse_functions(field, value)),
        Value::Sequence(list) => list.iter().try_for_each(|value| refuse_functions(field, value)),
        _ => Ok(()),
    }
}

/// A YAML value as JSON; `None` for what JSON has not.
pub(super) fn json(value: &Value) -> Option<serde_json::Value> {
    Some(match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => serde_json::Number::from_f64(number.as_f64()?)?.into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Sequence(list) => list.iter().map(json).collect::<Option<Vec<_>>>()?.into(),
        Value::Mapping(map) => {
            let pairs = map
                .iter()
                .map(|(key, value)| Some((key.as_str()?.to_owned(), json(value)?)));
            serde_json::Value::Object(pairs.collect::<Option<_>>()?)
        }
        Value::Tagged(_) => return None,
    })
}
