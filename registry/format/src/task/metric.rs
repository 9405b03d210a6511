//! The metrics of a task.

use std::fmt;

use serde_yaml_ng::Value;

use super::fields::{Fields, Res, strings};
use super::{Function, OutputType, Role};

/// A metric of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Share of right decisions.
    Acc,
    /// The same by log-likelihood over the continuation's characters.
    AccNorm,
    /// The same by log-likelihood over the continuation's bytes.
    AccBytes,
    /// The same by log-likelihood less that without any context.
    AccMutualInfo,
    /// Share of answers that are the target: the generated text, or a choice that is all greedy.
    ExactMatch,
    /// Harmonic mean of precision and recall of the second of two choices.
    F1,
    /// Matthews' correlation of decisions and targets.
    Mcc,
    /// exp of the mean negative log-likelihood.
    Perplexity,
    /// exp of the negative log-likelihood per word.
    WordPerplexity,
    /// exp of the negative log-likelihood per byte.
    BytePerplexity,
    /// Negative log-likelihood per byte, in bits.
    BitsPerByte,
    /// Distance of two log-likelihoods (crows_pairs).
    LikelihoodDiff,
    /// Share of pairs whose first is likelier (crows_pairs).
    PctStereotype,
}

impl Metric {
    /// lm-eval's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Acc => "acc",
            Self::AccNorm => "acc_norm",
            Self::AccBytes => "acc_bytes",
            Self::AccMutualInfo => "acc_mutual_info",
            Self::ExactMatch => "exact_match",
            Self::F1 => "f1",
            Self::Mcc => "mcc",
            Self::Perplexity => "perplexity",
            Self::WordPerplexity => "word_perplexity",
            Self::BytePerplexity => "byte_perplexity",
            Self::BitsPerByte => "bits_per_byte",
            Self::LikelihoodDiff => "likelihood_diff",
            Self::PctStereotype => "pct_stereotype",
        }
    }

    /// Which way is better.
    pub const fn higher_is_better(self) -> bool {
        matches!(
            self,
            Self::Acc | Self::AccNorm | Self::AccBytes | Self::AccMutualInfo | Self::ExactMatch | Self::F1 | Self::Mcc
        )
    }

    /// How lm-eval brings its samples' values together.
    pub const fn aggregation(self) -> &'static str {
        match self {
            Self::F1 => "f1",
            Self::Mcc => "matthews_corrcoef",
            Self::Perplexity => "perplexity",
            Self::WordPerplexity | Self::BytePerplexity => "weighted_perplexity",
            Self::BitsPerByte => "bits_per_byte",
            _ => "mean",
        }
    }

    const fn possible(output: OutputType) -> &'static [Self] {
        match output {
            OutputType::MultipleChoice => &[
                Self::Acc,
                Self::AccNorm,
                Self::AccBytes,
                Self::AccMutualInfo,
                Self::ExactMatch,
                Self::F1,
                Self::Mcc,
            ],
            OutputType::Loglikelihood => &[Self::Perplexity, Self::Acc],
            OutputType::LoglikelihoodRolling => &[Self::WordPerplexity, Self::BytePerplexity, Self::BitsPerByte],
            OutputType::GenerateUntil => &[Self::ExactMatch],
        }
    }

    const fn default_of(output: OutputType) -> &'static [Self] {
        match output {
            OutputType::MultipleChoice => &[Self::Acc, Self::AccNorm],
            _ => Self::possible(output),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What `exact_match` passes over, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExactMatch {
    /// What matches these (Python's regular expressions) is taken out of both texts.
    pub regexes_to_ignore: Vec<String>,
    /// Both are lowered.
    pub ignore_case: bool,
    /// ASCII punctuation is taken out.
    pub ignore_punctuation: bool,
    /// ASCII digits are taken out.
    pub ignore_numbers: bool,
}

/// The most patterns of an `exact_match`.
const MAX_PATTERNS: usize = 64;

impl Fields {
    /// `metric_list`; results that a function works out have that function's metrics alone.
    pub(super) fn metrics(&mut self, output: OutputType, results: Option<&Function>) -> Res<(Vec<Metric>, ExactMatch)> {
        let of_results: Vec<Metric> = results
            .into_iter()
            .flat_map(|function| function.candidates(Role::Results))
            .flat_map(|builtin| builtin.metrics().iter().copied())
            .collect();
        let possible = match results {
            Some(_) => of_results.as_slice(),
            None => Metric::possible(output),
        };
        let mut exact_match = ExactMatch::default();
        let Some(list) = self.take("metric_list") else {
            if results.is_some() {
                return Err("`metric_list` is missing: name the metrics that `process_results` gives".to_owned());
            }
            return Ok((Metric::default_of(output).to_vec(), exact_match));
        };
        let Value::Sequence(list) = list else {
            return Err("`metric_list` is no list".to_owned());
        };
        let mut metrics: Vec<Metric> = Vec::new();
        for entry in list {
            let name = entry
                .get("metric")
                .and_then(Value::as_str)
                .ok_or("an entry of `metric_list` has no `metric`")?;
            let metric = possible.iter().copied().find(|metric| metric.as_str() == name);
            let metric = metric.ok_or_else(|| not_supported(name, possible, results))?;
            for (key, value) in entry.as_mapping().into_iter().flatten() {
                let key = key.as_str().unwrap_or("?");
                if !usual(metric, key, value) && !exact_match.take(metric, output, key, value)? {
                    return Err(format!("metric `{name}` with `{key}: {value:?}` is not supported"));
                }
            }
            if metrics.contains(&metric) {
                return Err(format!("metric `{name}` stands twice"));
            }
            metrics.push(metric);
        }
        if metrics.is_empty() {
            return Err("`metric_list` is empty".to_owned());
        }
        Ok((metrics, exact_match))
    }
}

fn not_supported(name: &str, possible: &[Metric], results: Option<&Function>) -> String {
    if let Some(Function {
        module, name: function, ..
    }) = results
    {
        return format!(
            "its field `process_results` is `!function {module}.{function}`, and no function of that name that is built in \
             gives metric `{name}`: take it away, or prepare the data before"
        );
    }
    let known: Vec<_> = possible.iter().map(|metric| metric.as_str()).collect();
    format!("metric `{name}` is not supported here: use {}", known.join(", "))
}

/// What says no more than what the metric is anyway.
fn usual(metric: Metric, key: &str, value: &Value) -> bool {
    match key {
        "metric" => true,
        "aggregation" => value.as_str() == Some(metric.aggregation()),
        "higher_is_better" => value.as_bool() == Some(metric.higher_is_better()),
        "hf_evaluate" => value.as_bool() == Some(false),
        _ => false,
    }
}

impl ExactMatch {
    /// Takes one of its settings; false when it is none.
    fn take(&mut self, metric: Metric, output: OutputType, key: &str, value: &Value) -> Res<bool> {
        if metric != Metric::ExactMatch || output != OutputType::GenerateUntil {
            return Ok(false);
        }
        let flag = || {
            value
                .as_bool()
                .ok_or_else(|| format!("`{key}` of `exact_match` must be true or false"))
        };
        match key {
            "ignore_case" => self.ignore_case = flag()?,
            "ignore_punctuation" => self.ignore_punctuation = flag()?,
            "ignore_numbers" => self.ignore_numbers = flag()?,
            "regexes_to_ignore" if value.is_null() => {}
            "regexes_to_ignore" => {
                let list = strings(value).filter(|list| value.is_sequence() && list.len() <= MAX_PATTERNS);
                self.regexes_to_ignore =
                    list.ok_or_else(|| format!("`regexes_to_ignore` must be a list of at most {MAX_PATTERNS} texts"))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
