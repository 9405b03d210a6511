//! A LLaMA's engine: texts to tokens, tokens to a plan, batches through the model, logits to answers.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use fineline_format::suite::EvalDtype;

use super::batch::{Batch, Before, Source};
use super::encode::{Expected, Reader};
use super::host::Said;
use super::llama::{Check, Llama};
use super::numbers;
use super::plan::{Plan, Row, Wanted};
use crate::config::Config;
use crate::device;
use crate::engine::{Answer, Asked, Description, Done, Engine, EngineOptions, Generation, NotFinite, Progress};
use crate::memory::{self, Needed};
use crate::tokenizer::{BOS_POLICY, Tokenizer};
use crate::weights::Weights;

/// Numbers of the largest block of logits on the CPU: 32 MiB in float32. A larger one is slower, since it leaves the caches before it
/// is read.
const LOGITS: usize = 1 << 23;

/// The same on a card, 512 MiB in bfloat16: a product that fills it, and few waits for it.
const LOGITS_ON_A_CARD: usize = 1 << 28;

/// Bytes of keys and values that are kept of texts in the making where nobody says how many, and a card does not say what it has.
const KEPT_BYTES: usize = 1 << 30;

/// A LLaMA on candle.
#[derive(Debug)]
pub struct CandleEngine {
    pub(super) model: Llama,
    pub(super) reader: Arc<Reader>,
    pub(super) config: Config,
    pub(super) device: Device,
    pub(super) options: EngineOptions,
    /// Bytes of keys and values that are kept of texts in the making.
    pub(super) max_kept_bytes: usize,
    /// Bytes that the model leaves for keys and values; no bound where it is not known.
    left_bytes: u64,
    /// Whether batches are smaller than asked for, since the device lacked memory.
    is_smaller: bool,
    /// What will be asked.
    expected: Vec<Expected>,
    counts: Counts,
    // Dropped last, when the tensors are gone.
    _memory: GivesBack,
}

/// Gives a device's memory back to its driver when an engine is gone.
#[derive(Debug)]
struct GivesBack(Device);

impl Drop for GivesBack {
    fn drop(&mut self) {
        device::give_back(&self.0);
    }
}

/// Numbers of the largest block of logits on a device.
pub(crate) fn logits_at_once(is_cpu: bool) -> usize {
    if is_cpu { LOGITS } else { LOGITS_ON_A_CARD }
}

/// Tokens that were worked on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of all inputs that differ: what would be computed if no beginning were shared.
    pub n_asked: u64,
    /// Of these, computed.
    pub n_computed: u64,
    /// Tokens that the computed ones look at, themselves included: a sum over all of them, which attention's work follows from.
    pub n_looked_at: u64,
    /// Positions whose logits were computed.
    pub n_scored: u64,
}

impl Counts {
    /// Counts tokens behind `n_before` others.
    pub(super) fn compute(&mut self, n_before: usize, n_tokens: usize) {
        let (before, n) = (n_before as u64, n_tokens as u64);
        self.n_computed += n;
        self.n_looked_at += n * before + n * (n + 1) / 2;
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.n_asked += other.n_asked;
        self.n_computed += other.n_computed;
        self.n_looked_at += other.n_looked_at;
        self.n_scored += other.n_scored;
    }
}

impl CandleEngine {
    /// Loads a checkpoint from a local folder.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the model is none that we compute or does not fit in memory.
    pub fn load(dir: &Path, device: &Device, options: EngineOptions) -> Result<Self> {
        let json = std::fs::read(dir.join("config.json")).context("config.json")?;
        let config = Config::parse(&json)?;
        let mut left_bytes = u64::MAX;
        if !device.is_cpu() {
            check_sizes(&config, options.max_batch_tokens)?;
        }
        let mut max_kept_bytes = options.max_kept_bytes.unwrap_or(KEPT_BYTES);
        // What an earlier model left is free once the driver has it.
        device::give_back(device);
        let available = match device.is_cpu() {
            true => memory::available_bytes(),
            false => device::memory(device).map(|memory| memory.free_bytes),
        };
        if let Some(available) = available {
            left_bytes = Needed::of(&config, &options, device.is_cpu()).check(available)?;
            if !device.is_cpu() {
                // Of a card some stays for tables and for what lies between what is taken.
                left_bytes = left_bytes / 10 * 9;
            }
            let left = usize::try_from(left_bytes).unwrap_or(usize::MAX);
            let by_default = match device.is_cpu() {
                true => KEPT_BYTES,
                // A card's memory is nobody else's: the more texts are made at once, the fewer times the weights are read.
                false => left / 4 * 3,
            };
            max_kept_bytes = options.max_kept_bytes.unwrap_or(by_default).min(left);
        }
        if !device.is_cpu() {
            max_kept_bytes = max_kept_bytes.min(most_kept(&config, options.dtype));
        }
        let dtype = match options.dtype {
            EvalDtype::Float32 => DType::F32,
            EvalDtype::Bfloat16 => DType::BF16,
            EvalDtype::Float16 => DType::F16,
        };
        let tokenizer = Tokenizer::load(dir, &config)?;
        let mut model = Llama::load(&config, Weights::open(dir, dtype, device)?, dtype, device)?;
        if options.by_tables {
            model = model.by_tables();
        }
        Ok(Self {
            model,
            reader: Arc::new(Reader::new(tokenizer, config.clone())?),
            expected: Vec::new(),
            config,
            device: device.clone(),
            options,
            max_kept_bytes,
            left_bytes,
            is_smaller: false,
            counts: Counts::default(),
            _memory: GivesBack(device.clone()),
        })
    }

    /// What it has worked on since it was loaded.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What is expected, where that is it.
    fn expected(&mut self, is_it: impl Fn(&Asked) -> bool) -> Option<Expected> {
        let at = self.expected.iter().position(|expected| is_it(expected.asked()))?;
        Some(self.expected.swap_remove(at))
    }

    /// Does a computation. When the device lacks memory for it, it is done once more with a batch of a quarter, which stays.
    fn within_memory<T>(&mut self, mut compute: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        let mut outcome = compute(self);
        let is_too_much = |outcome: &Result<T>| outcome.as_ref().err().is_some_and(device::is_out_of_memory);
        if is_too_much(&outcome) && !self.is_smaller {
            let n_tokens = self.options.max_batch_tokens;
            self.is_smaller = true;
            self.options.max_batch_tokens = (n_tokens / 4).max(1);
            self.max_kept_bytes /= 4;
            device::give_back(&self.device);
            let less = self.options.max_batch_tokens;
            tracing::warn!("the device lacks memory for batches of {n_tokens} tokens: from here on they have {less}");
            outcome = compute(self);
        }
        if !is_too_much(&outcome) {
            return outcome;
        }
        device::give_back(&self.device);
        let n_tokens = self.options.max_batch_tokens;
        let text = format!(
            "the device lacks memory for batches of {n_tokens} tokens, a smaller one tried before: evaluate with fewer \
             (--batch-tokens), or where there is more"
        );
        Err(std::io::Error::new(std::io::ErrorKind::OutOfMemory, text).into())
    }

    /// Scores rows and adds up each of `n` answers.
    fn score(&mut self, rows: &[Row], n: usize, progress: Progress<'_>) -> Result<Vec<Answer>> {
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
        let n_kept = plan.max_kept(&batches);
        self.check_kept(n_kept)?;
        let mut counts = Counts {
            n_asked: plan.n_asked,
            ..Counts::default()
        };
        let mut cache = self.model.cache(n_kept)?;
        for pieces in batches {
            let kept = plan.kept_before(pieces.end);
            for piece in &plan.pieces[pieces.clone()] {
                counts.compute(piece.position, piece.tokens.len());
            }
            let (batch, wanted) = batch(&plan, pieces, kept);
            self.check(&batch.ids)?;
            let hidden = self.model.forward(&batch, &mut cache, &mut || progress(done))?;
            counts.n_scored += wanted.len() as u64;
            done.n_tokens = counts.n_computed;
            cache.retain(|key| kept.iter().find(|&&(piece, _)| piece == key).map(|&(_, n)| n));
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
        self.count(counts);
        Ok(answers)
    }

    /// What the logits at some rows of hidden states say, block by block: (index in `wanted`, what is said).
    fn read(&self, hidden: &Tensor, wanted: &[(u32, &[Wanted])], check: Check<'_>) -> Result<Vec<(usize, Said)>> {
        let vocabulary = self.config.vocab_size;
        let n_rows = (logits_at_once(self.device.is_cpu()) / vocabulary).max(1);
        let mut all = Vec::with_capacity(wanted.len());
        for (block, rows) in wanted.chunks(n_rows).enumerate() {
            let positions: Vec<u32> = rows.iter().map(|(row, _)| *row).collect();
            let tokens: Vec<Vec<u32>> = rows.iter().map(|(_, w)| w.iter().map(|w| w.token).collect()).collect();
            self.check(tokens.iter().flatten())?;
            let positions = Tensor::new(positions.as_slice(), &self.device)?;
            let logits = self.model.logits(&hidden.index_select(&positions, 0)?)?;
            all.extend((block * n_rows..).zip(numbers::said(&logits, &tokens)?));
            check()?;
        }
        Ok(all)
    }

    /// Bytes of the keys and values of a token.
    pub(super) fn kept_bytes(&self) -> usize {
        self.config.kept_bytes(self.computed_in())
    }

    fn computed_in(&self) -> EvalDtype {
        memory::computed_in(self.options.dtype, self.device.is_cpu())
    }

    /// Checks that there is memory for the keys and values of so many tokens.
    pub(super) fn check_kept(&self, n_tokens: usize) -> Result<()> {
        memory::check_kept(self.kept_bytes(), n_tokens, self.left_bytes)
    }

    /// Checks that the model knows all tokens.
    pub(super) fn check<'a>(&self, ids: impl IntoIterator<Item = &'a u32>) -> Result<()> {
        let vocabulary = self.config.vocab_size;
        match ids.into_iter().find(|&&id| id as usize >= vocabulary) {
            Some(id) => bail!("the tokenizer gives token {id}, the model's vocabulary has {vocabulary}"),
            None => Ok(()),
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
        self.counts += counts;
    }
}

/// Numbers that a tensor may have on a card: beyond, candle's kernels count wrongly.
const MOST_NUMBERS: usize = i32::MAX as usize;

/// Demands that a batch's tensors are no larger.
fn check_sizes(config: &Config, n_tokens: usize) -> Result<()> {
    let widest = config
        .hidden_size
        .max(config.intermediate_size)
        .max(config.n_heads * config.head_dim);
    let most = MOST_NUMBERS / widest;
    ensure!(
        n_tokens <= most,
        "a batch of {n_tokens} tokens has tensors of more than 2^31 numbers: evaluate with at most {most} (--batch-tokens)"
    );
    Ok(())
}

/// Bytes of the keys and values of as many tokens as a tensor has rows for.
fn most_kept(config: &Config, dtype: EvalDtype) -> usize {
    MOST_NUMBERS / (config.n_kv_heads * config.head_dim) * config.kept_bytes(dtype)
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

impl Engine for CandleEngine {
    fn loglikelihood(&mut self, requests: &[(String, String)], progress: Progress<'_>) -> Result<Vec<Answer>> {
        let rows = match self.expected(|asked| matches!(asked, Asked::Pairs(pairs) if pairs == requests)) {
            Some(expected) => expected.rows()?,
            None => self.reader.pairs(requests, progress)?,
        };
        self.within_memory(|engine| engine.score(&rows, requests.len(), progress))
    }

    fn loglikelihood_rolling(&mut self, documents: &[String], progress: Progress<'_>) -> Result<Vec<f64>> {
        let rows = match self.expected(|asked| matches!(asked, Asked::Documents(asked) if asked == documents)) {
            Some(expected) => expected.rows()?,
            None => self.reader.documents(documents, progress)?,
        };
        let answers = self.within_memory(|engine| engine.score(&rows, documents.len(), progress))?;
        Ok(answers.into_iter().map(|answer| answer.log_likelihood).collect())
    }

    fn expect(&mut self, asked: &dyn Fn() -> Asked) {
        // The CPU's cores have enough to do.
        if !self.device.is_cpu() || self.options.by_tables {
            self.expected.extend(Expected::read(&self.reader, asked()));
        }
    }

    fn generate_until(&mut self, requests: &[Generation], progress: Progress<'_>) -> Result<Vec<String>> {
        self.within_memory(|engine| super::generate::generate(engine, requests, progress))
    }

    fn describe(&self) -> Description {
        Description {
            max_length: self.config.max_length,
            bos_policy: BOS_POLICY.to_owned(),
            dtype: self.options.dtype,
            computed_in: self.computed_in(),
            n_parameters: self.config.n_parameters(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tensor_has_more_numbers_than_a_card_counts() {
        let shape = r#"{"hidden_size":4096,"intermediate_size":11008,"num_hidden_layers":32,"num_attention_heads":32,"vocab_size":32000}"#;
        let config = Config::parse(shape.as_bytes()).unwrap();
        check_sizes(&config, 195_083).unwrap();
        let error = check_sizes(&config, 195_084).unwrap_err().to_string();
        assert!(error.contains("at most 195083 (--batch-tokens)"), "{error}");
        let rows = most_kept(&config, EvalDtype::Bfloat16) / config.kept_bytes(EvalDtype::Bfloat16);
        assert!(rows * 4096 < 1 << 31 && (rows + 1) * 4096 >= 1 << 31);
    }
}
