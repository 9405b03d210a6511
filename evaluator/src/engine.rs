//! The engine: texts in, log-likelihoods out.
//!
//! Synchronous on purpose: it runs on a thread of its own, and async code never waits on a matrix product.
//!
//! **Invariant:** an answer does not depend on what else is in its batch, within float32's rounding; sums are in f64.

use anyhow::Result;
use fineline_format::suite::EvalDtype;

/// What a model says of a continuation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// Sum of the tokens' natural log-probabilities.
    pub log_likelihood: f64,
    /// Whether every token was the likeliest.
    pub is_greedy: bool,
}

/// A text that is to go on from a prompt, greedily.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// What stands before.
    pub prompt: String,
    /// Texts that end it; what comes of the first is cut off.
    pub until: Vec<String>,
    /// Tokens at most.
    pub max_tokens: usize,
}

/// What is asked of an engine in one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// [`Engine::loglikelihood`]'s contexts and continuations.
    Pairs(Vec<(String, String)>),
    /// [`Engine::loglikelihood_rolling`]'s documents.
    Documents(Vec<String>),
    /// [`Engine::generate_until`]'s prompts.
    Generations(Vec<Generation>),
}

/// Logits of a request that are no finite numbers.
#[derive(Debug, thiserror::Error)]
#[error(
    "the model's logits for request {request} are not finite: its weights hold NaN or Inf, or its numbers are beyond the dtype"
)]
pub struct NotFinite {
    /// The request, counted from 0: the first of its batch.
    pub request: usize,
}

/// A request that has no answer by lm-eval's rules, which refuses it too.
#[derive(Debug, thiserror::Error)]
#[error("request {request} {what}")]
pub struct Unanswerable {
    /// The request, counted from 0.
    pub request: usize,
    /// What is wrong with it.
    pub what: String,
}

/// What an engine is, for a score's provenance.
#[derive(Debug, Clone)]
pub struct Description {
    /// The longest input in tokens.
    pub max_length: usize,
    /// How BOS came to be there.
    pub bos_policy: String,
    /// The dtype of its weights.
    pub dtype: EvalDtype,
    /// The dtype that it computes in.
    pub computed_in: EvalDtype,
    /// Parameters of the model.
    pub n_parameters: u64,
}

/// What is done of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Requests that are answered.
    pub n_requests: u64,
    /// Tokens that were computed for them. Those of a batch are told before those of the next, so that each growth is a batch.
    pub n_tokens: u64,
}

/// Hears what is done, several times a batch; its error ends the work, whose answers nobody wants any more.
pub type Progress<'a> = &'a mut dyn FnMut(Done) -> Result<()>;

/// Something that scores texts.
pub trait Engine: Send {
    /// The log-likelihood of each (context, continuation).
    ///
    /// # Errors
    /// When the device or the tokenizer fails, [`NotFinite`], [`Unanswerable`], and what `progress` gives.
    fn loglikelihood(&mut self, requests: &[(String, String)], progress: Progress<'_>) -> Result<Vec<Answer>>;

    /// The log-likelihood of each whole document, read in windows of the model's length.
    ///
    /// # Errors
    /// As [`Engine::loglikelihood`].
    fn loglikelihood_rolling(&mut self, documents: &[String], progress: Progress<'_>) -> Result<Vec<f64>>;

    /// The text that goes on from each prompt.
    ///
    /// # Errors
    /// As [`Engine::loglikelihood`].
    fn generate_until(&mut self, requests: &[Generation], progress: Progress<'_>) -> Result<Vec<String>>;

    /// Hears what it will be asked after the next call, and may begin with it beside that. Not asked for where it has no use for it.
    fn expect(&mut self, _asked: &dyn Fn() -> Asked) {}

    /// What it is.
    fn describe(&self) -> Description;
}

/// How a model is computed.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The dtype of the weights, and of activations where the device computes in it.
    pub dtype: EvalDtype,
    /// Tokens of a batch at most; a longer input is computed in parts.
    pub max_batch_tokens: usize,
    /// Bytes of keys and values that are kept of texts in the making, at most (those of one text may be more). When absent 1 GiB on
    /// the CPU, and on a card most of what the model leaves.
    pub max_kept_bytes: Option<usize>,
    /// Whether the CPU computes as a card would, by tables and slowly: what a card is held against.
    pub by_tables: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            dtype: EvalDtype::Float32,
            max_batch_tokens: 2048,
            max_kept_bytes: None,
            by_tables: false,
        }
    }
}
