//! What is counted of a task under one filter while two logs are read.

use std::collections::BTreeMap;

use super::difference::Summed;
use super::judge;
use super::sample::{Measured, Said, Sample};

/// The most documents that are named.
const MAX_NAMED: usize = 10;

/// The counts of a task and filter.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) n_compared: u64,
    pub(super) n_only_a: u64,
    pub(super) n_only_b: u64,
    pub(super) n_different_prompts: u64,
    pub(super) n_different_texts: u64,
    pub(super) n_different_greedy: u64,
    pub(super) n_beyond: u64,
    pub(super) differences: Summed,
    pub(super) metrics: BTreeMap<String, MetricTally>,
}

/// The counts of a metric.
#[derive(Debug)]
pub(super) struct MetricTally {
    /// Whether every value so far can be a decision.
    pub(super) decides: bool,
    /// Decisions that differ.
    pub(super) unequal: Named,
    /// Those that a near tie excuses.
    pub(super) excused: Named,
    /// Values that differ by more than the tolerance.
    pub(super) beyond: Named,
    pub(super) a: Score,
    pub(super) b: Score,
}

/// Documents: how many, and the first of them.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) n: u64,
    pub(super) docs: Vec<String>,
}

impl Named {
    fn add(&mut self, doc: &str) {
        self.n += 1;
        if self.docs.len() < MAX_NAMED {
            self.docs.push(doc.to_owned());
        }
    }
}

/// Adds a metric's values up to a score, as lm-eval does it for those metrics of which a sum is enough.
#[derive(Debug, Default)]
pub(super) struct Score {
    n: u64,
    sum: f64,
    units: f64,
    has_pairs: bool,
}

impl Score {
    fn add(&mut self, value: Measured) {
        self.n += 1;
        match value {
            Measured::Number(value) => self.sum += value,
            Measured::Pair(value, units) => {
                self.has_pairs = true;
                self.sum += value;
                self.units += units;
            }
        }
    }

    /// The score of a metric by that name; `None` without values, and for those that need more than a sum.
    pub(super) fn value(&self, metric: &str) -> Option<f64> {
        let value = match (metric, self.has_pairs) {
            ("word_perplexity" | "byte_perplexity", true) => (-self.sum / self.units).exp(),
            ("bits_per_byte", true) => -self.sum / self.units / std::f64::consts::LN_2,
            (_, true) => return None,
            ("perplexity", false) => (-self.sum / self.n as f64).exp(),
            (_, false) => self.sum / self.n as f64,
        };
        (self.n > 0).then_some(value)
    }
}

/// One of the two logs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    A,
    B,
}

impl Tally {
    /// Counts a sample towards the scores of its side.
    pub(super) fn read(&mut self, side: Side, sample: &Sample) {
        for (name, value) in &sample.metrics {
            let metric = self.metric(name);
            metric.decides &= value.may_decide();
            match side {
                Side::A => metric.a.add(*value),
                Side::B => metric.b.add(*value),
            }
        }
    }

    /// Counts a sample that both logs have.
    pub(super) fn compare(&mut self, doc: &str, a: &Sample, b: &Sample, tolerance: f64) {
        self.n_compared += 1;
        let comparable = a.said.len() == b.said.len();
        self.n_different_prompts += u64::from(a.arguments != b.arguments || !comparable);
        if comparable {
            self.compare_said(a, b, tolerance);
        }
        for (name, of_a) in &a.metrics {
            let of_b = b.metrics.iter().find(|(other, _)| other == name);
            // One that only one side measures is told of by the scores.
            let Some((_, of_b)) = of_b else { continue };
            let metric = self.metric(name);
            if !judge::is_same_decision(*of_a, *of_b) {
                let is_near = judge::is_near(name, a);
                let named = if is_near {
                    &mut metric.excused
                } else {
                    &mut metric.unequal
                };
                named.add(doc);
            }
            if !judge::is_same_value(*of_a, *of_b, tolerance) {
                metric.beyond.add(doc);
            }
        }
    }

    fn compare_said(&mut self, a: &Sample, b: &Sample, tolerance: f64) {
        let mut differences = Vec::with_capacity(a.said.len());
        let (mut texts, mut greedy) = (false, false);
        for (of_a, of_b) in a.said.iter().zip(&b.said) {
            match (*of_a, *of_b) {
                (Said::LogLikelihood(a, greedy_a), Said::LogLikelihood(b, greedy_b)) => {
                    differences.push(b - a);
                    self.n_beyond += u64::from(!judge::is_within(a, b, tolerance));
                    greedy |= greedy_a != greedy_b;
                }
                (a, b) => texts |= a != b,
            }
        }
        self.differences.add(&differences);
        self.n_different_texts += u64::from(texts);
        self.n_different_greedy += u64::from(greedy);
    }

    fn metric(&mut self, name: &str) -> &mut MetricTally {
        // Looked up before it is inserted: most are there, and their names need no copy.
        if !self.metrics.contains_key(name) {
            let new = MetricTally {
                decides: true,
                unequal: Named::default(),
                excused: Named::default(),
                beyond: Named::default(),
                a: Score::default(),
                b: Score::default(),
            };
            self.metrics.insert(name.to_owned(), new);
        }
        self.metrics.get_mut(name).expect("it was inserted")
    }
}
