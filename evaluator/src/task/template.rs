//! Jinja as lm-eval uses it: a field's name or a template, Python's methods on strings and lists, values shown as Python
//! shows them, and an undefined name is an error. What a template may do is in [`super::language`].

use anyhow::{Context, Result, bail, ensure};
use fineline_format::task::{Role, Source};
use minijinja::Environment;
use serde_json::Value;

use super::{builtin, language};
use crate::python;

/// What a document gives: lm-eval tells by its type what it means.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Given {
    /// A text.
    Text(String),
    /// An index.
    Int(i64),
    /// One of Python's truth values, which are numbers too.
    Truth(bool),
    /// Several of them.
    List(Vec<Value>),
}

impl Given {
    /// A field's value.
    pub(crate) fn of(value: Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text),
            Value::Array(items) => Self::List(items),
            Value::Bool(value) => Self::Truth(value),
            Value::Number(number) if number.is_i64() => Self::Int(number.as_i64().unwrap_or_default()),
            other => Self::Text(python::str(&other)),
        }
    }

    /// The same with a number for a truth value.
    pub(crate) fn settled(self) -> Self {
        match self {
            Self::Truth(value) => Self::Int(value.into()),
            other => other,
        }
    }

    /// The text of it in a prompt.
    pub(crate) fn text(self, field: &str) -> Result<String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Int(index) => bail!("`{field}` gives the number {index}, where a text is needed"),
            Self::Truth(value) => bail!("`{field}` gives {value}, where a text is needed"),
            Self::List(_) => bail!("`{field}` gives a list, where a text is needed"),
        }
    }
}

/// The templates of a task.
#[derive(Debug)]
pub(crate) struct Templates {
    environment: Environment<'static>,
    has_choices: bool,
}

impl Templates {
    /// Compiles nothing yet: a text may turn out to be a field's name.
    pub(crate) fn new(has_choices: bool) -> Self {
        Self {
            environment: language::environment(),
            has_choices,
        }
    }

    /// A text that is nothing but one: the description, a prefix. A field by its name, else a template.
    pub(crate) fn field_or_template(&self, template: &str, doc: &Value) -> Result<String> {
        match doc.get(template) {
            _ if template.is_empty() => Ok(String::new()),
            Some(field) => Ok(python::str(field)),
            None => language::render(&self.environment, template, doc),
        }
    }

    /// The context of a document, or the index of the choice that is right where the choices are contexts.
    pub(crate) fn text(&self, source: &Source, doc: &Value) -> Result<Given> {
        let given = match source {
            Source::Text(template) => match doc.get(template) {
                Some(field) => Ok(Given::of(field.clone())),
                None => self.rendered(template, doc, false),
            },
            _ => self.other(source, Role::Text, doc),
        };
        given.map(Given::settled).context("`doc_to_text`")
    }

    /// The right answer of a document.
    pub(crate) fn target(&self, source: &Source, doc: &Value) -> Result<Given> {
        let given = match source {
            Source::Text(template) => match doc.get(template) {
                Some(field) => Ok(Given::of(field.clone())),
                None => self.rendered(template, doc, true),
            },
            _ => self.other(source, Role::Target, doc),
        };
        given.context("`doc_to_target`")
    }

    /// The choices of a document.
    pub(crate) fn choices(&self, source: &Source, doc: &Value) -> Result<Vec<String>> {
        let given = match source {
            Source::Text(template) => match doc.get(template) {
                Some(field) => Ok(Given::of(field.clone())),
                None => self.list(template, doc),
            },
            _ => self.other(source, Role::Choice, doc),
        };
        let Given::List(items) = given.context("`doc_to_choice`")? else {
            bail!("`doc_to_choice` gives a value which is no list");
        };
        ensure!(
            (1..=super::MAX_CHOICES).contains(&items.len()),
            "`doc_to_choice` must give 1 to {} choices",
            super::MAX_CHOICES
        );
        Ok(items.iter().map(python::str).collect())
    }

    fn other(&self, source: &Source, role: Role, doc: &Value) -> Result<Given> {
        match source {
            Source::Int(number) => Ok(Given::Int(*number)),
            Source::List(list) => Ok(Given::List(list.iter().map(|text| text.as_str().into()).collect())),
            Source::Function(function) => builtin::give(builtin::resolve(function, role, doc)?, doc),
            Source::Text(template) => self.rendered(template, doc, false),
        }
    }

    /// What a template renders to: digits are an index where there are choices, and a target in brackets is a list.
    fn rendered(&self, template: &str, doc: &Value, may_be_list: bool) -> Result<Given> {
        if template.is_empty() {
            return Ok(Given::Text(String::new()));
        }
        let text = language::render(&self.environment, template, doc)?;
        if self.has_choices && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let index = text.parse().with_context(|| format!("`{text}` is no index"))?;
            return Ok(Given::Int(index));
        }
        let may_be_list = may_be_list && text.starts_with('[') && text.ends_with(']');
        if let Some(Value::Array(items)) = may_be_list.then(|| python::literal(&text)).flatten() {
            return Ok(Given::List(items));
        }
        Ok(Given::Text(text))
    }

    /// lm-eval renders a list to text and reads that back as Python.
    fn list(&self, template: &str, doc: &Value) -> Result<Given> {
        let text = language::render(&self.environment, template, doc)?;
        match python::literal(&text) {
            Some(Value::Array(items)) => Ok(Given::List(items)),
            Some(_) => bail!("it gives a value which is no list"),
            None => {
                let text: String = text.chars().take(200).collect();
                bail!("it gives `{text}`, which is no list")
            }
        }
    }
}
