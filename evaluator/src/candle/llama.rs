//! LLaMA's forward pass on candle: token ids to hidden states, and hidden states to logits where they are wanted.
//!
//! Ours and not candle-transformers': that gives the last position only and takes no ragged batch. Rows are padded on
//! the right; under the causal mask a position never sees what stands behind it, so padding changes nothing before it.
//!
//! Shapes: B rows, T positions, H hidden, K key-value heads, G query heads of each, D head width, V vocabulary.

use anyhow::Result;
use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::{rms_norm, silu, softmax_last_dim};
use candle_nn::rotary_emb::rope;

use crate::config::Config;
use crate::weights::Weights;

/// A LLaMA with its weights.
#[derive(Debug)]
pub struct Llama {
    config: Config,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    /// [H, V]
    head: Tensor,
    /// [max_length, D / 2]
    cos: Tensor,
    sin: Tensor,
    dtype: DType,
    device: Device,
}

#[derive(Debug)]
struct Layer {
    attention_norm: Tensor,
    // Each weight as [in, out], so that a product needs no transposition.
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    mlp_norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

impl Llama {
    /// Takes the weights.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or is left over.
    pub fn load(config: &Config, mut weights: Weights, dtype: DType, device: &Device) -> Result<Self> {
        let (h, d) = (config.hidden_size, config.head_dim);
        let embedding = weights.take("model.embed_tokens.weight", &[config.vocab_size, h])?;
        let head = match config.tied {
            true => embedding.t()?.contiguous()?,
            false => weights
                .take("lm_head.weight", &[config.vocab_size, h])?
                .t()?
                .contiguous()?,
        };
        let mut layers = Vec::with_capacity(config.n_layers);
        for i in 0..config.n_layers {
            let mut take =
                |name: &str, shape: &[usize]| weights.take(&format!("model.layers.{i}.{name}.weight"), shape);
            let (q_dim, kv_dim, m) = (config.n_heads * d, config.n_kv_heads * d, config.intermediate_size);
            let attention_norm = take("input_layernorm", &[h])?;
            let mlp_norm = take("post_attention_layernorm", &[h])?;
            let mut matrix = |name: &str, out: usize, inner: usize| -> Result<Tensor> {
                Ok(take(name, &[out, inner])?.t()?.contiguous()?)
            };
            layers.push(Layer {
                attention_norm,
                mlp_norm,
                q: matrix("self_attn.q_proj", q_dim, h)?,
                k: matrix("self_attn.k_proj", kv_dim, h)?,
                v: matrix("self_attn.v_proj", kv_dim, h)?,
                o: matrix("self_attn.o_proj", h, q_dim)?,
                gate: matrix("mlp.gate_proj", m, h)?,
                up: matrix("mlp.up_proj", m, h)?,
                down: matrix("mlp.down_proj", h, m)?,
            });
        }
        let norm = weights.take("model.norm.weight", &[h])?;
        weights.finish(config.tied)?;
        let (cos, sin) = rotary(config, dtype, device)?;
        Ok(Self {
            config: config.clone(),
            embedding,
            layers,
            norm,
            head,
            cos,
            sin,
            dtype,
            device: device.clone(),
        })
    }

    /// Hidden states [B, T, H] of token ids [B, T] behind the last norm.
    ///
    /// # Errors
    /// When T is beyond the model's length, or the device fails.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        anyhow::ensure!(
            t <= self.config.max_length,
            "{t} tokens are more than the model's {}",
            self.config.max_length
        );
        let flat = self.embedding.index_select(&ids.flatten_all()?, 0)?;
        let mut x = flat.reshape((b, t, self.config.hidden_size))?;
        let mask = self.mask(t)?;
        for layer in &self.layers {
            let normed = self.normed(&x, &layer.attention_norm)?;
            x = (x + self.attention(layer, &normed, &mask)?)?;
            let normed = self.normed(&x, &layer.mlp_norm)?;
            let inner = (silu(&times(&normed, &layer.gate)?)? * times(&normed, &layer.up)?)?;
            x = (x + times(&inner, &layer.down)?)?;
        }
        self.normed(&x, &self.norm)
    }

    /// Logits [N, V] in float32 of hidden states [N, H].
    ///
    /// # Errors
    /// When the device fails.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(hidden.matmul(&self.head)?.to_dtype(DType::F32)?)
    }

    /// RMSNorm, computed in float32 whatever the dtype (Zhang and Sennrich, 2019).
    fn normed(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let eps = self.config.rms_norm_eps as f32;
        if self.dtype == DType::F32 {
            return Ok(rms_norm(&x.contiguous()?, weight, eps)?);
        }
        let wide = x.to_dtype(DType::F32)?.contiguous()?;
        Ok(rms_norm(&wide, &weight.to_dtype(DType::F32)?, eps)?.to_dtype(self.dtype)?)
    }

    fn attention(&self, layer: &Layer, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let (k_heads, d) = (self.config.n_kv_heads, self.config.head_dim);
        let group = self.config.n_heads / k_heads;
        let heads =
            |y: Tensor, n: usize| -> Result<Tensor> { Ok(y.reshape((b, t, n, d))?.transpose(1, 2)?.contiguous()?) };
        let (cos, sin) = (self.cos.narrow(0, 0, t)?, self.sin.narrow(0, 0, t)?);
        let q = rope(&heads(times(x, &layer.q)?, self.config.n_heads)?, &cos, &sin)?;
        let k = rope(&heads(times(x, &layer.k)?, k_heads)?, &cos, &sin)?;
        let v = heads(times(x, &layer.v)?, k_heads)?;
        // The G query heads of a key-value head are rows of one product, so keys and values are never repeated.
        let q = q.reshape((b, k_heads, group * t, d))?;
        let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)?.to_dtype(DType::F32)? * (1.0 / (d as f64).sqrt()))?;
        let scores = scores.reshape((b, k_heads * group, t, t))?.broadcast_add(mask)?;
        let weights = softmax_last_dim(&scores)?.to_dtype(self.dtype)?;
        let mixed = weights.reshape((b, k_heads, group * t, t))?.matmul(&v)?;
        let mixed = mixed
            .reshape((b, k_heads * group, t, d))?
            .transpose(1, 2)?
            .contiguous()?;
        times(&mixed.reshape((b, t, k_heads * group * d))?, &layer.o)
    }

    /// 0 where a position may look, minus infinity behind it: [T, T].
    fn mask(&self, t: usize) -> Result<Tensor> {
        let row = |i: usize| (0..t).map(move |j| if j <= i { 0.0 } else { f32::NEG_INFINITY });
        Ok(Tensor::from_vec(
            (0..t).flat_map(row).collect::<Vec<_>>(),
            (t, t),
            &self.device,
        )?)
    }
}

/// [.., in] times [in, out], as one flat product.
fn times(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (b, t, inner) = x.dims3()?;
    let out = weight.dim(D::Minus1)?;
    Ok(x.reshape((b * t, inner))?.matmul(weight)?.reshape((b, t, out))?)
}

/// cos and sin of position times frequency, frequency i being theta^(-2i / D) (Su et al., 2021), in float32.
fn rotary(config: &Config, dtype: DType, device: &Device) -> Result<(Tensor, Tensor)> {
    let half = config.head_dim / 2;
    let frequency = |i: usize| 1.0 / (config.rope_theta as f32).powf(2.0 * i as f32 / config.head_dim as f32);
    let frequencies: Vec<f32> = (0..half).map(frequency).collect();
    let positions: Vec<f32> = (0..config.max_length).map(|position| position as f32).collect();
    let frequencies = Tensor::from_vec(frequencies, (1, half), device)?;
    let angles = Tensor::from_vec(positions, (config.max_length, 1), device)?.matmul(&frequencies)?;
    Ok((angles.cos()?.to_dtype(dtype)?, angles.sin()?.to_dtype(dtype)?))
}
