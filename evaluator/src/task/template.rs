//! Jinja as lm-eval uses it: a field's name or a template, Python's methods on strings and lists, values shown as Python
//! shows them, and an undefined name is an error.

use anyhow::{Context, Result, bail};
use fineline_format::task::{Source, TaskFile};
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior};

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
    pub(crate) fn new(file: &TaskFile) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_keep_trailing_newline(true);
        environment.set_unknown_method_callback(method);
        environment.set_formatter(|out, _, value| {
            if value.is_undefined() {
                return Err(Error::from(ErrorKind::UndefinedError));
            }
            out.write_str(&render(value)).map_err(Error::from)
        });
        Ok(Self {
            environment,
            text: file.doc_to_text.clone(),
            target: file.doc_to_target.clone(),
            choice: file.doc_to_choice.clone(),
            description: file.description.clone(),
        })
    }

    /// The description, which may use the document.
    pub(crate) fn description(&self, doc: &serde_json::Value) -> Result<String> {
        if self.description.is_empty() {
            return Ok(String::new());
        }
        self.environment
            .render_str(&self.description, doc)
            .context("`description`")
    }

    /// The context of a document.
    pub(crate) fn text(&self, doc: &serde_json::Value) -> Result<String> {
        match &self.text {
            Source::Text(template) if template.is_empty() => Ok(String::new()),
            Source::Text(template) => {
                let value = self.evaluate(template, doc).context("`doc_to_text`")?;
                if value.as_str().is_none() {
                    bail!("`doc_to_text` gives {value}, which is no text: contexts by index are not supported");
                }
                Ok(render(&value))
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
            None => Ok(Value::from(self.environment.render_str(template, doc)?)),
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
            bail!("`{template}` must be one `{{{{ expression }}}}` that gives a list");
        };
        Ok(self.environment.compile_expression(expression)?.eval(doc)?)
    }
}

/// A value as Python's `str` shows it.
pub(crate) fn render(value: &Value) -> String {
    match value.kind() {
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_owned(),
        ValueKind::None => "None".to_owned(),
        _ => value.to_string(),
    }
}

/// Python's methods: `index` of a list here, the rest from minijinja's own collection.
fn method(state: &State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if method == "index" && value.kind() == ValueKind::Seq {
        let [wanted] = args else {
            return Err(Error::from(ErrorKind::MissingArgument));
        };
        return match value.try_iter()?.position(|item| item == *wanted) {
            Some(at) => Ok(Value::from(at)),
            None => Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("{wanted} is not in the list"),
            )),
        };
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}
