//! Checkpoints of the shapes of released models, with weights that follow from a seed: bell-shaped bf16 numbers as a model is
//! initialised with (standard deviation 0.02), norms of one. Nothing of a released model is in them but its shape, its names and
//! its config.json.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

const STANDARD_DEVIATION: f64 = 0.02;
/// 1 in bf16.
const ONE: [u8; 2] = [0x80, 0x3f];
/// What one thread writes at once.
const BLOCK_BYTES: u64 = 8 << 20;
/// Of a tokenizer, as far as they are there.
const TOKENIZER: [&str; 4] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
];

/// Writes a checkpoint in bfloat16 with generated weights, in shards with an index; prints its bytes and parameters.
#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// Whose shape and layout it has.
    shape: Shape,
    dir: PathBuf,
    /// A folder with a tokenizer of no more pieces than the shape's vocabulary, which is copied.
    #[arg(long)]
    tokenizer: PathBuf,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Two narrow layers, for trying the rest.
    #[arg(long)]
    tiny: bool,
}

/// Released models of seven billion parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// LLM360/Amber.
    Amber,
    /// openlm-research/open_llama_7b: as old files are, without `num_key_value_heads`, with the rotary embedding's frequencies
    /// among the weights, in more shards.
    Openllama,
}

/// What a tensor is filled with.
#[derive(Debug, Clone, Copy)]
enum Fill {
    Noise,
    Ones,
    /// The rotary embedding's frequencies, in float32.
    Frequencies,
}

#[derive(Debug)]
struct Tensor {
    name: String,
    shape: Vec<u64>,
    fill: Fill,
}

impl Tensor {
    fn size_bytes(&self) -> u64 {
        let width = if matches!(self.fill, Fill::Frequencies) { 4 } else { 2 };
        self.shape.iter().product::<u64>() * width
    }
}

impl Generate {
    pub(crate) fn run(&self) -> Result<()> {
        let config = self.config();
        let tensors = self.tensors(&config);
        let size_bytes: u64 = tensors.iter().map(Tensor::size_bytes).sum();
        let is_weight = |tensor: &&Tensor| !matches!(tensor.fill, Fill::Frequencies);
        let n_parameters: u64 = tensors.iter().filter(is_weight).map(|t| t.size_bytes() / 2).sum();
        std::fs::create_dir_all(&self.dir)?;
        for name in TOKENIZER.iter().filter(|name| self.tokenizer.join(name).exists()) {
            std::fs::copy(self.tokenizer.join(name), self.dir.join(name))?;
        }
        let shard_bytes = match (self.tiny, self.shape) {
            (true, _) => size_bytes / 2,
            (false, Shape::Amber) => 4_950_000_000,
            (false, Shape::Openllama) => 3_500_000_000,
        };
        let shards = shards(tensors, shard_bytes);
        let noise = noise();
        let mut places = Map::new();
        for (i, tensors) in shards.iter().enumerate() {
            let name = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
            write(
                &self.dir.join(&name),
                tensors,
                &noise,
                mix(self.seed ^ (i as u64) << 48),
            )?;
            places.extend(tensors.iter().map(|tensor| (tensor.name.clone(), json!(name))));
        }
        let index = json!({ "metadata": { "total_size": size_bytes }, "weight_map": places });
        std::fs::write(self.dir.join("model.safetensors.index.json"), index.to_string())?;
        std::fs::write(self.dir.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
        let said = json!({ "size_bytes": size_bytes, "n_parameters": n_parameters, "n_shards": shards.len() });
        println!("{said}");
        Ok(())
    }

    /// As on the Hub, but for the dtype.
    fn config(&self) -> Value {
        let (hidden, inner, heads, layers) = if self.tiny {
            (64, 176, 4, 2)
        } else {
            (4096, 11008, 32, 32)
        };
        let mut config = json!({
            "architectures": ["LlamaForCausalLM"],
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_act": "silu",
            "hidden_size": hidden,
            "initializer_range": STANDARD_DEVIATION,
            "intermediate_size": inner,
            "max_position_embeddings": 2048,
            "model_type": "llama",
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "pad_token_id": 0,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": false,
            "torch_dtype": "bfloat16",
            "use_cache": true,
            "vocab_size": 32000,
        });
        if self.shape == Shape::Amber {
            config["num_key_value_heads"] = json!(heads);
            config["rope_scaling"] = Value::Null;
        }
        config
    }

    fn tensors(&self, config: &Value) -> Vec<Tensor> {
        let field = |name: &str| config[name].as_u64().unwrap_or_default();
        let (hidden, inner, vocabulary) = (field("hidden_size"), field("intermediate_size"), field("vocab_size"));
        let tensor = |name: String, shape: &[u64], fill| Tensor {
            name,
            shape: shape.to_vec(),
            fill,
        };
        let mut tensors = vec![tensor(
            "model.embed_tokens.weight".to_owned(),
            &[vocabulary, hidden],
            Fill::Noise,
        )];
        for layer in 0..field("num_hidden_layers") {
            let mut add = |name: &str, shape: &[u64], fill| {
                tensors.push(tensor(format!("model.layers.{layer}.{name}"), shape, fill));
            };
            for name in ["q", "k", "v", "o"] {
                add(&format!("self_attn.{name}_proj.weight"), &[hidden, hidden], Fill::Noise);
            }
            if self.shape == Shape::Openllama {
                let head_dim = hidden / field("num_attention_heads");
                add("self_attn.rotary_emb.inv_freq", &[head_dim / 2], Fill::Frequencies);
            }
            add("mlp.gate_proj.weight", &[inner, hidden], Fill::Noise);
            add("mlp.up_proj.weight", &[inner, hidden], Fill::Noise);
            add("mlp.down_proj.weight", &[hidden, inner], Fill::Noise);
            add("input_layernorm.weight", &[hidden], Fill::Ones);
            add("post_attention_layernorm.weight", &[hidden], Fill::Ones);
        }
        tensors.push(tensor("model.norm.weight".to_owned(), &[hidden], Fill::Ones));
        tensors.push(tensor("lm_head.weight".to_owned(), &[vocabulary, hidden], Fill::Noise));
        tensors
    }
}

/// Tensors in their order, as many in a shard as it may have bytes for.
fn shards(tensors: Vec<Tensor>, most_bytes: u64) -> Vec<Vec<Tensor>> {
    let mut shards: Vec<Vec<Tensor>> = vec![Vec::new()];
    let mut n_bytes = 0;
    for tensor in tensors {
        let full = n_bytes > 0 && n_bytes + tensor.size_bytes() > most_bytes;
        if full {
            shards.push(Vec::new());
            n_bytes = 0;
        }
        n_bytes += tensor.size_bytes();
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    shards
}

fn write(path: &Path, tensors: &[Tensor], noise: &[[u8; 2]], seed: u64) -> Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let (mut at, mut blocks) = (0, Vec::new());
    for (i, tensor) in tensors.iter().enumerate() {
        let end = at + tensor.size_bytes();
        let dtype = if matches!(tensor.fill, Fill::Frequencies) {
            "F32"
        } else {
            "BF16"
        };
        let entry = json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [at, end] });
        header.insert(tensor.name.clone(), entry);
        let of_tensor = (at..end).step_by(BLOCK_BYTES as usize);
        blocks.extend(of_tensor.map(|begin| (i, begin, (end - begin).min(BLOCK_BYTES) as usize)));
        at = end;
    }
    let mut header = Value::Object(header).to_string();
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let file = File::create(path).with_context(|| path.display().to_string())?;
    file.write_all_at(&(header.len() as u64).to_le_bytes(), 0)?;
    file.write_all_at(header.as_bytes(), 8)?;
    let begin = 8 + header.len() as u64;
    file.set_len(begin + at)?;
    blocks.into_par_iter().try_for_each(|(i, at, n_bytes)| {
        let bytes = match tensors[i].fill {
            Fill::Noise => noisy(noise, n_bytes, mix(seed ^ at)),
            Fill::Ones => ONE.repeat(n_bytes / 2),
            Fill::Frequencies => frequencies(n_bytes / 4),
        };
        ensure!(bytes.len() == n_bytes, "{} bytes for {n_bytes}", bytes.len());
        Ok(file.write_all_at(&bytes, begin + at)?)
    })
}

/// So many normal numbers as bf16, of which each of a tensor is one.
fn noise() -> Vec<[u8; 2]> {
    let unit = |i: u64| ((mix(i) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    let number = |i: u64| {
        // Box and Muller's.
        let (radius, angle) = (
            (-2.0 * unit(2 * i).ln()).sqrt(),
            std::f64::consts::TAU * unit(2 * i + 1),
        );
        let bits = ((STANDARD_DEVIATION * radius * angle.cos()) as f32).to_bits();
        // To the nearest bf16, ties to even.
        (((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16).to_le_bytes()
    };
    (0..1 << 16).map(number).collect()
}

fn noisy(noise: &[[u8; 2]], n_bytes: usize, seed: u64) -> Vec<u8> {
    let drawn = (0..(n_bytes as u64).div_ceil(8)).flat_map(|i| {
        let bits = mix(seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        [0, 16, 32, 48].map(|part| noise[(bits >> part & 0xffff) as usize])
    });
    let mut bytes = drawn.collect::<Vec<_>>().into_flattened();
    bytes.truncate(n_bytes);
    bytes
}

fn frequencies(n: usize) -> Vec<u8> {
    let frequency = |i: usize| (10_000_f64.powf(-(i as f64) / n as f64) as f32).to_le_bytes();
    (0..n).flat_map(frequency).collect()
}

/// SplitMix64's last step: every bit of the result follows from every bit of `z`.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
