//! LLaMA's forward pass on candle: a batch's tokens to hidden states, and hidden states to logits where they are wanted.
//!
//! Ours and not candle-transformers': that gives the last position only and takes no ragged batch. Here the rows of a batch
//! are tokens of any inputs, without padding ([`Batch`]); only attention knows which belong together.
//!
//! On the CPU weights are rounded to the dtype and everything is computed in float32. Rounding between the operations as well
//! takes time and brings the numbers no nearer to another implementation's, whose roundings fall elsewhere. On a card everything is
//! in the dtype, with sums in float32.
//!
//! Shapes: N rows, H hidden, K key-value heads, D head width, V vocabulary.

use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor};
use candle_nn::ops::rms_norm;

use super::attention::{self, Heads};
use super::batch::{Batch, Cache};
use super::numbers::{self, Gated, Rotated};
use super::operations::{Attend, Keep};
use super::pool::Pool;
use super::table::{OnDevice, Table};
use crate::config::Config;
use crate::weights::Weights;

/// Asked between the layers whether to go on; its error ends the work.
pub type Check<'a> = &'a mut dyn FnMut() -> Result<()>;

/// A LLaMA with its weights.
#[derive(Debug)]
pub struct Llama {
    config: Config,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    /// [H, V]
    head: Tensor,
    /// [max_length, D / 2], in float32.
    cos: Tensor,
    sin: Tensor,
    device: Device,
    /// What it computes in.
    dtype: DType,
    /// Whether attention goes by tables, as on a card.
    by_tables: bool,
}

#[derive(Debug)]
struct Layer {
    attention_norm: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    mlp_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

#[derive(Debug)]
struct Linear {
    /// [in, out], so that a product needs no transposition; on a card a view of what was read, which its products take as it is.
    weight: Tensor,
    /// [out]
    bias: Option<Tensor>,
}

impl Llama {
    /// Takes the weights.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or is left over, or the device has no memory for it.
    pub fn load(config: &Config, mut weights: Weights, dtype: DType, device: &Device) -> Result<Self> {
        let (h, d) = (config.hidden_size, config.head_dim);
        // Already rounded to the dtype.
        let computed = if device.is_cpu() { DType::F32 } else { dtype };
        let mut take =
            |name: &str, shape: &[usize]| -> Result<Tensor> { Ok(weights.take(name, shape)?.to_dtype(computed)?) };
        let turned = |weight: &Tensor| match device.is_cpu() {
            true => weight.t()?.contiguous(),
            false => weight.t(),
        };
        let embedding = take("model.embed_tokens.weight", &[config.vocab_size, h])?;
        let head = match config.tied {
            true => turned(&embedding)?,
            false => turned(&take("lm_head.weight", &[config.vocab_size, h])?)?,
        };
        let mut layers = Vec::with_capacity(config.n_layers);
        for i in 0..config.n_layers {
            let mut take = |name: &str, shape: &[usize]| take(&format!("model.layers.{i}.{name}"), shape);
            let (q_dim, kv_dim, m) = (config.n_heads * d, config.n_kv_heads * d, config.intermediate_size);
            let attention_norm = take("input_layernorm.weight", &[h])?;
            let mlp_norm = take("post_attention_layernorm.weight", &[h])?;
            let mut linear = |name: &str, out: usize, inner: usize, has_bias: bool| -> Result<Linear> {
                let weight = take(&format!("{name}.weight"), &[out, inner])?;
                let bias = has_bias.then(|| take(&format!("{name}.bias"), &[out]));
                Ok(Linear {
                    weight: turned(&weight)?,
                    bias: bias.transpose()?,
                })
            };
            let (attention_bias, mlp_bias) = (config.attention_bias, config.mlp_bias);
            layers.push(Layer {
                attention_norm,
                mlp_norm,
                q: linear("self_attn.q_proj", q_dim, h, attention_bias)?,
                k: linear("self_attn.k_proj", kv_dim, h, attention_bias)?,
                v: linear("self_attn.v_proj", kv_dim, h, attention_bias)?,
                o: linear("self_attn.o_proj", h, q_dim, attention_bias)?,
                gate: linear("mlp.gate_proj", m, h, mlp_bias)?,
                up: linear("mlp.up_proj", m, h, mlp_bias)?,
                down: linear("mlp.down_proj", h, m, mlp_bias)?,
            });
        }
        let norm = take("model.norm.weight", &[h])?;
        weights.finish(config.tied)?;
        let (cos, sin) = rotary(config, device)?;
        Ok(Self {
            config: config.clone(),
            embedding,
            layers,
            norm,
            head,
            cos,
            sin,
            device: device.clone(),
            dtype: computed,
            by_tables: !device.is_cpu(),
        })
    }

    /// The same, that computes on the CPU as it would on a card: by tables, slowly. For tests, and to hold a card against.
    #[must_use]
    pub fn by_tables(self) -> Self {
        Self {
            by_tables: true,
            ..self
        }
    }

    /// A cache with room for the keys and values of so many tokens.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn cache(&self, n_tokens: usize) -> Result<Cache> {
        let pool = || Pool::new(&self.config, n_tokens, self.dtype, &self.device);
        Ok(Cache {
            pool: self.by_tables.then(pool).transpose()?,
            ..Cache::default()
        })
    }

    /// Hidden states [N, H] of a batch behind the last norm. What the batch looks back at is read from `cache`, and what it
    /// keeps is put there; `check` is asked several times a layer.
    ///
    /// # Errors
    /// When a position is beyond the model's length, the device fails, or `check` says so.
    pub fn forward(&self, batch: &Batch, cache: &mut Cache, check: Check<'_>) -> Result<Tensor> {
        let max_length = self.config.max_length;
        if let Some(at) = batch.positions.iter().find(|&&at| at as usize >= max_length) {
            bail!("position {at} is beyond the model's {max_length} tokens");
        }
        let ids = Tensor::new(batch.ids.as_slice(), &self.device)?;
        let positions = Tensor::new(batch.positions.as_slice(), &self.device)?;
        let angles = (
            self.cos.index_select(&positions, 0)?,
            self.sin.index_select(&positions, 0)?,
        );
        let table = match self.by_tables {
            true => Some(Table::of(batch, cache)?.to_device(&self.device)?),
            false => None,
        };
        let mut x = self.embedding.index_select(&ids, 0)?;
        for (i, layer) in self.layers.iter().enumerate() {
            check()?;
            let normed = self.normed(&x, &layer.attention_norm)?;
            let seen = match &table {
                Some(table) => self.attention_by_tables(i, &normed, &angles, table, cache)?,
                None => self.attention(i, &normed, &angles, batch, cache)?,
            };
            x = (x + linear(&seen, &layer.o)?)?;
            check()?;
            let normed = self.normed(&x, &layer.mlp_norm)?;
            let inner = self.gated(&normed, layer)?;
            x = (x + linear(&inner, &layer.down)?)?;
        }
        self.normed(&x, &self.norm)
    }

    /// Logits [N, V] of hidden states [N, H], in what the model computes in.
    ///
    /// # Errors
    /// When the device fails.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(hidden.matmul(&self.head)?)
    }

    /// RMSNorm, summed in float32 whatever the dtype (Zhang and Sennrich, 2019).
    fn normed(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        Ok(rms_norm(x, weight, self.config.rms_norm_eps as f32)?)
    }

    /// silu(x · gate) · (x · up).
    fn gated(&self, x: &Tensor, layer: &Layer) -> Result<Tensor> {
        let (gate, up) = (linear(x, &layer.gate)?, linear(x, &layer.up)?);
        gate.inplace_op2(&up, &Gated)?;
        Ok(gate)
    }

    fn heads(&self) -> Heads {
        Heads {
            n: self.config.n_heads,
            n_kv: self.config.n_kv_heads,
            dim: self.config.head_dim,
        }
    }

    /// Queries, keys and values of the rows of layer `i`.
    fn looked(&self, i: usize, x: &Tensor, angles: &(Tensor, Tensor)) -> Result<[Tensor; 3]> {
        let layer = &self.layers[i];
        let queries = self.rotated(linear(x, &layer.q)?, angles)?;
        let keys = self.rotated(linear(x, &layer.k)?, angles)?;
        Ok([queries, keys, linear(x, &layer.v)?])
    }

    /// What the rows of layer `i` see of their inputs: [N, heads · D].
    fn attention(
        &self,
        i: usize,
        x: &Tensor,
        angles: &(Tensor, Tensor),
        batch: &Batch,
        cache: &mut Cache,
    ) -> Result<Tensor> {
        let heads = self.heads();
        let [queries, keys, values] = self.looked(i, x, angles)?;
        let seen = numbers::read_three([&queries, &keys, &values], |[queries, keys, values]| {
            let seen = attention::attend(heads, batch, (queries, keys, values), cache, i)?;
            attention::keep(batch, cache, i, heads.n_kv * heads.dim, keys, values);
            anyhow::Ok(seen)
        })??;
        Ok(Tensor::from_vec(seen, queries.shape().clone(), &self.device)?)
    }

    /// The same by tables.
    fn attention_by_tables(
        &self,
        i: usize,
        x: &Tensor,
        angles: &(Tensor, Tensor),
        table: &OnDevice,
        cache: &Cache,
    ) -> Result<Tensor> {
        let [queries, keys, values] = self.looked(i, x, angles)?;
        let pool = cache.pool()?.layer(i);
        let attend = Attend {
            heads: self.heads(),
            table,
            pool,
        };
        let seen = queries.apply_op3_no_bwd(&keys, &values, &attend)?;
        if let Some((from, to)) = &table.kept {
            pool.0.inplace_op2(&keys, &Keep { from, to })?;
            pool.1.inplace_op2(&values, &Keep { from, to })?;
        }
        Ok(seen)
    }

    /// Rotary embedding (Su et al., 2021) of [N, heads · D] by cos and sin [N, D / 2], in place.
    fn rotated(&self, x: Tensor, (cos, sin): &(Tensor, Tensor)) -> Result<Tensor> {
        let head_dim = self.config.head_dim;
        x.inplace_op3(cos, sin, &Rotated { head_dim })?;
        Ok(x)
    }
}

/// x · weight + bias.
fn linear(x: &Tensor, linear: &Linear) -> Result<Tensor> {
    let product = x.matmul(&linear.weight)?;
    Ok(match &linear.bias {
        Some(bias) => product.broadcast_add(bias)?,
        None => product,
    })
}

/// cos and sin of position times frequency, by the CPU for every device: a card may take a product's numbers for shorter ones.
fn rotary(config: &Config, device: &Device) -> Result<(Tensor, Tensor)> {
    let frequencies = config.rope.frequencies(config.head_dim);
    let frequencies = Tensor::from_vec(frequencies, (1, config.head_dim / 2), &Device::Cpu)?;
    let positions: Vec<f32> = (0..config.max_length).map(|position| position as f32).collect();
    let angles = Tensor::from_vec(positions, (config.max_length, 1), &Device::Cpu)?.matmul(&frequencies)?;
    Ok((angles.cos()?.to_device(device)?, angles.sin()?.to_device(device)?))
}
