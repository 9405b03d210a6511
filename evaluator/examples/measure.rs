//! How long an engine takes for tasks, and on how many tokens: `measure DIR DTYPE LIMIT LOGS YAML[:SHOTS]…` prints a line of JSON
//! for each task and writes its sample log below `LOGS`. `measure --peak` prints the operations a second of a large product of
//! matrices in float32, over all cores.

#![expect(clippy::print_stdout, reason = "a program whose answer is its output")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use fineline_evaluator::candle::engine::CandleEngine;
use fineline_evaluator::engine::EngineOptions;
use fineline_evaluator::task::{Overrides, PreparedTask};
use fineline_format::task::TaskFile;
use serde_json::json;

/// Rows and columns of the product; the best of so many times.
const SIDE: usize = 2048;
const N_TIMES: usize = 7;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, dtype, limit, logs, tasks @ ..] = &arguments[..] else {
        println!("{}", json!({"flops_per_s": peak()?}));
        return Ok(());
    };
    let options = EngineOptions {
        dtype: dtype.parse().map_err(anyhow::Error::msg)?,
        ..EngineOptions::default()
    };
    let mut engine = CandleEngine::load(Path::new(dir), &Device::Cpu, options)?;
    for task in tasks {
        let (path, num_fewshot) = match task.rsplit_once(':') {
            Some((path, shots)) => (path, Some(shots.parse()?)),
            None => (task.as_str(), None),
        };
        let limit = Some(limit.parse()?);
        let prepared = prepare(Path::new(path), Overrides { limit, num_fewshot })?;
        let (before, begun) = (engine.counts(), Instant::now());
        let (mut asked, mut longest) = (Instant::now(), 0_f64);
        let result = prepared.run(&mut engine, &mut |_| {
            longest = longest.max(asked.elapsed().as_secs_f64());
            asked = Instant::now();
            Ok(())
        })?;
        let (after, seconds) = (engine.counts(), begun.elapsed().as_secs_f64());
        let log = PathBuf::from(logs).join(format!("{}.jsonl", prepared.name()));
        std::fs::write(log, &result.samples_jsonl)?;
        println!(
            "{}",
            json!({
                "task": prepared.name(),
                "n_requests": prepared.n_requests(),
                "seconds": seconds,
                // A cancelled evaluation computes on for so long, at most.
                "longest_silence_s": longest,
                "n_asked": after.n_asked - before.n_asked,
                "n_computed": after.n_computed - before.n_computed,
            })
        );
    }
    Ok(())
}

fn prepare(path: &Path, overrides: Overrides) -> Result<PreparedTask> {
    let yaml = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut data = BTreeMap::new();
    for (split, paths) in TaskFile::parse(&yaml)?.data_files {
        let files = paths.iter().map(|path| std::fs::read(dir.join(path)));
        data.insert(split, files.collect::<std::io::Result<Vec<_>>>()?);
    }
    PreparedTask::new(&yaml, &data, overrides)
}

fn peak() -> Result<f64> {
    let a = Tensor::rand(0_f32, 1.0, (SIDE, SIDE), &Device::Cpu)?.to_dtype(DType::F32)?;
    let mut best = f64::INFINITY;
    for _ in 0..N_TIMES {
        let begun = Instant::now();
        a.matmul(&a)?;
        best = best.min(begun.elapsed().as_secs_f64());
    }
    Ok(2.0 * (SIDE as f64).powi(3) / best)
}
