//! The aggregation of samples' metrics, with standard errors (SE).
//!
//! Means: sample standard deviation / √n. Perplexity, f1 and Matthews' correlation: bootstrap with lm-eval's 100,000
//! resamples, drawn as it draws them, so that the same samples have the same SE. Ratios over documents r = Σx / Σy:
//! √(Σ(xᵢ − r·yᵢ)² · n / (n − 1)) / Σy, and by the delta method for exp(r).

use std::collections::BTreeMap;

use fineline_format::task::Metric;
use rayon::prelude::*;

use super::outcome::Item;
use super::python_random::PythonRandom;

/// Resamples that one generator draws, and how many generators there are: they are seeded 0, 1, 2 and so on.
const RESAMPLES_OF_SEED: usize = 1000;
const SEEDS: u64 = 100;

/// The same for a score's provenance.
pub(super) const SEEDS_TOLD: &str = "0 to 99, 1000 resamples each";

/// A metric over all samples, with its SE and how that was had.
pub(super) fn aggregate(metric: Metric, items: &[Item]) -> (f64, Option<(f64, &'static str)>) {
    match metric {
        Metric::Perplexity => {
            let log_likelihoods = numbers(items);
            let perplexity = |values: &mut dyn Iterator<Item = f64>| (-values.sum::<f64>() / items.len() as f64).exp();
            let value = perplexity(&mut log_likelihoods.iter().copied());
            (value, bootstrap(&log_likelihoods, perplexity))
        }
        Metric::F1 => of_pairs(items, f1),
        Metric::Mcc => of_pairs(items, matthews_correlation),
        Metric::WordPerplexity | Metric::BytePerplexity => {
            let (ratio, stderr) = ratio(items);
            let value = ratio.exp();
            (value, stderr.map(|stderr| (stderr * value, "ratio_over_documents")))
        }
        Metric::BitsPerByte => {
            let (ratio, stderr) = ratio(items);
            let bits = ratio / std::f64::consts::LN_2;
            let stderr = stderr.map(|stderr| (stderr / std::f64::consts::LN_2, "ratio_over_documents"));
            (bits, stderr)
        }
        _ => mean_with_stderr(&numbers(items)),
    }
}

fn numbers(items: &[Item]) -> Vec<f64> {
    let number = |item: &Item| match *item {
        Item::Number(value) | Item::Ratio(value, _) => value,
        Item::Flag(flag) => f64::from(u8::from(flag)),
        Item::Pair(target, decision) => f64::from(u8::from(target == decision)),
    };
    items.iter().map(number).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn mean_with_stderr(values: &[f64]) -> (f64, Option<(f64, &'static str)>) {
    let stderr = (values.len() > 1).then(|| (sample_deviation(values) / (values.len() as f64).sqrt(), "sample_mean"));
    (mean(values), stderr)
}

fn sample_deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len() as f64 - 1.0)).sqrt()
}

/// Negative log-likelihood per unit over all documents (nats), and its SE.
fn ratio(items: &[Item]) -> (f64, Option<f64>) {
    let pair = |item: &Item| match *item {
        Item::Ratio(log_likelihood, units) => (log_likelihood, units as f64),
        _ => (numbers(std::slice::from_ref(item))[0], 1.0),
    };
    let pairs: Vec<(f64, f64)> = items.iter().map(pair).collect();
    let n = pairs.len() as f64;
    let total: f64 = pairs.iter().map(|(_, units)| units).sum();
    let ratio = -pairs.iter().map(|(log_likelihood, _)| log_likelihood).sum::<f64>() / total;
    let squares = pairs
        .iter()
        .map(|(log_likelihood, units)| (-log_likelihood - ratio * units).powi(2));
    let stderr = (pairs.len() > 1).then(|| (squares.sum::<f64>() * n / (n - 1.0)).sqrt() / total);
    (ratio, stderr)
}

/// How often each (target, decision) is there.
type Counts = BTreeMap<(usize, usize), u64>;

fn of_pairs(items: &[Item], value: fn(&Counts) -> f64) -> (f64, Option<(f64, &'static str)>) {
    let pair = |item: &Item| match *item {
        Item::Pair(target, decision) => (target, decision),
        _ => (0, 0),
    };
    let pairs: Vec<(usize, usize)> = items.iter().map(pair).collect();
    let of = |pairs: &mut dyn Iterator<Item = (usize, usize)>| {
        let mut counts = Counts::new();
        for pair in pairs {
            *counts.entry(pair).or_default() += 1;
        }
        value(&counts)
    };
    (of(&mut pairs.iter().copied()), bootstrap(&pairs, of))
}

/// Of the second of two choices; 0 where neither a target nor a decision is it.
fn f1(counts: &Counts) -> f64 {
    let n = |target, decision| counts.get(&(target, decision)).copied().unwrap_or(0) as f64;
    let all = 2.0 * n(1, 1) + n(0, 1) + n(1, 0);
    if all > 0.0 { 2.0 * n(1, 1) / all } else { 0.0 }
}

/// Gorodkin's form for any number of classes (2004); 0 where either side has only one.
fn matthews_correlation(counts: &Counts) -> f64 {
    let (mut targets, mut decisions) = (BTreeMap::<usize, f64>::new(), BTreeMap::<usize, f64>::new());
    let (mut n, mut n_right) = (0.0, 0.0);
    for (&(target, decision), &count) in counts {
        let count = count as f64;
        *targets.entry(target).or_default() += count;
        *decisions.entry(decision).or_default() += count;
        n += count;
        n_right += if target == decision { count } else { 0.0 };
    }
    let squares = |counts: &BTreeMap<usize, f64>| n * n - counts.values().map(|count| count * count).sum::<f64>();
    let both = targets
        .iter()
        .map(|(class, count)| count * decisions.get(class).copied().unwrap_or(0.0));
    let covariance = n_right * n - both.sum::<f64>();
    let variances = squares(&targets) * squares(&decisions);
    if variances > 0.0 {
        covariance / variances.sqrt()
    } else {
        0.0
    }
}

/// The standard deviation of a value over resamples with replacement; nothing for a single sample.
fn bootstrap<T: Copy + Sync>(
    samples: &[T],
    value: impl Fn(&mut dyn Iterator<Item = T>) -> f64 + Sync,
) -> Option<(f64, &'static str)> {
    let of_seed = |seed: u64| -> Vec<f64> {
        let mut random = PythonRandom::new(seed);
        let resample = |_| value(&mut samples.iter().map(|_| samples[random.choice(samples.len())]));
        (0..RESAMPLES_OF_SEED).map(resample).collect()
    };
    (samples.len() > 1).then(|| {
        let values: Vec<f64> = (0..SEEDS).into_par_iter().flat_map_iter(of_seed).collect();
        (sample_deviation(&values), "bootstrap")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stderr_of_a_mean_is_the_textbooks() {
        let (mean, stderr) = mean_with_stderr(&[1.0, 0.0, 0.0, 1.0]);
        assert_eq!(mean, 0.5);
        assert!((stderr.unwrap().0 - (1.0f64 / 12.0).sqrt()).abs() < 1e-12);
        assert_eq!(mean_with_stderr(&[1.0]).1, None);
    }

    #[test]
    fn equal_documents_have_a_ratio_without_error() {
        let (bits, stderr) = aggregate(Metric::BitsPerByte, &[Item::Ratio(-10.0, 20); 4]);
        assert!((bits - 0.5 / std::f64::consts::LN_2).abs() < 1e-12);
        assert!(stderr.unwrap().0.abs() < 1e-12);
    }

    /// The expected values were worked out in Python 3.11 with `random.Random(seed).choices`, seeds 0 to 99.
    #[test]
    fn bootstraps_draw_what_python_draws() {
        let near = |value: f64, expected: f64| assert!((value / expected - 1.0).abs() < 1e-9, "{value} {expected}");
        let of = |metric, items: &[Item]| {
            let (value, stderr) = aggregate(metric, items);
            (value, stderr.unwrap().0)
        };
        let log_likelihoods = [-1.0, -2.5, -0.25, -4.0, -3.0].map(Item::Number);
        let (value, stderr) = of(Metric::Perplexity, &log_likelihoods);
        near(value, 8.584_858_397_177_893);
        near(stderr, 6.520_613_649_404_23);
        let pairs =
            [(1, 1), (0, 1), (1, 0), (0, 0), (1, 1), (0, 0)].map(|(target, decision)| Item::Pair(target, decision));
        let (value, stderr) = of(Metric::F1, &pairs);
        near(value, 2.0 / 3.0);
        near(stderr, 0.263_628_886_950_548_37);
        near(of(Metric::Mcc, &pairs).0, 1.0 / 3.0);
        let classes =
            [(0, 0), (1, 2), (2, 2), (1, 1), (0, 1), (2, 2)].map(|(target, decision)| Item::Pair(target, decision));
        let (value, stderr) = of(Metric::Mcc, &classes);
        near(value, 0.522_232_967_867_093_5);
        near(stderr, 0.287_619_763_283_066_1);
        assert_eq!(aggregate(Metric::Perplexity, &log_likelihoods[..1]).1, None);
        assert_eq!(f1(&Counts::new()), 0.0);
    }
}
