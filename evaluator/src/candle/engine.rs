//! A LLaMA's engine: texts to tokens, tokens to a plan, batches through the model, logits to answers.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use fineline_format::suite::EvalDtype;
use rayon::prelude::*;

use super::batch::{Batch, Before, Cache, Source};
use super::host::{self, Said};
use super::llama::{Check, Llama};
use super::numbers;
use super::plan::{Plan, Row, Wanted};
use crate::config::Config;
use crate::engine::{Answer, Description, Done, Engine, EngineOptions, Generation, NotFinite, Progress, Unanswerable};
use crate::memory::{self, Needed};
use crate::tokenizer::{BOS_POLICY, Tokenizer};
use crate::weights::Weights;

/// Numbers of the largest block of logits: 32 MiB in float32. A larger one is slower, since it leaves the CPU's caches before it
/// is read.
pub(crate) const LOGITS: usize = 1 << 23;

/// Texts that become tokens between two questions whether to go on.
const N_TEXTS: usize = 256;

/// A LLaMA on candle.
#[derive(Debug)]
pub struct CandleEngine {
    pub(super) model: Llama,
    pub(super) tokenizer: Tokenizer,
    pub(super) config: Config,
    pub(super) device: Device,
    pub(super) options: EngineOptions,
    /// Bytes that the model leaves for keys and values; no bound where it is not known.
    left_bytes: u64,
    counts: Counts,
}

/// Tokens that were worked on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of all inputs that differ: what would be computed if no beginning were shared.
    pub n_asked: u64,
    /// Of these, computed.
    pub n_computed: u64,
}

impl CandleEngine {
    /// Loads a checkpoint from a local folder.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the model is none that we compute or does not fit in memory.
    pub fn load(dir: &Path, device: &Device, mut options: EngineOptions) -> Result<Self> {
        let json = std::fs::read(dir.join("config.json")).context("config.json")?;
        let config = Config::parse(&json)?;
        let mut left_bytes = u64::MAX;
        if let (true, Some(available)) = (device.is_cpu(), memory::available_bytes()) {
            left_bytes = Needed::of(&config, &options).check(available)?;
            let left = usize::try_from(left_bytes).unwrap_or(usize::MAX);
            options.max_kept_bytes = options.max_kept_bytes.min(left);
        }
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
            left_bytes,
            counts: Counts::default(),
        })
    }

    /// What it has worked on since it was loaded.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Scores rows and adds up each of `n` answers.
    fn score(&mut self, rows: Vec<Row>, n: usize, progress: Progress<'_>) -> Result<Vec<Answer>> {
        let nothing = Answer {
            log_likelihood: 0.0,
            is_greedy: true,
        };
        let mut answers = vec![nothing; n];
        let mut n_open = vec![0_usize; n];
        rows.iter().for_each(|row| n_open[row.answer] += row.targets.len());
        let mut done = Done {
            n_requests: n_open.iter().filter(|&&n| n == 0).count() as u64,
            n_tokens: 0,
        };
        let max_tokens = self.options.max_batch_tokens;
        let plan = Plan::new(rows, max_tokens);
        let batches = plan.batches(max_tokens);
        self.check_kept(plan.max_kept(&batches))?;
        self.counts.n_asked += plan.n_asked;
        let mut cache = Cache::default();
        for pieces in batches {
            let kept = plan.kept_before(pieces.end);
            let (batch, wanted) = batch(&plan, pieces, kept);
            self.check(&batch.ids)?;
            let hidden = self.model.forward(&batch, &mut cache, &mut || progress(done))?;
            done.n_tokens += batch.ids.len() as u64;
            cache.retain(|key| kept.iter().any(|&(piece, _)| piece == key));
            let all_said = self.read(&hidden, &wanted, &mut || progress(done))?;
            let broken = all_said.iter().filter(|(_, said)| !said.is_finite);
            if let Some(request) = broken.flat_map(|&(at, _)| wanted[at].1).map(|w| w.answer).min() {
                return Err(NotFinite { request }.into());
            }
            for (at, said) in all_said {
                for (wanted, log_probability) in wanted[at].1.iter().zip(said.log_probabilities) {
                    let answer = &mut answers[wanted.answer];
                    answer.log_likelihood += log_probability;
                    answer.is_greedy &= said.likeliest == wanted.token;
                    n_open[wanted.answer] -= 1;
                    done.n_requests += u64::from(n_open[wanted.answer] == 0);
                }
            }
            progress(done)?;
        }
        if plan.pieces.is_empty() {
            progress(done)?;
        }
        self.counts.n_computed += done.n_tokens;
        Ok(answers)
    }

    /// What the logits at some rows of hidden states say, block by block: (index in `wanted`, what is said).
    fn read(&self, hidden: &Tensor, wanted: &[(u32, &[Wanted])], check: Check<'_>) -> Result<Vec<(usize, Said)>> {
        let vocabulary = self.config.vocab_size;
        let mut all = Vec::with_capacity(wanted.len());
        for (block, rows) in wanted.chunks((LOGITS / vocabulary).max(1)).enumerate() {
            let positions: Vec<u32> = rows.iter().map(|(row, _)| *row).collect();
            let tokens: Vec<Vec<u32>> = rows.iter().map(|(_, w)| w.iter().map(|w| w.token).collect()).collect();
            self.check(tokens.iter().flatten())?;
            let positions = Tensor::new(positions.as_slice(), &self.device)?;
            let logits = self.model.logits(&hidden.index_select(&positions, 0)?)?;
            let first = block * (LOGITS / vocabulary).max(1);
            let said = |logits: &[f32]| host::read(logits, vocabulary, &tokens);
            all.extend((first..).zip(numbers::read(&logits.to_device(&Device::Cpu)?, said)?));
            check()?;
        }
        Ok(all)
    }

    /// Checks that there is memory for the keys and values of so many tokens.
    pub(super) fn check_kept(&self, n_tokens: usize) -> Result<()> {
        memory::check_kept(&self.config, n_tokens, self.left_bytes)
    }

    /// Checks that the model knows all tokens.
    pub(super) fn check<'a>(&self, ids: impl IntoIterator<Item = &'a u32>) -> Result<()> {
        let vocabulary = self.config.vocab_size;
        match ids.into_iter().find(|&&id| id as usize >= vocabulary) {
            Some(id) => bail!("the tokenizer gives token {id}, the model's vocabulary has {vocabulary}"),
            None => Ok(()),
        }
    }

    /// Demands what lm-eval demands of a context and a continuation, in tokens.
    fn check_lengths(&self, request: usize, n_context: usize, n_continuation: usize) -> Result<()> {
        let max_length = self.config.max_length;
        let what = match (n_context, n_continuation) {
            (0, _) => "has a context without a token".to_owned(),
            (_, 0) => "has a continuation without a token".to_owned(),
            (_, n) if n > max_length => {
                format!("has a continuation of {n} tokens, and the model reads {max_length}")
            }
            _ => return Ok(()),
        };
        Err(Unanswerable { request, what }.into())
    }

    /// The last `max_length + 1` tokens of context and continuation: all but the last are the input, and the
    /// continuation's are predicted.
    fn row(&self, answer: usize, context: Vec<u32>, continuation: &[u32]) -> Row {
        let mut all = context;
        all.extend(continuation);
        let begin = all.len().saturating_sub(self.config.max_length + 1);
        Row {
            input: all[begin..all.len() - 1].to_vec(),
            targets: continuation.to_vec(),
            answer,
        }
    }

    /// The next token after each row of hidden states: the likeliest; `None` where the logits are not finite.
    pub(super) fn next(&self, hidden: &Tensor, rows: &[u32], check: Check<'_>) -> Result<Vec<Option<u32>>> {
        let wanted: Vec<(u32, &[Wanted])> = rows.iter().map(|&row| (row, &[][..])).collect();
        Ok(self
            .read(hidden, &wanted, check)?
            .into_iter()
            .map(|(_, said)| said.is_finite.then_some(said.likeliest))
            .collect())
    }

    pub(super) fn count(&mut self, counts: Counts) {
        self.counts.n_asked += counts.n_asked;
        self.counts.n_computed += counts.n_computed;
    }
}

/// What is made of each text (its number, itself), on all cores.
pub(super) fn of_each<T: Sync, R: Send>(
    texts: &[T],
    make: impl Fn((usize, &T)) -> Result<R> + Sync,
    progress: Progress<'_>,
) -> Result<Vec<R>> {
    let mut made = Vec::with_capacity(texts.len());
    for (n, texts) in texts.chunks(N_TEXTS).enumerate() {
        let numbered = texts.par_iter().enumerate().map(|(i, text)| (n * N_TEXTS + i, text));
        let results: Vec<Result<R>> = numbered.map(&make).collect();
        // Behind the threads, so that the first text that is refused is named, not the one whose thread was first.
        made.extend(results.into_iter().collect::<Result<Vec<R>>>()?);
        progress(Done::default())?;
    }
    Ok(made)
}

/// Pieces of a plan as a batch, of which the pieces in `kept` are kept; and the rows whose logits are wanted.
fn batch<'a>(plan: &'a Plan, pieces: Range<usize>, kept: &[(usize, usize)]) -> (Batch, Vec<(u32, &'a [Wanted])>) {
    let (mut batch, mut rows) = (Batch::default(), HashMap::new());
    let mut wanted = Vec::new();
    for (i, piece) in pieces.clone().zip(&plan.pieces[pieces]) {
        let before = piece.before.iter().map(|&(other, n_tokens)| Before {
            source: rows.get(&other).map_or(Source::Kept(other), |&row| Source::Rows(row)),
            n_tokens,
        });
        let keep = kept.iter().find(|&&(kept, _)| kept == i).copied();
        let first = batch.push(&piece.tokens, piece.position, before.collect(), keep);
        rows.insert(i, first);
        let by_position = piece.wanted.chunk_by(|a, b| a.at == b.at);
        wanted.extend(by_position.map(|same| ((first + same[0].at) as u32, same)));
    }
    (batch, wanted)
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
        let row = |(i, (context, continuation)): (usize, &(String, String))| -> Result<Row> {
            let (context, continuation) = self.tokenizer.encode_pair(context, continuation)?;
            self.check_lengths(i, context.len(), continuation.len())?;
            Ok(self.row(i, context, &continuation))
        };
        let rows = of_each(requests, row, progress)?;
        self.score(rows, requests.len(), progress)
    }

    fn loglikelihood_rolling(&mut self, documents: &[String], progress: Progress<'_>) -> Result<Vec<f64>> {
        let rows_of = |(answer, document): (usize, &String)| -> Result<Vec<Row>> {
            let tokens = self.tokenizer.encode(document)?;
            let windows = windows(&tokens, self.tokenizer.prefix(), self.config.max_length);
            let row = |(input, targets)| Row { input, answer, targets };
            Ok(windows.into_iter().map(row).collect())
        };
        let rows = of_each(documents, rows_of, progress)?.concat();
        let answers = self.score(rows, documents.len(), progress)?;
        Ok(answers.into_iter().map(|answer| answer.log_likelihood).collect())
    }

    fn generate_until(&mut self, requests: &[Generation], progress: Progress<'_>) -> Result<Vec<String>> {
        super::generate::generate(self, requests, progress)
    }

    fn describe(&self) -> Description {
        Description {
            max_length: self.config.max_length,
            bos_policy: BOS_POLICY.to_owned(),
            dtype: self.options.dtype,
            computed_in: match self.device.is_cpu() {
                true => EvalDtype::Float32,
                false => self.options.dtype,
            },
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
