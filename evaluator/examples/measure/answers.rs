//! Log-likelihoods of single requests, and how near the model was to another greedy token.

use std::io::BufRead;
use std::path::PathBuf;

use anyhow::Result;
use candle_core::{DType, Device};
use clap::Args;
use fineline_evaluator::candle::batch::{Batch, Cache};
use fineline_evaluator::candle::llama::Llama;
use fineline_evaluator::config::Config;
use fineline_evaluator::engine::{Answer, Engine};
use fineline_evaluator::tokenizer::Tokenizer;
use fineline_evaluator::weights::Weights;
use serde_json::json;

use crate::HowComputed;

/// Reads a JSON list of a context and a continuation a line; prints `[log-likelihood, whether it is greedy]` for each.
#[derive(Debug, Args)]
pub(crate) struct Answers {
    /// The checkpoint's folder.
    dir: PathBuf,
    #[command(flatten)]
    how: HowComputed,
    /// One request a call, so that none shares a batch or a beginning with another.
    #[arg(long)]
    alone: bool,
}

/// Reads the same lines; prints for each the least distance between the two largest logits at the positions that foretell the
/// continuation, on the CPU in float32.
#[derive(Debug, Args)]
pub(crate) struct Gaps {
    /// The checkpoint's folder.
    dir: PathBuf,
}

impl Answers {
    pub(crate) fn run(&self) -> Result<()> {
        let pairs = pairs()?;
        let mut engine = self.how.load(&self.dir, &self.how.open()?)?;
        let size = if self.alone { 1 } else { pairs.len().max(1) };
        for pairs in pairs.chunks(size) {
            for Answer {
                log_likelihood,
                is_greedy,
            } in engine.loglikelihood(pairs, &mut |_| Ok(()))?
            {
                println!("{}", json!([log_likelihood, is_greedy]));
            }
        }
        Ok(())
    }
}

impl Gaps {
    pub(crate) fn run(&self) -> Result<()> {
        let config = Config::parse(&std::fs::read(self.dir.join("config.json"))?)?;
        let tokenizer = Tokenizer::load(&self.dir, &config)?;
        let weights = Weights::open(&self.dir, DType::F32, &Device::Cpu)?;
        let model = Llama::load(&config, weights, DType::F32, &Device::Cpu)?;
        for (context, continuation) in pairs()? {
            let (mut tokens, continuation) = tokenizer.encode_pair(&context, &continuation)?;
            tokens.extend(&continuation);
            let begin = tokens.len().saturating_sub(config.max_length + 1);
            let input = &tokens[begin..tokens.len() - 1];
            let hidden = model.forward(&Batch::of(input), &mut Cache::default(), &mut || Ok(()))?;
            let n = continuation.len();
            let logits = model.logits(&hidden.narrow(0, input.len() - n, n)?)?.to_vec2::<f32>()?;
            println!(
                "{}",
                logits.iter().map(|logits| gap(logits)).fold(f32::INFINITY, f32::min)
            );
        }
        Ok(())
    }
}

/// Between the two largest.
fn gap(logits: &[f32]) -> f32 {
    let (first, second) = logits
        .iter()
        .fold((f32::NEG_INFINITY, f32::NEG_INFINITY), |(first, second), &logit| {
            (first.max(logit), second.max(first.min(logit)))
        });
    first - second
}

fn pairs() -> Result<Vec<(String, String)>> {
    let pair = |line: std::io::Result<String>| Ok(serde_json::from_str(&line?)?);
    std::io::stdin().lock().lines().map(pair).collect()
}
