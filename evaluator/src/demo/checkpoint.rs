//! A step as a folder in the Hub's layout.

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::Var;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

use super::model::{MAX_LENGTH, Trainable};
use super::vocabulary::{BOS_ID, EOS_ID, Vocabulary};

/// Where a training job stands.
#[derive(Debug, Clone, Copy)]
pub struct State {
    /// Optimizer steps taken.
    pub step: u64,
    /// Tokens predicted until then.
    pub tokens: u64,
    /// Training loss in nats a token; none before the first step.
    pub loss: Option<f64>,
}

/// Writes a checkpoint into a folder that is not there yet.
///
/// # Errors
/// When a file can't be written.
pub fn save(dir: &Path, model: &Trainable, vocabulary: &Vocabulary, state: State) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("folder `{}`", dir.display()))?;
    let State { step, tokens, loss } = state;
    let files = [
        ("config.json", model.config_json()),
        ("tokenizer.json", vocabulary.tokenizer_json()),
        ("tokenizer_config.json", vocabulary.tokenizer_config_json(MAX_LENGTH)),
        (
            "generation_config.json",
            json!({"bos_token_id": BOS_ID, "eos_token_id": EOS_ID}),
        ),
        (
            "trainer_state.json",
            json!({"global_step": step, "tokens_seen": tokens, "train_loss": loss}),
        ),
    ];
    for (name, json) in files {
        write_json(&dir.join(name), &json)?;
    }
    save_weights(&dir.join("model.safetensors"), model)
}

fn write_json(path: &Path, json: &Value) -> Result<()> {
    std::fs::write(path, format!("{json:#}\n")).with_context(|| format!("file `{}`", path.display()))
}

fn save_weights(path: &Path, model: &Trainable) -> Result<()> {
    let bytes = |var: &Var| -> Result<Vec<u8>> {
        let values = var.flatten_all()?.to_vec1::<f32>()?;
        Ok(values.into_iter().flat_map(f32::to_le_bytes).collect())
    };
    let tensors = model
        .vars()
        .iter()
        .map(|(name, var)| Ok((name, var.dims().to_vec(), bytes(var)?)));
    let tensors: Vec<_> = tensors.collect::<Result<_>>()?;
    let view = |(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape, bytes)?));
    let views: Vec<_> = tensors
        .iter()
        .map(|(name, shape, bytes): &(&String, Vec<usize>, Vec<u8>)| view((*name, shape.clone(), bytes.as_slice())))
        .collect::<Result<_>>()?;
    let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
    safetensors::serialize_to_file(views, metadata, path).with_context(|| format!("file `{}`", path.display()))
}
