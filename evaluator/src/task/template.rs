//! Jinja as lm-eval uses it: a field's name or a template, Python's methods on strings and lists, values shown as Python
//! shows them, and an undefined name is an error. What a template may do is in [`super::language`].

use anyhow::{Context, Result, bail};
use fineline_format::task::{Source, TaskFile};
use minijinja::Environment;
use minijinja::value::Value;

use super::language;

/// The templates of a task.
#[derive(Debug)]
pub(crate) struct Templates {
    environment: Environment<'static>,
    text: Source,
    target: Source,
    choice: Option<Source>,
    description: String,
}

impl Templates {
    /// Compiles nothing yet: a text may turn out to be a field's name.
    pub(crate) fn new(file: &TaskFile) -> Self {
        Self {
            environment: language::environment(),
            text: file.doc_to_text.clone(),
            target: file.doc_to_target.clone(),
            choice: file.doc_to_choice.clone(),
            description: file.description.clone(),
        }
    }

    /// The description, which may use the document.
    pub(crate) fn description(&self, doc: &serde_json::Value) -> Result<String> {
        if self.description.is_empty() {
            return Ok(String::new());
        }
        language::render(&self.environment, &self.description, doc).context("`description`")
    }

    /// The context of a document.
    pub(crate) fn text(&self, doc: &serde_json::Value) -> Result<String> {
        match &self.text {
            Source::Text(template) if template.is_empty() => Ok(String::new()),
            Source::Text(template) => {
                let value = self.evaluate(template, doc).context("`doc_to_text`")?;
                if value.as_str().is_none() {
                    let kind = value.kind();
                    bail!("`doc_to_text` gives a {kind}, which is no text: contexts by index are not supported");
                }
                Ok(language::shown(&value)?)
            }
            _ => bail!("`doc_to_text` must be a template or a field"),
        }
    }

    /// The right answer of a document.
    pub(crate) fn target(&self, doc: &serde_json::Value) -> Result<Value> {
        match &self.target {
            Source::Text(template) => self.evaluate(template, doc).context("`doc_to_target`"),
            _ => bail!("`doc_to_target` is no template"),
        }
    }

    /// The choices of a document.
    pub(crate) fn choice(&self, doc: &serde_json::Value) -> Result<Value> {
        match &self.choice {
            Some(Source::Text(template)) => self.list(template, doc).context("`doc_to_choice`"),
            _ => bail!("`doc_to_choice` is no template"),
        }
    }

    /// A field by its name, else what the template renders to.
    fn evaluate(&self, template: &str, doc: &serde_json::Value) -> Result<Value> {
        match doc.get(template) {
            Some(field) => Ok(Value::from_serialize(field)),
            None => Ok(Value::from(language::render(&self.environment, template, doc)?)),
        }
    }

    /// A field by its name, else the list that the template's only expression gives: lm-eval renders it to text and
    /// reads that back as Python, which is the same list.
    fn list(&self, template: &str, doc: &serde_json::Value) -> Result<Value> {
        if let Some(field) = doc.get(template) {
            return Ok(Value::from_serialize(field));
        }
        let expression = template
            .trim()
            .strip_prefix("{{")
            .and_then(|rest| rest.strip_suffix("}}"));
        let Some(expression) = expression.filter(|inner| !inner.contains("{{")) else {
            let template: String = template.chars().take(200).collect();
            bail!("`{template}` must be one `{{{{ expression }}}}` that gives a list");
        };
        language::check(template)?;
        Ok(self.environment.compile_expression(expression)?.eval(doc)?)
    }
}
