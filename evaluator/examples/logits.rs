//! The logits of a checkpoint in float32, for a comparison with other programs: `logits DIR ID…` prints a line of JSON, a list
//! of logits a token.

#![expect(clippy::print_stdout, reason = "a program whose answer is its output")]

use std::path::PathBuf;

use anyhow::{Context, Result};
use candle_core::{DType, Device};
use fineline_evaluator::candle::batch::{Batch, Cache};
use fineline_evaluator::candle::llama::Llama;
use fineline_evaluator::config::Config;
use fineline_evaluator::weights::Weights;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir: PathBuf = arguments.next().context("a folder is wanted")?.into();
    let ids: Vec<u32> = arguments.map(|id| Ok(id.parse()?)).collect::<Result<_>>()?;
    let config = Config::parse(&std::fs::read(dir.join("config.json"))?)?;
    let weights = Weights::open(&dir, DType::F32, &Device::Cpu)?;
    let model = Llama::load(&config, weights, DType::F32, &Device::Cpu)?;
    let hidden = model.forward(&Batch::of(&ids), &mut Cache::default(), &mut || Ok(()))?;
    let logits: Vec<Vec<f32>> = model.logits(&hidden)?.to_vec2()?;
    println!("{}", serde_json::to_string(&logits)?);
    Ok(())
}
