//! A model's config.json, read by ourselves: what we do not compute exactly is refused by name, since a field that is
//! passed over gives another model without a word.
//!
//! Takes transformers' v4 form (`rope_theta`, `rope_scaling`, `torch_dtype`) and its v5 form (`rope_parameters`,
//! `dtype`), and old files that lack `num_key_value_heads`, `rope_theta` and `head_dim`. What a file does not say is as
//! transformers' `LlamaConfig` has it.

mod fields;
pub mod rope;

use anyhow::{Context, Result, bail, ensure};
use fineline_format::suite::EvalDtype;
use serde::Deserialize;
use serde_json::{Map, Value};

use self::rope::Rope;
use crate::memory;

/// The one architecture that is computed.
pub const ARCHITECTURE: &str = "LlamaForCausalLM";

const MAX_WIDTH: usize = 1 << 20;
const MAX_LAYERS: usize = 10_000;
const MAX_HEAD_DIM: usize = 1 << 14;
const MAX_VOCAB: usize = 1 << 24;
const MAX_POSITIONS: usize = 1 << 24;

/// The most numbers of the rotary embedding's two tables together: 1 GiB of them as float32.
const MAX_ROTARY: usize = 1 << 28;

/// The shape of a LLaMA.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside of the feed-forward block.
    pub intermediate_size: usize,
    /// Layers.
    pub n_layers: usize,
    /// Heads of queries.
    pub n_heads: usize,
    /// Heads of keys and values.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// The longest input: lm-eval's rule, by which a LLaMA's config always says it and the tokenizer's `model_max_length` is
    /// never asked.
    pub max_length: usize,
    /// Of RMSNorm.
    pub rms_norm_eps: f64,
    /// The rotary embedding.
    pub rope: Rope,
    /// Whether the embedding is the output matrix too.
    pub tied: bool,
    /// Whether the products for queries, keys, values and of what was seen have a bias.
    pub attention_bias: bool,
    /// Whether the feed-forward block's products have a bias.
    pub mlp_bias: bool,
    /// The id of the token that begins a text.
    pub bos_token_id: Option<u32>,
    /// The ids of the tokens that end a text.
    pub eos_token_ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Raw {
    architectures: Option<Vec<String>>,
    model_type: Option<String>,
    hidden_act: Option<String>,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: Option<usize>,
    n_positions: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    quantization_config: Option<Value>,
    partial_rotary_factor: Option<f64>,
    bos_token_id: Option<Value>,
    #[serde(default = "default_eos")]
    eos_token_id: Option<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// An absent field is transformers' 2; null is none.
#[expect(clippy::unnecessary_wraps, reason = "the field's type")]
fn default_eos() -> Option<Value> {
    Some(Value::from(2))
}

impl Config {
    /// Reads config.json.
    ///
    /// # Errors
    /// A sentence that names the field and what is not supported.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let raw: Raw = serde_json::from_slice(json).context("config.json can't be read")?;
        check_sizes(&raw)?;
        fields::check(&raw.rest)?;
        let architecture = raw.architectures.as_ref().and_then(|list| list.first());
        if let Some(other) = architecture.filter(|name| *name != ARCHITECTURE) {
            let other: String = other.chars().take(80).collect();
            bail!("architecture `{other}` is not supported: only `{ARCHITECTURE}` is");
        }
        if let Some(other) = raw.model_type.as_deref().filter(|name| *name != "llama") {
            bail!("model_type `{other}` is not supported: only `llama` is");
        }
        if let Some(other) = raw.hidden_act.as_deref().filter(|name| *name != "silu") {
            bail!("hidden_act `{other}` is not supported: only `silu` is");
        }
        ensure!(
            raw.quantization_config.is_none(),
            "`quantization_config` is not supported: push the full weights"
        );
        ensure!(
            raw.partial_rotary_factor.unwrap_or(1.0) == 1.0,
            "`partial_rotary_factor` other than 1 is not supported"
        );
        let n_heads = raw.num_attention_heads;
        let n_kv_heads = raw.num_key_value_heads.unwrap_or(n_heads);
        ensure!(
            n_heads.is_multiple_of(n_kv_heads),
            "{n_heads} heads can't share {n_kv_heads} key-value heads"
        );
        ensure!(
            raw.head_dim.is_some() || raw.hidden_size.is_multiple_of(n_heads),
            "`head_dim` is missing"
        );
        let head_dim = raw.head_dim.unwrap_or(raw.hidden_size / n_heads);
        ensure!(
            head_dim.is_multiple_of(2),
            "`head_dim` is {head_dim}: a rotary embedding needs an even one"
        );
        let max_length = raw.n_positions.or(raw.max_position_embeddings).unwrap_or(2048);
        ensure!(
            max_length * head_dim <= MAX_ROTARY,
            "`max_position_embeddings` of {max_length} by `head_dim` of {head_dim} makes a table of more than \
             {MAX_ROTARY} numbers"
        );
        Ok(Self {
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            n_layers: raw.num_hidden_layers,
            n_heads,
            n_kv_heads,
            head_dim,
            vocab_size: raw.vocab_size,
            max_length,
            rms_norm_eps: raw.rms_norm_eps.unwrap_or(1e-6),
            rope: Rope::parse(raw.rope_theta, raw.rope_scaling, raw.rope_parameters, max_length)?,
            tied: raw.tie_word_embeddings.unwrap_or(false),
            attention_bias: raw.attention_bias.unwrap_or(false),
            mlp_bias: raw.mlp_bias.unwrap_or(false),
            bos_token_id: token_ids(raw.bos_token_id.as_ref()).first().copied(),
            eos_token_ids: token_ids(raw.eos_token_id.as_ref()),
        })
    }

    /// Bytes of a token's keys and values of all layers.
    pub(crate) fn kept_bytes(&self, dtype: EvalDtype) -> usize {
        2 * memory::number_bytes(dtype) * self.n_layers * self.n_kv_heads * self.head_dim
    }

    /// Parameters of the model.
    pub fn n_parameters(&self) -> u64 {
        let (h, d) = (self.hidden_size, self.head_dim);
        let attention = 2 * h * self.n_heads * d + 2 * h * self.n_kv_heads * d;
        let attention_biases = self.n_heads * d + 2 * self.n_kv_heads * d + h;
        let mlp_biases = 2 * self.intermediate_size + h;
        let biases = usize::from(self.attention_bias) * attention_biases + usize::from(self.mlp_bias) * mlp_biases;
        let layer = attention + 3 * h * self.intermediate_size + 2 * h + biases;
        let embeddings = if self.tied { 1 } else { 2 } * self.vocab_size * h;
        (self.n_layers * layer + embeddings + h) as u64
    }
}

/// Checks every number against a bound far beyond any model's: tables are made and products taken of them.
fn check_sizes(raw: &Raw) -> Result<()> {
    let sizes = [
        ("hidden_size", Some(raw.hidden_size), MAX_WIDTH),
        ("intermediate_size", Some(raw.intermediate_size), MAX_WIDTH),
        ("num_hidden_layers", Some(raw.num_hidden_layers), MAX_LAYERS),
        ("num_attention_heads", Some(raw.num_attention_heads), MAX_LAYERS),
        ("num_key_value_heads", raw.num_key_value_heads, MAX_LAYERS),
        ("head_dim", raw.head_dim, MAX_HEAD_DIM),
        ("vocab_size", Some(raw.vocab_size), MAX_VOCAB),
        ("max_position_embeddings", raw.max_position_embeddings, MAX_POSITIONS),
        ("n_positions", raw.n_positions, MAX_POSITIONS),
    ];
    for (field, size, most) in sizes {
        let size = size.unwrap_or(1);
        ensure!((1..=most).contains(&size), "`{field}` is {size}: it may be 1 to {most}");
    }
    let eps = raw.rms_norm_eps.unwrap_or(1e-6);
    ensure!((0.0..1.0).contains(&eps), "`rms_norm_eps` is {eps}: it may be 0 to 1");
    Ok(())
}

/// One id, or several.
fn token_ids(value: Option<&Value>) -> Vec<u32> {
    let all = match value {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let id = |id: &Value| u32::try_from(id.as_u64()?).ok();
    all.iter().filter_map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::rope::Scaling;
    use super::*;

    const SHAPE: &str =
        r#""hidden_size":64,"intermediate_size":172,"num_hidden_layers":5,"num_attention_heads":8,"vocab_size":512"#;

    fn parse(extra: &str) -> Result<Config> {
        Config::parse(format!("{{{SHAPE}{extra}}}").as_bytes())
    }

    #[test]
    fn both_forms_of_rope_mean_the_same() {
        let v4 = parse(r#","rope_theta":500000.0,"rope_scaling":null"#).unwrap();
        let v5 = parse(r#","rope_parameters":{"rope_theta":500000.0,"rope_type":"default"}"#).unwrap();
        assert_eq!(v4, v5);
        assert_eq!(v4.rope.theta, 500_000.0);
    }

    #[test]
    fn old_configs_have_their_defaults() {
        let config = parse("").unwrap();
        assert_eq!(
            (config.n_kv_heads, config.head_dim, config.rope.theta, config.max_length),
            (8, 8, 10_000.0, 2048)
        );
        assert_eq!(
            parse(r#","n_positions":64,"max_position_embeddings":128"#)
                .unwrap()
                .max_length,
            64
        );
        assert_eq!(config.eos_token_ids, [2]);
        assert_eq!(parse(r#","eos_token_id":[5,7]"#).unwrap().eos_token_ids, [5, 7]);
        assert!(parse(r#","eos_token_id":null"#).unwrap().eos_token_ids.is_empty());
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (extra, expected) in [
            (r#","rope_scaling":{"type":"dynamic","factor":2.0}"#, "`dynamic`"),
            (r#","rope_scaling":{"type":"linear"}"#, "needs `factor`"),
            (r#","rope_scaling":{"type":"linear","factor":0}"#, "must be above 0"),
            (
                r#","rope_scaling":{"type":"linear","rope_type":"default","factor":2.0}"#,
                "stands twice",
            ),
            (
                r#","rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":4.0,"high_freq_factor":4.0}"#,
                "`high_freq_factor` is 4",
            ),
            (
                r#","rope_scaling":{"rope_type":"linear","factor":8.0,"low_freq_factor":4.0}"#,
                "has no `low_freq_factor`",
            ),
            (r#","embedding_multiplier":12.0"#, "`embedding_multiplier`"),
            (r#","sliding_window":4096"#, "`sliding_window`"),
            (r#","auto_map":{"AutoModel":"modeling.X"}"#, "`auto_map`"),
            (r#","rope_interleaved":true"#, "`rope_interleaved` is true"),
            (r#","repetition_penalty":1.1"#, "`repetition_penalty` is 1.1"),
            (r#","head_dim":7"#, "`head_dim` is 7"),
            (r#","rope_parameters":{"rope_type":"yarn"}"#, "`yarn`"),
            (
                r#","rope_parameters":{"rope_type":"default","factor":8.0}"#,
                "has no `factor`",
            ),
            (
                r#","rope_theta":1.0,"rope_parameters":{"rope_theta":2.0}"#,
                "two values",
            ),
            (r#","architectures":["MistralForCausalLM"]"#, "MistralForCausalLM"),
            (r#","hidden_act":"gelu""#, "`gelu`"),
            (r#","num_key_value_heads":3"#, "can't share 3"),
        ] {
            let error = format!("{:#}", parse(extra).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn released_configs_are_read() {
        // OpenLLaMA 7B, TinyLlama 1.1B, SmolLM2 135M and Llama 3.2 1B by their fields.
        for (fields, scaling) in [
            (
                r#""architectures":["LlamaForCausalLM"],"bos_token_id":1,"eos_token_id":2,"hidden_act":"silu","hidden_size":4096,"initializer_range":0.02,"intermediate_size":11008,"max_position_embeddings":2048,"model_type":"llama","num_attention_heads":32,"num_hidden_layers":32,"pad_token_id":0,"rms_norm_eps":1e-06,"tie_word_embeddings":false,"torch_dtype":"float16","transformers_version":"4.30.0.dev0","use_cache":true,"vocab_size":32000"#,
                Scaling::None,
            ),
            (
                r#""architectures":["LlamaForCausalLM"],"attention_bias":false,"bos_token_id":1,"eos_token_id":2,"hidden_act":"silu","hidden_size":2048,"initializer_range":0.02,"intermediate_size":5632,"max_position_embeddings":2048,"model_type":"llama","num_attention_heads":32,"num_hidden_layers":22,"num_key_value_heads":4,"pretraining_tp":1,"rms_norm_eps":1e-05,"rope_scaling":null,"rope_theta":10000.0,"tie_word_embeddings":false,"torch_dtype":"float32","transformers_version":"4.35.0","use_cache":true,"vocab_size":32000"#,
                Scaling::None,
            ),
            (
                r#""architectures":["LlamaForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"bos_token_id":0,"eos_token_id":0,"hidden_act":"silu","hidden_size":576,"initializer_range":0.041666666666666664,"intermediate_size":1536,"is_llama_config":true,"max_position_embeddings":8192,"model_type":"llama","num_attention_heads":9,"num_hidden_layers":30,"num_key_value_heads":3,"pretraining_tp":1,"rms_norm_eps":1e-05,"rope_interleaved":false,"rope_scaling":null,"rope_theta":100000,"tie_word_embeddings":true,"torch_dtype":"bfloat16","transformers_version":"4.40.1","use_cache":true,"vocab_size":49152"#,
                Scaling::None,
            ),
            (
                r#""architectures":["LlamaForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"bos_token_id":128000,"eos_token_id":[128001,128008],"head_dim":64,"hidden_act":"silu","hidden_size":2048,"initializer_range":0.02,"intermediate_size":8192,"max_position_embeddings":131072,"mlp_bias":false,"model_type":"llama","num_attention_heads":32,"num_hidden_layers":16,"num_key_value_heads":8,"pretraining_tp":1,"rms_norm_eps":1e-05,"rope_scaling":{"factor":32.0,"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":8192,"rope_type":"llama3"},"rope_theta":500000.0,"tie_word_embeddings":true,"torch_dtype":"bfloat16","transformers_version":"4.45.0.dev0","use_cache":true,"vocab_size":128256"#,
                Scaling::Llama3 {
                    factor: 32.0,
                    low: 1.0,
                    high: 4.0,
                    original_length: 8192.0,
                },
            ),
        ] {
            let config = Config::parse(format!("{{{fields}}}").as_bytes()).unwrap();
            assert_eq!(config.rope.scaling, scaling);
        }
    }
}
