//! What stands beside a tokenizer and says which tokens are special and which are added: tokenizer_config.json,
//! special_tokens_map.json and added_tokens.json. A tokenizer_config.json without `added_tokens_decoder` is an old one: there, as
//! in transformers, special_tokens_map.json is over it, and added_tokens.json is read.

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
    /// What comes first is over what follows.
    files: Vec<Map<String, Value>>,
    /// Text and id of each token of added_tokens.json, where it counts.
    added: Map<String, Value>,
}

impl Settings {
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let read = |name: &str| -> Result<Map<String, Value>> {
            match std::fs::read(dir.join(name)) {
                Ok(json) => serde_json::from_slice(&json).with_context(|| name.to_owned()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Map::new()),
                Err(error) => Err(error).context(name.to_owned()),
            }
        };
        let (config, map) = (read("tokenizer_config.json")?, read("special_tokens_map.json")?);
        if config.contains_key("added_tokens_decoder") {
            let added = Map::new();
            let files = vec![config, map];
            return Ok(Self { files, added });
        }
        Ok(Self {
            files: vec![map, config],
            added: read("added_tokens.json")?,
        })
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
            Value::Array(list) if matches!(role.as_str(), "additional_special_tokens" | "extra_special_tokens") => {
                list.iter().filter_map(text).collect()
            }
            value if role.ends_with("_token") => text(value).into_iter().collect(),
            _ => Vec::new(),
        })
    }

    /// The tokens that were added, by id.
    ///
    /// # Errors
    /// One that takes white space or word boundaries into account, or one of added_tokens.json that is not special, which
    /// transformers finds in normalized text, by name.
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
        for (text, id) in &self.added {
            ensure!(
                self.special().any(|special| special == text),
                "`{text}` in added_tokens.json is no special token, which is not supported with tokenizer.model: push a tokenizer.json"
            );
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            added.push(Added {
                id: id.with_context(|| format!("`{text}` in added_tokens.json has no id"))?,
                text: text.clone(),
                is_special: true,
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
