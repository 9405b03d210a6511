//! A LLaMA that can be trained: the forward pass of basic operations, since candle's fused ones have no backward and
//! say nothing about it.
//!
//! **Invariant:** weights bear the Hub's names, and the same seed makes the same ones. Shapes as in
//! [`crate::candle::llama`].

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{D, Device, Tensor, Var};
use candle_nn::ops::{silu, softmax};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::vocabulary::{BOS_ID, EOS_ID};

/// The demo's shape: some 100,000 parameters.
const HIDDEN: usize = 64;
const INTERMEDIATE: usize = 160;
const N_LAYERS: usize = 2;
const N_HEADS: usize = 4;
const N_KV_HEADS: usize = 2;
const HEAD_DIM: usize = HIDDEN / N_HEADS;
const RMS_NORM_EPS: f64 = 1e-5;
const ROPE_THETA: f64 = 10_000.0;

/// Tokens of a row, and the longest input of the model.
pub const MAX_LENGTH: usize = 48;

/// A LLaMA whose weights are variables.
#[derive(Debug)]
pub struct Trainable {
    vars: BTreeMap<String, Var>,
    vocab_size: usize,
    /// [1, 1, T, D / 2]
    cos: Tensor,
    sin: Tensor,
    /// [T, T]
    mask: Tensor,
}

impl Trainable {
    /// Fresh weights: normal with the variance 1 / inputs (LeCun et al., 1998), which learns several times faster at
    /// this width than the usual 0.02; norms of one.
    ///
    /// # Errors
    /// When the device fails.
    pub fn new(vocab_size: usize, seed: u64) -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut vars = BTreeMap::new();
        // In the order of the names: the generator's numbers go to the same places each time.
        for (name, shape) in shapes(vocab_size) {
            let n: usize = shape.iter().product();
            let values: Vec<f32> = match shape[..] {
                [_, fan_in] => {
                    let deviation = (fan_in as f32).powf(-0.5);
                    (0..n).map(|_| deviation * normal(&mut rng)).collect()
                }
                _ => vec![1.0; n],
            };
            vars.insert(name, Var::from_vec(values, shape, &Device::Cpu)?);
        }
        let (cos, sin) = rotary()?;
        let row = |i: usize| (0..MAX_LENGTH).map(move |j| if j <= i { 0.0 } else { f32::NEG_INFINITY });
        let mask = Tensor::from_iter((0..MAX_LENGTH).flat_map(row), &Device::Cpu)?;
        Ok(Self {
            vars,
            vocab_size,
            cos,
            sin,
            mask: mask.reshape((MAX_LENGTH, MAX_LENGTH))?,
        })
    }

    /// Weights by name.
    pub fn vars(&self) -> &BTreeMap<String, Var> {
        &self.vars
    }

    /// Mean cross-entropy in nats of predicting each row's tokens but the first; `rows` is [B, [`MAX_LENGTH`] + 1].
    ///
    /// # Errors
    /// When the device fails.
    pub fn loss(&self, rows: &Tensor) -> Result<Tensor> {
        let inputs = rows.narrow(1, 0, MAX_LENGTH)?;
        let targets = rows.narrow(1, 1, MAX_LENGTH)?.flatten_all()?;
        let logits = self.logits(&inputs)?.reshape((targets.elem_count(), self.vocab_size))?;
        Ok(candle_nn::loss::cross_entropy(&logits, &targets)?)
    }

    /// Logits [B, T, V] of token ids [B, T], T at most [`MAX_LENGTH`].
    ///
    /// # Errors
    /// When the device fails.
    pub fn logits(&self, ids: &Tensor) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        let embedding = self.weight("model.embed_tokens")?;
        let mut x = embedding
            .index_select(&ids.flatten_all()?, 0)?
            .reshape((b, t, HIDDEN))?;
        for i in 0..N_LAYERS {
            let name = |part: &str| format!("model.layers.{i}.{part}");
            let normed = self.normed(&x, &name("input_layernorm"))?;
            x = (x + self.attention(&normed, &name)?)?;
            let normed = self.normed(&x, &name("post_attention_layernorm"))?;
            let gate = silu(&self.times(&normed, &name("mlp.gate_proj"))?)?;
            let inner = (gate * self.times(&normed, &name("mlp.up_proj"))?)?;
            x = (x + self.times(&inner, &name("mlp.down_proj"))?)?;
        }
        let x = self.normed(&x, "model.norm")?.reshape((b * t, HIDDEN))?;
        Ok(x.matmul(&embedding.t()?)?.reshape((b, t, self.vocab_size))?)
    }

    fn attention(&self, x: &Tensor, name: &impl Fn(&str) -> String) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let heads = |part: &str, n: usize| -> Result<Tensor> {
            let projected = self.times(x, &name(part))?;
            Ok(projected.reshape((b, t, n, HEAD_DIM))?.transpose(1, 2)?.contiguous()?)
        };
        let q = self.rotated(&heads("self_attn.q_proj", N_HEADS)?)?;
        let k = self.rotated(&heads("self_attn.k_proj", N_KV_HEADS)?)?;
        let v = heads("self_attn.v_proj", N_KV_HEADS)?;
        let group = N_HEADS / N_KV_HEADS;
        let q = q.reshape((b, N_KV_HEADS, group * t, HEAD_DIM))?;
        let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * (HEAD_DIM as f64).powf(-0.5))?;
        let mask = self.mask.narrow(0, 0, t)?.narrow(1, 0, t)?;
        let scores = scores.reshape((b, N_HEADS, t, t))?.broadcast_add(&mask)?;
        let weights = softmax(&scores, D::Minus1)?.reshape((b, N_KV_HEADS, group * t, t))?;
        let mixed = weights.matmul(&v)?.reshape((b, N_HEADS, t, HEAD_DIM))?;
        let mixed = mixed.transpose(1, 2)?.contiguous()?.reshape((b, t, HIDDEN))?;
        self.times(&mixed, &name("self_attn.o_proj"))
    }

    /// The rotary embedding with halves swapped (Su et al., 2021), of [B, heads, T, D].
    fn rotated(&self, x: &Tensor) -> Result<Tensor> {
        let t = x.dim(2)?;
        let (first, second) = (x.narrow(3, 0, HEAD_DIM / 2)?, x.narrow(3, HEAD_DIM / 2, HEAD_DIM / 2)?);
        let (cos, sin) = (self.cos.narrow(2, 0, t)?, self.sin.narrow(2, 0, t)?);
        let left = (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?;
        let right = (second.broadcast_mul(&cos)? + first.broadcast_mul(&sin)?)?;
        Ok(Tensor::cat(&[left, right], 3)?)
    }

    /// RMSNorm (Zhang and Sennrich, 2019).
    fn normed(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let mean = (x.sqr()?.mean_keepdim(D::Minus1)? + RMS_NORM_EPS)?;
        Ok(x.broadcast_div(&mean.sqrt()?)?.broadcast_mul(self.weight(name)?)?)
    }

    /// [B, T, in] times a weight [out, in].
    fn times(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let (b, t, inner) = x.dims3()?;
        let weight = self.weight(name)?;
        let flat = x.reshape((b * t, inner))?.matmul(&weight.t()?)?;
        Ok(flat.reshape((b, t, weight.dim(0)?))?)
    }

    fn weight(&self, name: &str) -> Result<&Tensor> {
        let var = self.vars.get(&format!("{name}.weight"));
        Ok(var.with_context(|| format!("there is no weight `{name}`"))?.as_tensor())
    }

    /// config.json, in the form of transformers v5.
    pub fn config_json(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": N_LAYERS,
            "num_attention_heads": N_HEADS, "num_key_value_heads": N_KV_HEADS, "head_dim": HEAD_DIM,
            "vocab_size": self.vocab_size, "max_position_embeddings": MAX_LENGTH, "rms_norm_eps": RMS_NORM_EPS,
            "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
            "tie_word_embeddings": true, "attention_bias": false, "mlp_bias": false,
            "bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "dtype": "float32"
        })
    }

    /// Checks that the loss reached every weight: an optimizer passes over those that it did not reach.
    ///
    /// # Errors
    /// Names the first weight without a gradient.
    pub fn check_gradients(&self, gradients: &GradStore) -> Result<()> {
        let without = self.vars.iter().find(|(_, var)| gradients.get(var).is_none());
        match without {
            Some((name, _)) => {
                anyhow::bail!("weight `{name}` has no gradient: an operation without a backward hides it")
            }
            None => Ok(()),
        }
    }
}

fn shapes(vocab_size: usize) -> BTreeMap<String, Vec<usize>> {
    let kv = N_KV_HEADS * HEAD_DIM;
    let mut shapes = BTreeMap::from([
        ("model.embed_tokens.weight".to_owned(), vec![vocab_size, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ]);
    for i in 0..N_LAYERS {
        for (part, shape) in [
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![kv, HIDDEN]),
            ("self_attn.v_proj", vec![kv, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("mlp.gate_proj", vec![INTERMEDIATE, HIDDEN]),
            ("mlp.up_proj", vec![INTERMEDIATE, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, INTERMEDIATE]),
        ] {
            shapes.insert(format!("model.layers.{i}.{part}.weight"), shape);
        }
    }
    shapes
}

/// A draw from the standard normal distribution (Box and Muller, 1958).
fn normal(rng: &mut StdRng) -> f32 {
    let (u, v): (f32, f32) = (1.0 - rng.random::<f32>(), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}

fn rotary() -> Result<(Tensor, Tensor)> {
    let half = HEAD_DIM / 2;
    let frequency = |i: usize| (ROPE_THETA as f32).powf(-2.0 * i as f32 / HEAD_DIM as f32);
    let angles = (0..MAX_LENGTH).flat_map(|position| (0..half).map(move |i| position as f32 * frequency(i)));
    let angles = Tensor::from_iter(angles, &Device::Cpu)?.reshape((1, 1, MAX_LENGTH, half))?;
    Ok((angles.cos()?, angles.sin()?))
}
