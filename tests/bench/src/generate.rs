//! Checkpoints with the statistics of trained weights: bf16 values, bell-shaped around zero, whose scale differs from row
//! to row of a tensor by up to two, in tensors of a LLaMA-like model of hidden size 4096. Their exponents have 2.6 bits of
//! entropy, as those of trained models have (2.6 to 2.7), and sign and mantissa are noise. Every value follows from its
//! place and the seed, so that no chunk repeats and deduplication can do nothing.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context, Result};

const HIDDEN: u64 = 4096;
const INNER: u64 = 11008;
const N_SHARDS: u64 = 2;
/// The rows of the tensors of one layer; all have [`HIDDEN`] columns but the last kind, which is a vector.
const LAYER: [(&str, u64); 7] = [
    ("self_attn.q_proj", HIDDEN),
    ("self_attn.k_proj", HIDDEN),
    ("self_attn.v_proj", HIDDEN),
    ("self_attn.o_proj", HIDDEN),
    ("mlp.gate_proj", INNER),
    ("mlp.up_proj", INNER),
    ("input_layernorm", 1),
];

/// Writes a checkpoint of `size_bytes` (and a header each) in two shards with an index and a config.
pub(crate) fn checkpoint(dir: &Path, size_bytes: u64, seed: u64) -> Result<()> {
    let row_bytes = 2 * HIDDEN;
    let rows_per_shard = size_bytes / N_SHARDS / row_bytes;
    let mut names = String::new();
    std::thread::scope(|scope| {
        let mut writers = Vec::new();
        for shard in 0..N_SHARDS {
            let name = format!("model-{:05}-of-{N_SHARDS:05}.safetensors", shard + 1);
            let tensors = tensors(shard, rows_per_shard);
            for (tensor, _) in &tensors {
                write!(
                    names,
                    "{}\"{tensor}\":\"{name}\"",
                    if names.is_empty() { "" } else { "," }
                )?;
            }
            let path = dir.join(name);
            writers.push(scope.spawn(move || write_shard(&path, &tensors, mix(seed ^ (shard << 32)))));
        }
        for writer in writers {
            writer
                .join()
                .map_err(|_| anyhow::anyhow!("a shard's writer panicked"))??;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    let index = format!("{{\"metadata\":{{\"total_size\":{size_bytes}}},\"weight_map\":{{{names}}}}}");
    std::fs::write(dir.join("model.safetensors.index.json"), index)?;
    std::fs::write(
        dir.join("config.json"),
        r#"{"architectures":["LlamaForCausalLM"],"model_type":"llama"}"#,
    )?;
    Ok(())
}

/// The tensors of a shard with their rows, as many as there are rows for.
fn tensors(shard: u64, mut rows: u64) -> Vec<(String, u64)> {
    let mut tensors = Vec::new();
    for layer in 0.. {
        for (kind, n) in LAYER {
            if rows == 0 {
                return tensors;
            }
            let n = n.min(rows);
            rows -= n;
            tensors.push((format!("model.layers.{}.{kind}.weight", shard * 1000 + layer), n));
        }
    }
    tensors
}

fn write_shard(path: &Path, tensors: &[(String, u64)], seed: u64) -> Result<()> {
    let file = File::create(path).with_context(|| format!("shard `{}`", path.display()))?;
    let mut to = BufWriter::with_capacity(1 << 20, file);
    let mut header = String::from("{");
    let mut begin = 0;
    for (name, rows) in tensors {
        let end = begin + rows * HIDDEN * 2;
        let comma = if begin == 0 { "" } else { "," };
        write!(
            header,
            "{comma}\"{name}\":{{\"dtype\":\"BF16\",\"shape\":[{rows},{HIDDEN}],\"data_offsets\":[{begin},{end}]}}"
        )?;
        begin = end;
    }
    header.push('}');
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(header.as_bytes())?;
    let mut row = vec![0; 2 * HIDDEN as usize];
    for at in 0..begin / row.len() as u64 {
        fill(&mut row, mix(seed ^ at));
        to.write_all(&row)?;
    }
    to.into_inner()?.sync_all()?;
    Ok(())
}

/// A row of weights: sums of four even numbers are nearly bell-shaped; their scale follows from the row.
fn fill(row: &mut [u8], seed: u64) {
    let scale = 0.02 * (1.0 + (seed >> 40) as f32 / (1 << 24) as f32);
    let (values, _) = row.as_chunks_mut::<2>();
    for (i, value) in values.iter_mut().enumerate() {
        let bits = mix(seed.wrapping_add((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let sum: f32 = (0..4).map(|part| (bits >> (16 * part) & 0xffff) as f32 / 65536.0).sum();
        let bits = ((sum - 2.0) * 1.732 * scale).to_bits();
        // To the nearest bf16, ties to even.
        *value = (((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16).to_le_bytes();
    }
}

/// SplitMix64's last step: every bit of the result follows from every bit of `z`.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
