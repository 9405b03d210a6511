//! Our forward pass against candle-transformers' own LLaMA, where that gives an answer: the last position.

use std::path::Path;

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache as TheirCache, Llama as Theirs, LlamaConfig};
use fineline_evaluator::candle::batch::{Batch, Cache};
use fineline_evaluator::candle::llama::Llama;
use fineline_evaluator::config::Config;
use fineline_evaluator::weights::Weights;

#[test]
fn last_position_logits_are_candle_transformers() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/models/stories260K");
    if !dir.is_dir() {
        println!("skipped: evaluator/cross_check: there is no ../shared/data beside the clone");
        return;
    }
    let json = std::fs::read(dir.join("config.json")).unwrap();
    let theirs: LlamaConfig = serde_json::from_slice(&json).unwrap();
    let theirs_config = theirs.into_config(false);
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    let builder = VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu).unwrap();
    let theirs = Theirs::load(builder, &theirs_config).unwrap();

    let config = Config::parse(&json).unwrap();
    let weights = Weights::open(&dir, DType::F32, &Device::Cpu).unwrap();
    let ours = Llama::load(&config, weights, DType::F32, &Device::Cpu).unwrap();
    for length in [1usize, 7, 100, 500] {
        let ids: Vec<u32> = (0..length as u32).map(|i| 1 + i * 37 % 511).collect();
        let batch = Batch::of(&ids);
        let ids = Tensor::from_vec(ids, (1, length), &Device::Cpu).unwrap();
        let mut cache = TheirCache::new(false, DType::F32, &theirs_config, &Device::Cpu).unwrap();
        let expected: Vec<f32> = theirs
            .forward(&ids, 0, &mut cache)
            .unwrap()
            .i(0)
            .unwrap()
            .to_vec1()
            .unwrap();
        let hidden = ours.forward(&batch, &mut Cache::default(), &mut || Ok(())).unwrap();
        let hidden = hidden.i(length - 1..length).unwrap();
        let logits: Vec<f32> = ours.logits(&hidden).unwrap().i(0).unwrap().to_vec1().unwrap();
        let largest = expected
            .iter()
            .zip(&logits)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0f32, f32::max);
        assert!(largest < 1e-4, "{length} tokens: logits differ by {largest}");
    }
}
