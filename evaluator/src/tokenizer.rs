//! Texts to token ids, as lm-eval 0.4.13 does it for a causal model: the tokenizer itself decides on BOS.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use crate::config::Config;

/// How BOS came to be there, for a score's provenance.
pub const BOS_POLICY: &str = "tokenizer decides (lm-eval 0.4.9.2 and later)";

/// A checkpoint's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<String>,
    prefix: u32,
    ends: Vec<u32>,
}

impl Tokenizer {
    /// Reads tokenizer.json and, for the special tokens, tokenizer_config.json and special_tokens_map.json.
    ///
    /// # Errors
    /// When tokenizer.json can't be read, or there is neither BOS nor EOS.
    pub fn load(dir: &Path, config: &Config) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        let inner = tokenizers::Tokenizer::from_file(&path).map_err(|error| anyhow!("tokenizer.json: {error}"))?;
        let special = |key: &str| -> Result<Option<String>> {
            for name in ["tokenizer_config.json", "special_tokens_map.json"] {
                let Ok(json) = std::fs::read(dir.join(name)) else {
                    continue;
                };
                let fields: Value = serde_json::from_slice(&json).with_context(|| name.to_owned())?;
                let token = &fields[key];
                let text = token.as_str().or_else(|| token["content"].as_str());
                if let Some(text) = text {
                    return Ok(Some(text.to_owned()));
                }
            }
            Ok(None)
        };
        let (bos, eos) = (special("bos_token")?, special("eos_token")?);
        let id = |text: &Option<String>| text.as_deref().and_then(|text| inner.token_to_id(text));
        let ends: Vec<u32> = id(&eos).into_iter().chain(config.eos_token_ids.iter().copied()).collect();
        let prefix = id(&bos).or(config.bos_token_id).or_else(|| ends.first().copied());
        let prefix = prefix.context("the tokenizer has neither a BOS nor an EOS token to begin a text with")?;
        Ok(Self {
            inner,
            bos,
            prefix,
            ends,
        })
    }

    /// The token that stands for an empty context: BOS, else EOS.
    pub fn prefix(&self) -> u32 {
        self.prefix
    }

    /// Whether a text that is made ends with this token.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The text of tokens, without special ones.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let text = self.inner.decode(tokens, true);
        text.map_err(|error| anyhow!("tokenizer: {error}"))
    }

    /// The tokens of a text, with the special ones that the tokenizer adds; a text that begins with BOS as it is.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let has_bos = self.bos.as_deref().is_some_and(|bos| text.starts_with(bos));
        let encoding = self
            .inner
            .encode_fast(text, !has_bos)
            .map_err(|error| anyhow!("tokenizer: {error}"))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens of a context and of its continuation. White space at the context's end belongs to the continuation;
    /// the continuation is what the tokens of both together have beyond the length of the context's own.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode_pair(&self, context: &str, continuation: &str) -> Result<(Vec<u32>, Vec<u32>)> {
        if context.is_empty() {
            let encoding = self
                .inner
                .encode_fast(continuation, false)
                .map_err(|error| anyhow!("tokenizer: {error}"))?;
            let mut tokens = encoding.get_ids().to_vec();
            if tokens.first() == Some(&self.prefix) {
                tokens.remove(0);
            }
            return Ok((vec![self.prefix], tokens));
        }
        let kept = context.trim_end();
        let whole = self.encode(&format!("{context}{continuation}"))?;
        let context = self.encode(kept)?;
        let continuation = whole.get(context.len()..).unwrap_or_default().to_vec();
        Ok((context, continuation))
    }
}
