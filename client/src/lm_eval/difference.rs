//! Signed differences of log-likelihoods and what is told of them.

use serde::Serialize;

/// What stands for 95 % of a normal distribution on both sides.
const Z_95: f64 = 1.959_963_984_540_054;

/// B minus A, over the samples that both have. The mean is over samples: the requests of one are not independent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Differences {
    /// Log-likelihoods that were compared.
    pub n: u64,
    /// The mean over samples of each one's mean.
    pub mean: f64,
    /// Where its 95 % interval begins and ends; absent with fewer than two samples.
    pub interval_95: Option<(f64, f64)>,
    /// The largest without its sign.
    pub largest: f64,
}

/// Adds samples up (Welford's way).
#[derive(Debug, Default)]
pub(super) struct Summed {
    n_samples: u64,
    n: u64,
    mean: f64,
    squares: f64,
    largest: f64,
}

impl Summed {
    /// Adds the differences of one sample; those that are no finite number are the caller's to tell.
    pub(super) fn add(&mut self, differences: &[f64]) {
        let finite = || differences.iter().copied().filter(|difference| difference.is_finite());
        let n = finite().count();
        if n == 0 {
            return;
        }
        self.n += n as u64;
        self.n_samples += 1;
        self.largest = finite().fold(self.largest, |largest, difference| largest.max(difference.abs()));
        let of_sample = finite().sum::<f64>() / n as f64;
        let delta = of_sample - self.mean;
        self.mean += delta / self.n_samples as f64;
        self.squares += delta * (of_sample - self.mean);
    }

    pub(super) fn told(&self) -> Option<Differences> {
        let n = self.n_samples as f64;
        let half = (self.n_samples > 1).then(|| Z_95 * (self.squares / (n - 1.0) / n).sqrt());
        (self.n > 0).then(|| Differences {
            n: self.n,
            mean: self.mean,
            interval_95: half.map(|half| (self.mean - half, self.mean + half)),
            largest: self.largest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_over_samples() {
        let mut summed = Summed::default();
        assert_eq!(summed.told(), None);
        for sample in [[1.0, 3.0], [-1.0, 1.0], [f64::NAN, 4.0]] {
            summed.add(&sample);
        }
        // Samples 2, 0 and 4: mean 2, standard deviation 2.
        let told = summed.told().unwrap();
        assert_eq!((told.n, told.largest), (5, 4.0));
        assert!((told.mean - 2.0).abs() < 1e-12);
        let (low, high) = told.interval_95.unwrap();
        let half = 1.959_963_984_540_054 * 2.0 / 3.0_f64.sqrt();
        assert!((low - (2.0 - half)).abs() < 1e-12 && (high - (2.0 + half)).abs() < 1e-12);
    }
}
