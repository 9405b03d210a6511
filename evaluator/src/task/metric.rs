//! Metrics of samples, and their aggregation with standard errors (SE).
//!
//! Means: sample standard deviation / √n. Perplexity: bootstrap with 100,000 resamples, as lm-eval. Ratios over
//! documents r = Σx / Σy: √(Σ(xᵢ − r·yᵢ)² · n / (n − 1)) / Σy, and by the delta method for exp(r).

use fineline_format::task::{Metric, OutputType};
use rayon::prelude::*;

use super::{Sample, Target};
use crate::engine::Answer;

/// Seed of the bootstrap's generator, so that a score can be repeated.
pub(crate) const BOOTSTRAP_SEED: u64 = 1234;

const RESAMPLES: u64 = 100_000;

/// What a sample came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) acc: f64,
    pub(crate) acc_norm: f64,
    pub(crate) log_likelihood: f64,
    /// Of the scored text, for ratios.
    pub(crate) n_words: u64,
    pub(crate) n_bytes: u64,
}

impl Outcome {
    pub(crate) fn of(output: OutputType, sample: &Sample, answers: &[Answer]) -> Self {
        let mut outcome = Self {
            acc: 0.0,
            acc_norm: 0.0,
            log_likelihood: answers[0].log_likelihood,
            n_words: 0,
            n_bytes: 0,
        };
        match output {
            OutputType::MultipleChoice => {
                let right = |pick: usize| f64::from(u8::from(sample.target == Target::Choice(pick)));
                // Characters of the choice itself, without the delimiter.
                let norm = |(answer, choice): (&Answer, &String)| answer.log_likelihood / choice.chars().count() as f64;
                outcome.acc = right(first_largest(answers.iter().map(|answer| answer.log_likelihood)));
                outcome.acc_norm = right(first_largest(answers.iter().zip(&sample.choices).map(norm)));
            }
            OutputType::Loglikelihood => outcome.acc = f64::from(u8::from(answers[0].is_greedy)),
            OutputType::LoglikelihoodRolling => {
                let text = &sample.requests[0].0;
                outcome.n_words = split_by_white_space(text);
                outcome.n_bytes = text.len() as u64;
            }
        }
        outcome
    }

    /// The sample's own value of a metric, for its log.
    pub(crate) fn value(&self, metric: Metric) -> serde_json::Value {
        match metric {
            Metric::Acc => self.acc.into(),
            Metric::AccNorm => self.acc_norm.into(),
            Metric::Perplexity => self.log_likelihood.into(),
            Metric::WordPerplexity => vec![self.log_likelihood, self.n_words as f64].into(),
            Metric::BytePerplexity | Metric::BitsPerByte => vec![self.log_likelihood, self.n_bytes as f64].into(),
        }
    }
}

/// The index of the largest, the first of equals.
fn first_largest(values: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (i, value) in values.enumerate() {
        if value > best.1 {
            best = (i, value);
        }
    }
    best.0
}

/// `len(re.split(r"\s+", text))` of Python.
fn split_by_white_space(text: &str) -> u64 {
    let mut runs = 1;
    let mut inside = false;
    for c in text.chars() {
        let space = c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
        runs += u64::from(space && !inside);
        inside = space;
    }
    runs
}

/// A metric over all samples, with its SE and how that was had.
pub(crate) fn aggregate(metric: Metric, outcomes: &[Outcome]) -> (f64, Option<(f64, &'static str)>) {
    let values = |of: fn(&Outcome) -> f64| outcomes.iter().map(of).collect::<Vec<_>>();
    match metric {
        Metric::Acc => mean_with_stderr(&values(|outcome| outcome.acc)),
        Metric::AccNorm => mean_with_stderr(&values(|outcome| outcome.acc_norm)),
        Metric::Perplexity => {
            let log_likelihoods = values(|outcome| outcome.log_likelihood);
            let value = (-mean(&log_likelihoods)).exp();
            (
                value,
                Some((bootstrap_perplexity(&log_likelihoods), "bootstrap")).filter(|_| outcomes.len() > 1),
            )
        }
        Metric::WordPerplexity => {
            let (ratio, stderr) = ratio(outcomes, |outcome| outcome.n_words);
            (
                ratio.exp(),
                stderr.map(|stderr| (stderr * ratio.exp(), "ratio_over_documents")),
            )
        }
        Metric::BytePerplexity => {
            let (ratio, stderr) = ratio(outcomes, |outcome| outcome.n_bytes);
            (
                ratio.exp(),
                stderr.map(|stderr| (stderr * ratio.exp(), "ratio_over_documents")),
            )
        }
        Metric::BitsPerByte => {
            let (ratio, stderr) = ratio(outcomes, |outcome| outcome.n_bytes);
            let bits = ratio / std::f64::consts::LN_2;
            (
                bits,
                stderr.map(|stderr| (stderr / std::f64::consts::LN_2, "ratio_over_documents")),
            )
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn mean_with_stderr(values: &[f64]) -> (f64, Option<(f64, &'static str)>) {
    let (mean, n) = (mean(values), values.len() as f64);
    let stderr = (values.len() > 1).then(|| {
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
        ((variance / n).sqrt(), "sample_mean")
    });
    (mean, stderr)
}

/// Negative log-likelihood per unit over all documents (nats), and its SE.
fn ratio(outcomes: &[Outcome], units: fn(&Outcome) -> u64) -> (f64, Option<f64>) {
    let n = outcomes.len() as f64;
    let total: f64 = outcomes.iter().map(|outcome| units(outcome) as f64).sum();
    let ratio = -outcomes.iter().map(|outcome| outcome.log_likelihood).sum::<f64>() / total;
    let squares = outcomes
        .iter()
        .map(|outcome| (-outcome.log_likelihood - ratio * units(outcome) as f64).powi(2));
    let stderr = (outcomes.len() > 1).then(|| (squares.sum::<f64>() * n / (n - 1.0)).sqrt() / total);
    (ratio, stderr)
}

/// The standard deviation of the perplexity over resamples with replacement; each resample has a generator of its own,
/// so that the result does not depend on the threads.
fn bootstrap_perplexity(log_likelihoods: &[f64]) -> f64 {
    let n = log_likelihoods.len();
    let perplexity = |resample: u64| {
        let mut state = BOOTSTRAP_SEED ^ resample.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let sum: f64 = (0..n).map(|_| log_likelihoods[below(&mut state, n)]).sum();
        (-sum / n as f64).exp()
    };
    let values: Vec<f64> = (0..RESAMPLES).into_par_iter().map(perplexity).collect();
    let mean = mean(&values);
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)).sqrt()
}

/// A number below `n` from a SplitMix64 generator (Steele, Lea and Flood, 2014).
fn below(state: &mut u64, n: usize) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    ((u128::from(z) * n as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_split_as_python_splits_it() {
        // len(re.split(r"\s+", text)) in Python 3.11.
        for (text, n) in [
            ("", 1),
            ("a", 1),
            ("a b", 2),
            ("a  b\n\nc", 3),
            (" a ", 3),
            ("a\u{a0}b\u{1d}c", 3),
        ] {
            assert_eq!(split_by_white_space(text), n, "{text:?}");
        }
    }

    #[test]
    fn ties_go_to_the_first() {
        assert_eq!(first_largest([-2.0, -1.0, -1.0].into_iter()), 1);
    }

    #[test]
    fn the_stderr_of_a_mean_is_the_textbooks() {
        let (mean, stderr) = mean_with_stderr(&[1.0, 0.0, 0.0, 1.0]);
        assert_eq!(mean, 0.5);
        assert!((stderr.unwrap().0 - (1.0f64 / 12.0).sqrt()).abs() < 1e-12);
        assert_eq!(mean_with_stderr(&[1.0]).1, None);
    }

    #[test]
    fn equal_documents_have_a_ratio_without_error() {
        let outcome = Outcome {
            acc: 0.0,
            acc_norm: 0.0,
            log_likelihood: -10.0,
            n_words: 5,
            n_bytes: 20,
        };
        let (bits, stderr) = aggregate(Metric::BitsPerByte, &[outcome; 4]);
        assert!((bits - 0.5 / std::f64::consts::LN_2).abs() < 1e-12);
        assert!(stderr.unwrap().0.abs() < 1e-12);
    }

    #[test]
    fn the_bootstrap_finds_the_spread_of_a_mean() {
        // For small deviations the perplexity's spread is perplexity · σ / √n.
        let values: Vec<f64> = (0..400).map(|i| -1.0 + 0.01 * f64::from(i % 5 - 2)).collect();
        let sigma = (values.iter().map(|v| (v + 1.0).powi(2)).sum::<f64>() / 400.0).sqrt();
        let expected = 1f64.exp() * sigma / 20.0;
        assert!((bootstrap_perplexity(&values) / expected - 1.0).abs() < 0.02);
    }
}
