//! The demo's training: the loss reaches every weight and falls, and what is saved is the model that was trained.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{Device, Tensor};
use fineline_evaluator::candle::batch::{Batch, Cache};
use fineline_evaluator::candle::llama::Llama;
use fineline_evaluator::config::Config;
use fineline_evaluator::demo::checkpoint::{self, State};
use fineline_evaluator::demo::grammar::Grammar;
use fineline_evaluator::demo::items;
use fineline_evaluator::demo::overlap::Overlap;
use fineline_evaluator::demo::train::{TOKENS_PER_STEP, Training};
use fineline_evaluator::demo::vocabulary::{BOS_ID, Vocabulary};
use fineline_evaluator::tokenizer::Tokenizer;
use fineline_evaluator::weights::Weights;

const SEED: u64 = 7;
const N_STEPS: u64 = 20;

fn training(n_steps: u64) -> Training {
    let (grammar, vocabulary) = (Grammar::new(SEED), Vocabulary::of_grammar());
    let overlap = Overlap::new(&items(&grammar, SEED), &vocabulary);
    Training::new(grammar, vocabulary, overlap, n_steps, SEED).unwrap()
}

#[test]
fn the_loss_falls_no_item_is_trained_on_and_a_seed_repeats() {
    let mut training = training(N_STEPS);
    // `step` fails when a weight has no gradient.
    let losses: Vec<f64> = (0..N_STEPS).map(|_| training.step().unwrap()).collect();
    let uniform = (Vocabulary::of_grammar().size() as f64).ln();
    assert!(
        (losses[0] - uniform).abs() < 1.0,
        "{} at first, {uniform} is chance",
        losses[0]
    );
    assert!(losses[19] < losses[0] - 1.0, "{losses:?}");
    assert_eq!(training.overlap.n_seen(), 0);
    assert_eq!(training.overlap.n_tokens() / N_STEPS, TOKENS_PER_STEP / 48 * 49);
    let mut again = self::training(N_STEPS);
    let first: Vec<f64> = (0..3).map(|_| again.step().unwrap()).collect();
    assert_eq!(first, losses[..3]);
}

#[test]
fn every_weight_moves() {
    let mut training = training(2);
    let weights = |training: &Training| -> Vec<(String, Vec<f32>)> {
        let vars = training.model.vars().iter();
        vars.map(|(name, var)| (name.clone(), var.flatten_all().unwrap().to_vec1().unwrap()))
            .collect()
    };
    let before = weights(&training);
    training.step().unwrap();
    for ((name, before), (_, after)) in before.iter().zip(weights(&training)) {
        assert_ne!(*before, after, "{name}");
    }
}

#[test]
fn a_saved_step_is_read_back_by_the_evaluator_as_the_same_model() {
    // Given a model that was trained a little and saved
    let (mut training, vocabulary, dir) = (training(5), Vocabulary::of_grammar(), tempfile::tempdir().unwrap());
    let loss = (0..5).map(|_| training.step().unwrap()).last();
    let state = State {
        step: 5,
        tokens: 5 * TOKENS_PER_STEP,
        loss,
    };
    checkpoint::save(dir.path(), &training.model, &vocabulary, state).unwrap();
    // When the evaluator reads it
    let config = Config::parse(&std::fs::read(dir.path().join("config.json")).unwrap()).unwrap();
    let tokenizer = Tokenizer::load(dir.path(), &config).unwrap();
    let ids = tokenizer
        .encode("the dogs near the cat often run . 1 2 plus 3 4 equals 4 6 .")
        .unwrap();
    let weights = Weights::open(dir.path(), candle_core::DType::F32, &Device::Cpu).unwrap();
    let llama = Llama::load(&config, weights, candle_core::DType::F32, &Device::Cpu).unwrap();
    // Then tokens and logits are those of the training.
    let mut expected = vec![BOS_ID];
    expected.extend(vocabulary.encode("the dogs near the cat often run . 1 2 plus 3 4 equals 4 6 ."));
    assert_eq!(ids, expected);
    let rows = Tensor::from_vec(ids.clone(), (1, ids.len()), &Device::Cpu).unwrap();
    let trained: Vec<f32> = training
        .model
        .logits(&rows)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap();
    let batch = Batch::of(&ids);
    let hidden = llama.forward(&batch, &mut Cache::default(), &mut || Ok(())).unwrap();
    let read: Vec<f32> = llama.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let largest = trained
        .iter()
        .zip(&read)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(largest < 1e-4, "logits differ by up to {largest}");
    assert_eq!(
        config.n_parameters() as usize,
        training
            .model
            .vars()
            .values()
            .map(|var| var.elem_count())
            .sum::<usize>()
    );
}
