//! What a device can do at most: operations a second of products of matrices, and bytes a second of copies.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use clap::Args;
use fineline_evaluator::config::Config;
use fineline_evaluator::device::{self, Wanted};
use fineline_format::suite::EvalDtype;
use rayon::prelude::*;
use serde_json::json;

/// Rows of the product that gives logits, as many as the engine takes at once on the CPU for a vocabulary of 49,152.
const LOGIT_ROWS: usize = 170;
/// The best of so many times.
const N_TIMES: usize = 7;

/// Prints operations a second: of a large product and, with `--like`, of a layer's products and of the one that gives logits.
#[derive(Debug, Args)]
pub(crate) struct Products {
    /// A checkpoint's folder, of which config.json is read.
    #[arg(long, value_name = "DIR")]
    like: Option<PathBuf>,
    #[arg(long, default_value_t = Wanted::Cpu)]
    device: Wanted,
    #[arg(long, default_value_t = EvalDtype::Float32, value_parser = crate::dtype)]
    dtype: EvalDtype,
    /// Rows and columns of the large product, and rows of a layer's.
    #[arg(long, default_value_t = 2048)]
    side: usize,
}

/// Prints bytes a second: of a copy on the device, counted as read and as written, and of one from the processor's memory to it.
#[derive(Debug, Args)]
pub(crate) struct Copies {
    #[arg(long, default_value_t = Wanted::Cpu)]
    device: Wanted,
    /// How much is copied.
    #[arg(long, default_value_t = 1024)]
    mib: usize,
}

impl Products {
    pub(crate) fn run(&self) -> Result<()> {
        let device = device::open(self.device)?;
        let dtype = match self.dtype {
            EvalDtype::Float32 => DType::F32,
            EvalDtype::Bfloat16 => DType::BF16,
            EvalDtype::Float16 => DType::F16,
        };
        let rate = |rows, shapes: &[(usize, usize)]| rate(&device, dtype, rows, shapes);
        let mut said = json!({ "flops_per_s": rate(self.side, &[(self.side, self.side)])? });
        if let Some(dir) = &self.like {
            let config = Config::parse(&std::fs::read(dir.join("config.json")).context("config.json")?)?;
            let (h, m) = (config.hidden_size, config.intermediate_size);
            let (q, kv) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
            let layer = [(h, q), (h, kv), (h, kv), (q, h), (h, m), (h, m), (m, h)];
            said["layer_flops_per_s"] = json!(rate(self.side, &layer)?);
            said["head_flops_per_s"] = json!(rate(LOGIT_ROWS, &[(h, config.vocab_size)])?);
        }
        println!("{said}");
        Ok(())
    }
}

impl Copies {
    pub(crate) fn run(&self) -> Result<()> {
        let device = device::open(self.device)?;
        let n = self.mib << 18;
        let (values, n_bytes) = (numbers(n, 3), (4 * n) as f64);
        let upload_s = best(&device, || Ok(Tensor::from_slice(&values, n, &device)?))?;
        let there = Tensor::from_slice(&values, n, &device)?;
        let copy_s = best(&device, || Ok(there.copy()?))?;
        let said = json!({ "copy_bytes_per_s": 2.0 * n_bytes / copy_s, "upload_bytes_per_s": n_bytes / upload_s });
        println!("{said}");
        Ok(())
    }
}

/// Operations a second of products of [rows, in] by each [in, out], one after the other.
fn rate(device: &Device, dtype: DType, rows: usize, shapes: &[(usize, usize)]) -> Result<f64> {
    let matrix = |rows, columns, seed| -> Result<Tensor> {
        let numbers = Tensor::from_vec(numbers(rows * columns, seed), (rows, columns), &Device::Cpu)?;
        Ok(numbers.to_dtype(dtype)?.to_device(device)?)
    };
    let matrices = shapes
        .iter()
        .map(|&(n, out)| Ok((matrix(rows, n, 1)?, matrix(n, out, 2)?)));
    let matrices: Vec<(Tensor, Tensor)> = matrices.collect::<Result<_>>()?;
    let seconds = best(device, || {
        Ok(matrices
            .iter()
            .map(|(a, b)| a.matmul(b))
            .collect::<Result<Vec<_>, _>>()?)
    })?;
    let n_multiplied: usize = shapes.iter().map(|(n, out)| rows * n * out).sum();
    Ok(2.0 * n_multiplied as f64 / seconds)
}

/// The least seconds of some work, with what it leaves dropped outside of them.
fn best<T>(device: &Device, mut work: impl FnMut() -> Result<T>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..N_TIMES {
        device.synchronize()?;
        let begun = Instant::now();
        let made = work()?;
        device.synchronize()?;
        best = best.min(begun.elapsed().as_secs_f64());
        drop(made);
    }
    Ok(best)
}

/// Noise between -1 and 1: some devices multiply zeros faster.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let number = |i| (crate::checkpoint::mix(seed << 40 ^ i) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    (0..n as u64).into_par_iter().map(number).collect()
}
