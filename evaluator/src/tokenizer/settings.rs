//! What stands beside a tokenizer and says which tokens are special and which are added: tokenizer_config.json and
//! special_tokens_map.json.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

/// A token that is found in texts before anything else is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) id: u32,
    pub(super) text: String,
    /// Whether it stands for no text.
    pub(super) is_special: bool,
}

/// The settings of a tokenizer.
#[derive(Debug, Default)]
pub(super) struct Settings {
    files: Vec<Map<String, Value>>,
}

impl Settings {
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for name in ["tokenizer_config.json", "special_tokens_map.json"] {
            match std::fs::read(dir.join(name)) {
                Ok(json) => files.push(serde_json::from_slice(&json).with_context(|| name.to_owned())?),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context(name),
            }
        }
        Ok(Self { files })
    }

    /// The text of a special token by its role, as `bos_token`.
    pub(super) fn token(&self, role: &str) -> Option<&str> {
        self.files.iter().find_map(|fields| text(fields.get(role)?))
    }

    /// Whether a token is added to each text, as `add_bos_token`; `None` where it is not said.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>> {
        let value = self.files.iter().find_map(|fields| fields.get(name));
        match value.filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => {
                let flag = value.as_bool();
                flag.map(Some)
                    .with_context(|| format!("`{name}` in tokenizer_config.json is neither true nor false"))
            }
        }
    }

    /// Whether the tokenizer is transformers' class for LLaMA by its name.
    pub(super) fn is_llama(&self) -> bool {
        let mut classes = self
            .files
            .iter()
            .filter_map(|fields| fields.get("tokenizer_class")?.as_str());
        classes.any(|class| matches!(class, "LlamaTokenizer" | "LlamaTokenizerFast"))
    }

    /// Special tokens by any role.
    pub(super) fn special(&self) -> impl Iterator<Item = &str> {
        let fields = self.files.iter().flatten();
        fields.flat_map(|(role, value)| match value {
            Value::Array(list) if role == "additional_special_tokens" => list.iter().filter_map(text).collect(),
            value if role.ends_with("_token") => text(value).into_iter().collect(),
            _ => Vec::new(),
        })
    }

    /// The tokens that were added, by id.
    ///
    /// # Errors
    /// One that takes white space or word boundaries into account, by name.
    pub(super) fn added(&self) -> Result<Vec<Added>> {
        let mut added = Vec::new();
        let tokens = self
            .files
            .iter()
            .filter_map(|fields| fields.get("added_tokens_decoder")?.as_object());
        for (id, token) in tokens.flatten() {
            let what = || format!("`added_tokens_decoder.{id}` in tokenizer_config.json");
            let text = text(token).with_context(|| format!("{} has no text", what()))?;
            for flag in ["lstrip", "rstrip", "single_word"] {
                ensure!(
                    token[flag] != Value::Bool(true),
                    "{} has `{flag}`, which is not supported with tokenizer.model: push a tokenizer.json",
                    what()
                );
            }
            added.push(Added {
                id: id.parse().with_context(what)?,
                text: text.to_owned(),
                is_special: token["special"] == Value::Bool(true),
            });
        }
        Ok(added)
    }
}

/// A token's text: alone, or in its long form.
fn text(token: &Value) -> Option<&str> {
    let text = token.as_str().or_else(|| token["content"].as_str());
    text.filter(|text| !text.is_empty())
}
