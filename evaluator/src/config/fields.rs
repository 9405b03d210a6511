//! The fields of a LLaMA's config.json that the reader does not read: those that are known to change nothing that is
//! computed here, with the reason, and those that change nothing by some of their values. Any other is refused by name.

use anyhow::{Result, bail};
use serde_json::{Map, Value};

/// Fields that change nothing, whatever they say, by the reason.
const WITHOUT_EFFECT: &[(&str, &[&str])] = &[
    (
        "who wrote the file",
        &[
            "_name_or_path",
            "transformers_version",
            "unsloth_version",
            "unsloth_fixed",
        ],
    ),
    ("the dtype is the binding's", &["torch_dtype", "dtype"]),
    (
        "how it is computed, not what",
        &[
            "use_cache",
            "_attn_implementation",
            "attn_implementation",
            "_attn_implementation_autoset",
            "use_flash_attention",
            "_flash_attn_2_enabled",
            "chunk_size_feed_forward",
            "torchscript",
            "use_bfloat16",
            "gradient_checkpointing",
            // The same products in slices; dropped by transformers.
            "pretraining_tp",
        ],
    ),
    (
        "training alone",
        &[
            "initializer_range",
            "attention_dropout",
            "hidden_dropout",
            "resid_pdrop",
            "embd_pdrop",
            "attention_probs_dropout_prob",
            "hidden_dropout_prob",
            "embedding_dropout",
            "tf_legacy_loss",
            "finetuning_task",
            "z_loss",
        ],
    ),
    (
        "what transformers returns",
        &[
            "output_attentions",
            "output_hidden_states",
            "output_scores",
            "return_dict",
            "return_dict_in_generate",
        ],
    ),
    (
        "classification heads, which a causal model has not",
        &[
            "id2label",
            "label2id",
            "problem_type",
            "num_labels",
            "task_specific_params",
        ],
    ),
    (
        "an encoder's, which a causal model has not",
        &[
            "is_decoder",
            "decoder_start_token_id",
            "tie_encoder_decoder",
            "cross_attention_hidden_size",
            "prefix",
        ],
    ),
    (
        "padding, of which there is none",
        &["pad_token_id", "sep_token_id", "unk_token_id", "tokenizer_class"],
    ),
    (
        "not read by transformers; lm-eval takes `max_position_embeddings`",
        &[
            "max_sequence_length",
            "n_ctx",
            "max_seq_len",
            "model_max_length",
            "seq_length",
        ],
    ),
    (
        "sampling and lengths, which a task says",
        &[
            "do_sample",
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
            "max_length",
            "max_new_tokens",
            "num_return_sequences",
            "early_stopping",
            "length_penalty",
            "remove_invalid_values",
            "renormalize_logits",
        ],
    ),
    ("for a program in a browser", &["transformers.js_config"]),
    ("a mark without a reader", &["is_llama_config"]),
];

/// Fields that change nothing with the value that stands here.
const NEUTRAL: &[(&str, &str)] = &[
    ("add_cross_attention", "false"),
    ("is_encoder_decoder", "false"),
    ("pruned_heads", "{}"),
    ("rope_interleaved", "false"),
    ("use_sliding_window", "false"),
    ("use_qk_norm", "false"),
    ("qk_norm", "false"),
    ("bad_words_ids", "[]"),
    ("suppress_tokens", "[]"),
    ("begin_suppress_tokens", "[]"),
    ("repetition_penalty", "1.0"),
    ("no_repeat_ngram_size", "0"),
    ("encoder_no_repeat_ngram_size", "0"),
    ("diversity_penalty", "0.0"),
    ("min_length", "0"),
    ("num_beams", "1"),
    ("num_beam_groups", "1"),
];

/// Checks the fields that the reader does not read; null is as good as absent.
pub(super) fn check(rest: &Map<String, Value>) -> Result<()> {
    for (field, value) in rest.iter().filter(|(_, value)| !value.is_null()) {
        let harmless = WITHOUT_EFFECT
            .iter()
            .any(|(_, fields)| fields.contains(&field.as_str()));
        if harmless {
            continue;
        }
        let short: String = field.chars().take(80).collect();
        match NEUTRAL.iter().find(|(name, _)| name == field) {
            Some((_, neutral)) if is(value, neutral) => {}
            Some((_, neutral)) => {
                let value: String = value.to_string().chars().take(80).collect();
                bail!("`{short}` is {value} in config.json: only {neutral} is supported");
            }
            None => bail!(
                "`{short}` in config.json is not known here: if it changes nothing that the model computes, take it out; \
                 else the model is not supported"
            ),
        }
    }
    Ok(())
}

/// Whether a value is the one that stands in the table, 1.0 being 1.
fn is(value: &Value, neutral: &str) -> bool {
    match value.as_f64() {
        Some(number) => neutral.parse() == Ok(number),
        None => serde_json::from_str::<Value>(neutral).is_ok_and(|neutral| neutral == *value),
    }
}
