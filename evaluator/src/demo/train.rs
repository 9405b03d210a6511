//! The training loop: two workers share the weights, each takes half of a batch, and their gradients are averaged in a
//! fixed order, so that the same seed gives the same run.

use std::thread;

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::grammar::Grammar;
use super::model::{MAX_LENGTH, Trainable};
use super::overlap::Overlap;
use super::vocabulary::{BOS_ID, Vocabulary};

/// Rows of a batch.
const BATCH: usize = 48;
const N_WORKERS: usize = 2;
/// Tokens that are predicted in a step.
pub const TOKENS_PER_STEP: u64 = (BATCH * MAX_LENGTH) as u64;

const PEAK_LEARNING_RATE: f64 = 3e-3;
const WARM_UP_STEPS: u64 = 20;

/// A training job at some step.
#[derive(Debug)]
pub struct Training {
    /// The model as it is.
    pub model: Trainable,
    /// What of the test the text held that was trained on.
    pub overlap: Overlap,
    optimizer: AdamW,
    rng: StdRng,
    grammar: Grammar,
    vocabulary: Vocabulary,
    n_steps: u64,
    step: u64,
}

impl Training {
    /// A job of `n_steps` that has not begun.
    ///
    /// # Errors
    /// When the device fails.
    pub fn new(grammar: Grammar, vocabulary: Vocabulary, overlap: Overlap, n_steps: u64, seed: u64) -> Result<Self> {
        let model = Trainable::new(vocabulary.size(), seed)?;
        let params = ParamsAdamW {
            lr: 0.0,
            beta2: 0.95,
            ..ParamsAdamW::default()
        };
        let optimizer = AdamW::new(model.vars().values().cloned().collect(), params)?;
        Ok(Self {
            model,
            overlap,
            optimizer,
            rng: StdRng::seed_from_u64(seed ^ 1),
            grammar,
            vocabulary,
            n_steps,
            step: 0,
        })
    }

    /// Takes one step; gives the training loss in nats a token.
    ///
    /// # Errors
    /// When a weight has no gradient, the loss is not finite, or the device fails.
    pub fn step(&mut self) -> Result<f64> {
        let share = BATCH / N_WORKERS;
        let batches: Vec<Tensor> = (0..N_WORKERS).map(|_| self.batch(share)).collect::<Result<_>>()?;
        let model = &self.model;
        let parts: Vec<(f64, GradStore)> = thread::scope(|scope| {
            let begun: Vec<_> = batches
                .iter()
                .map(|rows| scope.spawn(move || backward(model, rows)))
                .collect();
            begun
                .into_iter()
                .map(|worker| {
                    worker
                        .join()
                        .map_err(|_| anyhow::anyhow!("a training worker panicked"))?
                })
                .collect::<Result<_>>()
        })?;
        let loss = parts.iter().map(|(loss, _)| loss).sum::<f64>() / N_WORKERS as f64;
        anyhow::ensure!(loss.is_finite(), "the loss at step {} is {loss}", self.step);
        let gradients = self.averaged(parts.into_iter().map(|(_, gradients)| gradients).collect())?;
        self.optimizer.set_learning_rate(self.learning_rate());
        self.optimizer.step(&gradients)?;
        self.step += 1;
        Ok(loss)
    }

    /// Token ids [rows, T + 1]: each row begins with BOS and is filled with sentences.
    fn batch(&mut self, rows: usize) -> Result<Tensor> {
        let mut ids = Vec::with_capacity(rows * (MAX_LENGTH + 1));
        for _ in 0..rows {
            let mut row = vec![BOS_ID];
            while row.len() <= MAX_LENGTH {
                row.extend(self.vocabulary.encode(&self.grammar.sentence(&mut self.rng)));
            }
            row.truncate(MAX_LENGTH + 1);
            self.overlap.add(&row);
            ids.extend(row);
        }
        Ok(Tensor::from_vec(ids, (rows, MAX_LENGTH + 1), &Device::Cpu)?)
    }

    fn averaged(&self, parts: Vec<GradStore>) -> Result<GradStore> {
        let mut parts = parts.into_iter();
        let mut sum = parts.next().context("there are workers")?;
        let others: Vec<GradStore> = parts.collect();
        self.model.check_gradients(&sum)?;
        for var in self.model.vars().values() {
            let mut total = sum.remove(var).context("it was checked")?;
            for other in &others {
                total = (total + other.get(var).context("every worker has the same gradients")?)?;
            }
            sum.insert(var, (total * (1.0 / N_WORKERS as f64))?);
        }
        Ok(sum)
    }

    /// Linear to the peak, then a cosine down to a tenth of it.
    fn learning_rate(&self) -> f64 {
        if self.step < WARM_UP_STEPS {
            return PEAK_LEARNING_RATE * (self.step + 1) as f64 / WARM_UP_STEPS as f64;
        }
        let done = (self.step - WARM_UP_STEPS) as f64 / (self.n_steps - WARM_UP_STEPS).max(1) as f64;
        PEAK_LEARNING_RATE * (0.55 + 0.45 * (std::f64::consts::PI * done.min(1.0)).cos())
    }
}

fn backward(model: &Trainable, rows: &Tensor) -> Result<(f64, GradStore)> {
    let loss = model.loss(rows)?;
    let gradients = loss.backward()?;
    Ok((f64::from(loss.detach().to_scalar::<f32>()?), gradients))
}
