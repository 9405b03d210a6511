//! Texts to token ids, as lm-eval 0.4.13 does it for a causal model: the tokenizer itself decides on BOS.
//!
//! A tokenizer is a tokenizer.json, read by the `tokenizers` crate, or a tokenizer.model alone, read by ourselves. A
//! tokenizer.json says itself what it adds, and `add_bos_token` and `add_eos_token` in tokenizer_config.json change nothing of
//! it, as in transformers 5. With a tokenizer.model they decide; where they are not said BOS is added and EOS is not, which is
//! what transformers documents for `LlamaTokenizer`.

mod llama;
mod matcher;
pub mod sentencepiece;
mod settings;

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};

use self::llama::Llama;
use self::sentencepiece::{MAX_MODEL_BYTES, SentencePiece};
use self::settings::Settings;
use crate::config::Config;
use crate::python;

/// How BOS came to be there, for a score's provenance.
pub const BOS_POLICY: &str = "tokenizer decides (lm-eval 0.4.9.2 and later)";

/// A checkpoint's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    inner: Inner,
    adds: Adds,
    prefix: u32,
    /// The text of `prefix`.
    prefix_text: Option<String>,
    ends: Vec<u32>,
}

#[derive(Debug)]
enum Inner {
    Json(Box<tokenizers::Tokenizer>),
    SentencePiece(Box<Llama>),
}

/// What is added to every text.
#[derive(Debug, Clone, Copy)]
enum Adds {
    /// What tokenizer.json says.
    OwnRule,
    /// These, before and behind.
    Tokens(Option<u32>, Option<u32>),
}

impl Inner {
    fn load(dir: &Path, settings: &Settings) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        let model = dir.join("tokenizer.model");
        if !path.exists() && model.exists() {
            let size_bytes = model.metadata().context("tokenizer.model")?.len();
            ensure!(
                size_bytes <= MAX_MODEL_BYTES,
                "tokenizer.model has {size_bytes} bytes and may have {MAX_MODEL_BYTES}"
            );
            let bytes = std::fs::read(&model).context("tokenizer.model")?;
            let llama = Llama::new(SentencePiece::parse(&bytes)?, settings)?;
            return Ok(Self::SentencePiece(Box::new(llama)));
        }
        let mut json = tokenizers::Tokenizer::from_file(&path).map_err(|error| anyhow!("tokenizer.json: {error}"))?;
        // Left over from whoever saved it; transformers takes both off before it encodes.
        json.with_padding(None);
        json.with_truncation(None)
            .map_err(|error| anyhow!("tokenizer.json: {error}"))?;
        Ok(Self::Json(Box::new(json)))
    }

    fn id(&self, text: &str) -> Option<u32> {
        match self {
            Self::Json(json) => json.token_to_id(text),
            Self::SentencePiece(llama) => llama.id(text),
        }
    }

    fn text(&self, id: u32) -> Option<String> {
        match self {
            Self::Json(json) => json.id_to_token(id),
            Self::SentencePiece(llama) => llama.text(id).map(str::to_owned),
        }
    }

    /// The ids of a text; `own_rule` is whether what tokenizer.json adds is added.
    fn encode(&self, text: &str, own_rule: bool) -> Result<Vec<u32>> {
        match self {
            Self::Json(json) => {
                let encoding = json.encode_fast(text, own_rule);
                let encoding = encoding.map_err(|error| anyhow!("tokenizer: {error}"))?;
                Ok(encoding.get_ids().to_vec())
            }
            Self::SentencePiece(llama) => Ok(llama.encode(text)),
        }
    }
}

impl Tokenizer {
    /// Reads tokenizer.json or, where there is none, tokenizer.model; and, for the special tokens, tokenizer_config.json and
    /// special_tokens_map.json.
    ///
    /// # Errors
    /// When the tokenizer can't be read or is none that we compute exactly, or there is neither BOS nor EOS.
    pub fn load(dir: &Path, config: &Config) -> Result<Self> {
        let settings = Settings::read(dir)?;
        let inner = Inner::load(dir, &settings)?;
        let own = match &inner {
            Inner::Json(_) => (None, None),
            Inner::SentencePiece(llama) => (llama.model().bos, llama.model().eos),
        };
        let named = |role: &str, own: Option<u32>| match settings.token(role) {
            Some(text) => inner.id(text),
            None => own,
        };
        let (bos, eos) = (named("bos_token", own.0), named("eos_token", own.1));
        let add = |name: &str, by_default: bool| settings.flag(name).map(|flag| flag.unwrap_or(by_default));
        let adds = match inner {
            Inner::Json(_) => Adds::OwnRule,
            Inner::SentencePiece(_) => {
                let (add_bos, add_eos) = (add("add_bos_token", true)?, add("add_eos_token", false)?);
                Adds::Tokens(bos.filter(|_| add_bos), eos.filter(|_| add_eos))
            }
        };
        let ends: Vec<u32> = eos.into_iter().chain(config.eos_token_ids.iter().copied()).collect();
        // The tokenizer's own before the config's, which lm-eval does not ask.
        let prefix = bos.or(eos).or(config.bos_token_id).or_else(|| ends.first().copied());
        let prefix = prefix.context("the tokenizer has neither a BOS nor an EOS token to begin a text with")?;
        Ok(Self {
            prefix_text: inner.text(prefix),
            inner,
            adds,
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
        match &self.inner {
            Inner::Json(json) => json.decode(tokens, true).map_err(|error| anyhow!("tokenizer: {error}")),
            Inner::SentencePiece(llama) => Ok(llama.decode(tokens)),
        }
    }

    /// The tokens of a text, with the special ones that the tokenizer adds; a text that begins with the prefix token's text
    /// as it is.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let has_prefix = self
            .prefix_text
            .as_deref()
            .is_some_and(|prefix| text.starts_with(prefix));
        match self.adds {
            _ if has_prefix => self.inner.encode(text, false),
            Adds::OwnRule => self.inner.encode(text, true),
            Adds::Tokens(before, behind) => {
                let tokens = self.inner.encode(text, false)?;
                Ok(before.into_iter().chain(tokens).chain(behind).collect())
            }
        }
    }

    /// The tokens of a context and of its continuation. White space at the context's end belongs to the continuation;
    /// the continuation is what the tokens of both together have beyond the length of the context's own.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode_pair(&self, context: &str, continuation: &str) -> Result<(Vec<u32>, Vec<u32>)> {
        if context.is_empty() {
            let mut tokens = self.inner.encode(continuation, false)?;
            if tokens.first() == Some(&self.prefix) {
                tokens.remove(0);
            }
            return Ok((vec![self.prefix], tokens));
        }
        let kept = python::strip_end(context);
        let whole = self.encode(&format!("{context}{continuation}"))?;
        let context = self.encode(kept)?;
        let continuation = whole.get(context.len()..).unwrap_or_default().to_vec();
        Ok((context, continuation))
    }
}
