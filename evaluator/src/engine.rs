//! The engine: texts in, log-likelihoods out.
//!
//! Synchronous on purpose: it runs on a thread of its own, and async code never waits on a matrix product.
//!
//! **Invariant:** an answer does not depend on what else is in its batch, within float32's rounding; sums are in f64.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{D, DType, Device, IndexOp, Tensor};
use candle_nn::ops::log_softmax;
use fineline_format::suite::EvalDtype;

use crate::candle::llama::Llama;
use crate::config::Config;
use crate::tokenizer::{BOS_POLICY, Tokenizer};
use crate::weights::Weights;

/// Rows of logits that are made at once: [512, V] in float32 is the largest tensor here.
const LOGIT_ROWS: usize = 512;

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

/// What an engine is, for a score's provenance.
#[derive(Debug, Clone)]
pub struct Description {
    /// The longest input in tokens.
    pub max_length: usize,
    /// How BOS came to be there.
    pub bos_policy: String,
    /// The dtype that it computes in.
    pub dtype: EvalDtype,
    /// Parameters of the model.
    pub n_parameters: u64,
}

/// Hears how many requests are done, batch by batch; its error ends the work, whose answers nobody wants any more.
pub type Progress<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

/// Something that scores texts.
pub trait Engine: Send {
    /// The log-likelihood of each (context, continuation).
    ///
    /// # Errors
    /// When the device or the tokenizer fails, and what `progress` gives.
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

    /// What it is.
    fn describe(&self) -> Description;
}

/// How a model is computed.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The dtype of weights and activations.
    pub dtype: EvalDtype,
    /// Tokens of a batch, padding included, at most (one row may be longer).
    pub max_batch_tokens: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            dtype: EvalDtype::Float32,
            max_batch_tokens: 4096,
        }
    }
}

/// A LLaMA on candle.
#[derive(Debug)]
pub struct CandleEngine {
    model: Llama,
    tokenizer: Tokenizer,
    config: Config,
    device: Device,
    options: EngineOptions,
}

/// An input and the tokens that its last positions are to predict.
#[derive(Debug)]
struct Row {
    input: Vec<u32>,
    /// (which answer, the tokens); several when requests share an input.
    targets: Vec<(usize, Vec<u32>)>,
}

impl CandleEngine {
    /// Loads a checkpoint from a local folder.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the model is none that we compute.
    pub fn load(dir: &Path, device: &Device, options: EngineOptions) -> Result<Self> {
        let json = std::fs::read(dir.join("config.json")).context("config.json")?;
        let config = Config::parse(&json)?;
        let dtype = match options.dtype {
            EvalDtype::Float32 => DType::F32,
            EvalDtype::Bfloat16 => DType::BF16,
            EvalDtype::Float16 => DType::F16,
        };
        let tokenizer = Tokenizer::load(dir, &config)?;
        let model = Llama::load(&config, Weights::open(dir, dtype, device)?, dtype, device)?;
        Ok(Self {
            model,
            tokenizer,
            config,
            device: device.clone(),
            options,
        })
    }

    /// Scores rows in batches of similar length, the longest first, and adds up each answer.
    fn score(&self, rows: Vec<Row>, n: usize, progress: Progress<'_>) -> Result<Vec<Answer>> {
        let mut answers = vec![
            Answer {
                log_likelihood: 0.0,
                is_greedy: true
            };
            n
        ];
        let mut rows = share_inputs(rows);
        rows.sort_by(|a, b| b.input.len().cmp(&a.input.len()).then_with(|| a.input.cmp(&b.input)));
        let mut done = 0;
        let mut rest = rows.as_slice();
        while let Some(longest) = rest.first() {
            let n_rows = (self.options.max_batch_tokens / longest.input.len().max(1)).clamp(1, rest.len());
            let (batch, after) = rest.split_at(n_rows);
            rest = after;
            self.score_batch(batch, &mut answers)?;
            done += batch.iter().map(|row| row.targets.len() as u64).sum::<u64>();
            progress(done)?;
        }
        Ok(answers)
    }

    fn score_batch(&self, batch: &[Row], answers: &mut [Answer]) -> Result<()> {
        let t = batch.iter().map(|row| row.input.len()).max().unwrap_or(0);
        let vocabulary = self.config.vocab_size as u32;
        let mut ids = Vec::with_capacity(batch.len() * t);
        let (mut positions, mut targets, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for (b, row) in batch.iter().enumerate() {
            ids.extend(&row.input);
            ids.extend(std::iter::repeat_n(0, t - row.input.len()));
            for (answer, tokens) in &row.targets {
                let first = row.input.len() - tokens.len();
                positions.extend((first..row.input.len()).map(|position| (b * t + position) as u32));
                targets.extend(tokens);
                owners.extend(tokens.iter().map(|_| *answer));
            }
        }
        let beyond = ids.iter().chain(&targets).find(|&&id| id >= vocabulary);
        ensure!(
            beyond.is_none(),
            "the tokenizer gives token {beyond:?}, the model's vocabulary has {vocabulary}"
        );
        if targets.is_empty() {
            return Ok(());
        }
        let ids = Tensor::from_vec(ids, (batch.len(), t), &self.device)?;
        let hidden = self.model.forward(&ids)?.flatten_to(1)?;
        for begin in (0..targets.len()).step_by(LOGIT_ROWS) {
            let end = targets.len().min(begin + LOGIT_ROWS);
            let wanted = Tensor::new(&positions[begin..end], &self.device)?;
            let logits = self.model.logits(&hidden.index_select(&wanted, 0)?)?;
            let greedy: Vec<u32> = logits.argmax(D::Minus1)?.to_vec1()?;
            let target = Tensor::new(&targets[begin..end], &self.device)?.unsqueeze(1)?;
            let chosen: Vec<f32> = log_softmax(&logits, D::Minus1)?
                .gather(&target, 1)?
                .i((.., 0))?
                .to_vec1()?;
            for (i, (log_probability, likeliest)) in chosen.into_iter().zip(greedy).enumerate() {
                let answer = &mut answers[owners[begin + i]];
                answer.log_likelihood += f64::from(log_probability);
                answer.is_greedy &= likeliest == targets[begin + i];
            }
        }
        Ok(())
    }

    /// The last `max_length + 1` tokens of context and continuation: all but the last are the input, and the
    /// continuation's are predicted.
    fn row(&self, answer: usize, context: Vec<u32>, continuation: &[u32]) -> Row {
        let mut all = context;
        all.extend(continuation);
        let begin = all.len().saturating_sub(self.config.max_length + 1);
        let input = all[begin..all.len().max(1) - 1].to_vec();
        let first = continuation.len().saturating_sub(input.len());
        Row {
            targets: vec![(answer, continuation[first..].to_vec())],
            input,
        }
    }
}

/// Rows with the same input become one: choices of one token share their context's forward pass.
fn share_inputs(rows: Vec<Row>) -> Vec<Row> {
    let mut by_input: HashMap<Vec<u32>, Vec<(usize, Vec<u32>)>> = HashMap::new();
    for row in rows {
        by_input.entry(row.input).or_default().extend(row.targets);
    }
    by_input
        .into_iter()
        .map(|(input, targets)| Row { input, targets })
        .collect()
}

/// The windows of a document: every token is predicted once, the first window begins with the prefix token, and the last
/// keeps a full window of left context. Gives (input, tokens that its last positions predict).
fn windows(tokens: &[u32], prefix: u32, max_length: usize) -> Vec<(Vec<u32>, Vec<u32>)> {
    let mut windows = Vec::new();
    let first = tokens.len().min(max_length);
    if first == 0 {
        return windows;
    }
    let input = std::iter::once(prefix).chain(tokens[..first - 1].iter().copied());
    windows.push((input.collect(), tokens[..first].to_vec()));
    let mut predicted = first;
    while predicted < tokens.len() {
        let end = tokens.len().min(predicted + max_length);
        windows.push((
            tokens[end - max_length - 1..end - 1].to_vec(),
            tokens[predicted..end].to_vec(),
        ));
        predicted = end;
    }
    windows
}

impl Engine for CandleEngine {
    fn loglikelihood(&mut self, requests: &[(String, String)], progress: Progress<'_>) -> Result<Vec<Answer>> {
        let mut rows = Vec::with_capacity(requests.len());
        for (i, (context, continuation)) in requests.iter().enumerate() {
            let (context, continuation) = self.tokenizer.encode_pair(context, continuation)?;
            rows.push(self.row(i, context, &continuation));
        }
        self.score(rows, requests.len(), progress)
    }

    fn loglikelihood_rolling(&mut self, documents: &[String], progress: Progress<'_>) -> Result<Vec<f64>> {
        let mut rows = Vec::new();
        for (i, document) in documents.iter().enumerate() {
            let tokens = self.tokenizer.encode(document)?;
            let windows = windows(&tokens, self.tokenizer.prefix(), self.config.max_length);
            rows.extend(windows.into_iter().map(|(input, target)| Row {
                input,
                targets: vec![(i, target)],
            }));
        }
        let answers = self.score(rows, documents.len(), progress)?;
        Ok(answers.into_iter().map(|answer| answer.log_likelihood).collect())
    }

    fn generate_until(&mut self, _: &[Generation], _: Progress<'_>) -> Result<Vec<String>> {
        anyhow::bail!("in the making")
    }

    fn describe(&self) -> Description {
        Description {
            max_length: self.config.max_length,
            bos_policy: BOS_POLICY.to_owned(),
            dtype: self.options.dtype,
            n_parameters: self.config.n_parameters(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_those_of_the_rule_book() {
        let tokens: Vec<u32> = (1..=9).collect();
        let expected = [
            (vec![0, 1, 2, 3], vec![1, 2, 3, 4]),
            (vec![4, 5, 6, 7], vec![5, 6, 7, 8]),
            (vec![5, 6, 7, 8], vec![9]),
        ];
        assert_eq!(windows(&tokens, 0, 4), expected);
        assert_eq!(windows(&tokens[..2], 0, 4), [(vec![0, 1], vec![1, 2])]);
        assert!(windows(&[], 0, 4).is_empty());
    }
}
