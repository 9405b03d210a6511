//! What a checkpoint's engine answers, for a comparison with lm-eval: `answers DIR < PAIRS`, of which each line is a JSON list of
//! a context and a continuation. A line of output is `[log-likelihood, whether it is greedy]`.

#![expect(clippy::print_stdout, reason = "a program whose answer is its output")]

use std::io::BufRead;
use std::path::PathBuf;

use anyhow::{Context, Result};
use candle_core::Device;
use fineline_evaluator::candle::engine::CandleEngine;
use fineline_evaluator::engine::{Engine, EngineOptions};
use serde_json::json;

fn main() -> Result<()> {
    let dir: PathBuf = std::env::args_os().nth(1).context("a folder is wanted")?.into();
    let pair = |line: std::io::Result<String>| -> Result<(String, String)> { Ok(serde_json::from_str(&line?)?) };
    let pairs: Vec<_> = std::io::stdin().lock().lines().map(pair).collect::<Result<_>>()?;
    let mut engine = CandleEngine::load(&dir, &Device::Cpu, EngineOptions::default())?;
    for answer in engine.loglikelihood(&pairs, &mut |_| Ok(()))? {
        println!("{}", json!([answer.log_likelihood, answer.is_greedy]));
    }
    Ok(())
}
