//! How long an engine takes for tasks, and on how many tokens: `measure DIR DTYPE LIMIT LOGS YAML[:SHOTS]…` prints a line of JSON
//! for each task and writes its sample log below `LOGS`. `measure DIR` prints the operations a second in float32 over all cores: of a
//! large product of matrices, of a layer's products, and of the one that gives logits.

#![expect(clippy::print_stdout, reason = "a program whose answer is its output")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use fineline_evaluator::candle::engine::CandleEngine;
use fineline_evaluator::config::Config;
use fineline_evaluator::engine::EngineOptions;
use fineline_evaluator::task::{Overrides, PreparedTask};
use fineline_format::task::TaskFile;
use serde_json::{Value, json};

/// Rows and columns of the large product, and rows of a layer's.
const SIDE: usize = 2048;
/// Rows of the product that gives logits, as many as the engine takes at once for a vocabulary of 49,152.
const LOGIT_ROWS: usize = 170;
/// The best of so many times.
const N_TIMES: usize = 7;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [dir] = &arguments[..] {
        println!("{}", products(Path::new(dir))?);
        return Ok(());
    }
    let [dir, dtype, limit, logs, tasks @ ..] = &arguments[..] else {
        bail!("measure DIR [DTYPE LIMIT LOGS YAML[:SHOTS]...]");
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

/// Operations a second of products alone.
fn products(dir: &Path) -> Result<Value> {
    let config = Config::parse(&std::fs::read(dir.join("config.json"))?)?;
    let (h, m) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
    let layer = [(h, q), (h, kv), (h, kv), (q, h), (h, m), (h, m), (m, h)];
    Ok(json!({
        "flops_per_s": rate(SIDE, &[(SIDE, SIDE)])?,
        "layer_flops_per_s": rate(SIDE, &layer)?,
        "head_flops_per_s": rate(LOGIT_ROWS, &[(h, config.vocab_size)])?,
    }))
}

/// Operations a second of products of [rows, in] by each [in, out], one after the other.
fn rate(rows: usize, shapes: &[(usize, usize)]) -> Result<f64> {
    let matrix = |rows, columns| Tensor::rand(0_f32, 1.0, (rows, columns), &Device::Cpu);
    let matrices = shapes.iter().map(|&(n, out)| Ok((matrix(rows, n)?, matrix(n, out)?)));
    let matrices: Vec<(Tensor, Tensor)> = matrices.collect::<Result<_>>()?;
    let mut best = f64::INFINITY;
    for _ in 0..N_TIMES {
        let begun = Instant::now();
        for (a, b) in &matrices {
            a.matmul(b)?;
        }
        best = best.min(begun.elapsed().as_secs_f64());
    }
    let n_multiplied: usize = shapes.iter().map(|(n, out)| rows * n * out).sum();
    Ok(2.0 * n_multiplied as f64 / best)
}
