//! What "the same" means: docs in `eval compare --help`.
//!
//! A log-likelihood may differ by the tolerance, absolute and relative together. A decision may differ only where A's own
//! two best answers are closer than [`NEAR`] to each other, which no float32 tells apart for sure.

use super::sample::{Measured, Said, Sample};

/// The relative gap of two answers below which either may be taken.
const NEAR: f64 = 1e-5;

/// Whether B's number is A's within the tolerance. Numbers that are not finite must be the same.
pub(super) fn is_within(a: f64, b: f64, tolerance: f64) -> bool {
    if a.is_finite() && b.is_finite() {
        return (b - a).abs() <= tolerance + tolerance * a.abs();
    }
    a == b || a.is_nan() && b.is_nan()
}

/// The same of a score. The logarithm of a perplexity is a mean of log-likelihoods, which the tolerance is meant for.
pub(super) fn is_same_score(metric: &str, a: f64, b: f64, tolerance: f64) -> bool {
    if metric.ends_with("perplexity") && a > 0.0 && b > 0.0 {
        return is_within(a.ln(), b.ln(), tolerance);
    }
    is_within(a, b, tolerance)
}

/// Whether a metric's two values are one decision.
pub(super) fn is_same_decision(a: Measured, b: Measured) -> bool {
    a == b
}

/// Whether a metric's two values are the same within the tolerance.
pub(super) fn is_same_value(a: Measured, b: Measured, tolerance: f64) -> bool {
    match (a, b) {
        (Measured::Number(a), Measured::Number(b)) => is_within(a, b, tolerance),
        (Measured::Pair(a, of_a), Measured::Pair(b, of_b)) => is_within(a, b, tolerance) && of_a == of_b,
        _ => false,
    }
}

/// Whether the sample's two best answers, by the metric's rule, are too close to tell which is better.
pub(super) fn is_near(metric: &str, sample: &Sample) -> bool {
    let answers = sample.said.iter().zip(&sample.lengths);
    let mut weights: Vec<f64> = answers
        .filter_map(|(said, &(n_chars, n_bytes))| {
            let Said::LogLikelihood(log_likelihood, _) = *said else {
                return None;
            };
            Some(match metric {
                "acc_norm" => log_likelihood / n_chars as f64,
                "acc_bytes" => log_likelihood / n_bytes as f64,
                _ => log_likelihood,
            })
        })
        .collect();
    if metric == "acc_mutual_info" {
        // The second half are the choices alone.
        let alone = weights.split_off(weights.len() / 2);
        weights.iter_mut().zip(alone).for_each(|(asked, alone)| *asked -= alone);
    } else if sample.metrics.iter().any(|(name, _)| name == "acc_mutual_info") {
        weights.truncate(weights.len() / 2);
    }
    weights.sort_by(|a, b| b.total_cmp(a));
    match weights[..] {
        [best, second, ..] => best - second <= NEAR * best.abs(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use fineline_format::Digest;

    use super::*;

    #[test]
    fn tolerance_is_absolute_and_relative() {
        assert!(is_within(-1000.0, -1000.1, 1e-4) && !is_within(-1000.0, -1000.2, 1e-4));
        assert!(is_within(0.0, 1e-4, 1e-4) && !is_within(0.0, 2e-4, 1e-4));
        assert!(is_within(f64::NAN, f64::NAN, 0.0) && !is_within(f64::NAN, 1.0, 1.0));
        assert!(is_within(f64::INFINITY, f64::INFINITY, 0.0) && !is_within(1.0, f64::INFINITY, 1.0));
        assert!(is_same_score("perplexity", 1e7, 1.001e7, 1e-4) && !is_same_score("acc", 0.5, 0.501, 1e-4));
    }

    #[test]
    fn near_ties_are_by_the_metrics_own_rule() {
        let sample = |said: &[(f64, usize)]| Sample {
            arguments: Digest::of(b""),
            said: said.iter().map(|&(ll, _)| Said::LogLikelihood(ll, None)).collect(),
            lengths: said.iter().map(|&(_, length)| (length, length)).collect(),
            metrics: Vec::new(),
        };
        let by_sum = sample(&[(-20.0, 4), (-20.000_1, 10)]);
        assert!(is_near("acc", &by_sum) && !is_near("acc_norm", &by_sum));
        let by_length = sample(&[(-20.0, 4), (-30.000_1, 6)]);
        assert!(!is_near("acc", &by_length) && is_near("acc_norm", &by_length) && is_near("acc_bytes", &by_length));
        assert!(!is_near("acc", &sample(&[(-1.0, 1)])));
    }
}
