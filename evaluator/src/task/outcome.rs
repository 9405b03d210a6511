//! What a sample came to, metric by metric.

use anyhow::{Context, Result, bail, ensure};
use fineline_format::task::{Builtin, ExactMatch, Metric, OutputType, Role, TaskFile};
use serde_json::{Value, json};

use super::pattern::Pattern;
use super::{Sample, Target, builtin};
use crate::engine::Answer;
use crate::python;

/// A sample's value of a metric, as its aggregation takes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Item {
    /// A number.
    Number(f64),
    /// Right or not, which lm-eval logs as a whole number.
    Flag(bool),
    /// (target, decision).
    Pair(usize, usize),
    /// A log-likelihood over as many units.
    Ratio(f64, u64),
}

impl Item {
    /// As it stands in a sample's log.
    pub(super) fn logged(self) -> Value {
        match self {
            Self::Number(value) => json!(value),
            Self::Flag(flag) => json!(u8::from(flag)),
            Self::Pair(target, decision) => json!([target, decision]),
            Self::Ratio(log_likelihood, n) => json!([log_likelihood, n]),
        }
    }
}

/// The metrics of a sample whose answers are log-likelihoods, in the task's order.
///
/// # Errors
/// When the sample has not what a metric needs.
pub(super) fn of_answers(file: &TaskFile, sample: &Sample, answers: &[Answer]) -> Result<Vec<Item>> {
    let results = match &file.process_results {
        Some(function) => Some(builtin::resolve(function, Role::Results, &sample.doc)?),
        None => None,
    };
    let item = |&metric: &Metric| match (results, file.output_type) {
        (Some(builtin), _) => of_builtin(builtin, metric, sample, answers),
        (None, OutputType::MultipleChoice) => of_choices(metric, sample, answers),
        (None, OutputType::Loglikelihood) => Ok(match metric {
            Metric::Acc => Item::Flag(answers[0].is_greedy),
            _ => Item::Number(answers[0].log_likelihood),
        }),
        (None, OutputType::LoglikelihoodRolling) => {
            Ok(over_units(metric, answers[0].log_likelihood, &sample.logged_target))
        }
        (None, OutputType::GenerateUntil) => bail!("it generates and has no log-likelihoods"),
    };
    file.metrics.iter().map(item).collect()
}

fn of_choices(metric: Metric, sample: &Sample, answers: &[Answer]) -> Result<Item> {
    let Target::Choices(right) = &sample.target else {
        bail!("its target is no choice");
    };
    let (asked, alone) = answers.split_at(sample.choices.len());
    let lengths = |length: fn(&str) -> usize| sample.choices.iter().map(move |choice| length(choice) as f64);
    let decides = |decision: usize| Item::Number(f64::from(u8::from(right.contains(&decision))));
    let decision = || first_largest(asked.iter().map(|answer| answer.log_likelihood));
    // Characters of the choice itself, without the delimiter.
    let over = |length: fn(&str) -> usize| {
        first_largest(
            asked
                .iter()
                .zip(lengths(length))
                .map(|(answer, n)| answer.log_likelihood / n),
        )
    };
    Ok(match metric {
        Metric::Acc => decides(decision()),
        Metric::AccNorm => decides(over(|choice| choice.chars().count())),
        Metric::AccBytes => decides(over(str::len)),
        Metric::AccMutualInfo => {
            ensure!(alone.len() == asked.len(), "its choices were not asked alone");
            let differences = asked.iter().zip(alone);
            decides(first_largest(
                differences.map(|(answer, alone)| answer.log_likelihood - alone.log_likelihood),
            ))
        }
        Metric::ExactMatch => Item::Flag(right.iter().any(|&index| asked[index].is_greedy)),
        Metric::F1 | Metric::Mcc => {
            let [right] = right.as_slice() else {
                bail!("metric `{metric}` needs one right choice a document");
            };
            ensure!(
                metric == Metric::Mcc || sample.choices.len() == 2,
                "metric `f1` needs two choices, a document has {}",
                sample.choices.len()
            );
            Item::Pair(*right, decision())
        }
        other => bail!("metric `{other}` is none of choices"),
    })
}

/// The metrics of lm-eval's own `process_results`.
fn of_builtin(builtin: Builtin, metric: Metric, sample: &Sample, answers: &[Answer]) -> Result<Item> {
    match (builtin, metric) {
        (Builtin::TruthfulqaMc2, Metric::Acc) => mass_of_true(sample, answers),
        (Builtin::WikitextResults, Metric::WordPerplexity | Metric::BytePerplexity | Metric::BitsPerByte) => {
            // Words and bytes are those of the page before it was detokenized.
            let page = sample.doc["page"].as_str().context("its `page` is no text")?;
            Ok(over_units(metric, answers[0].log_likelihood, page))
        }
        (Builtin::CrowsPairsResults, Metric::LikelihoodDiff | Metric::PctStereotype) => {
            let [more, less] = answers else {
                bail!("it needs two sentences");
            };
            let difference = more.log_likelihood - less.log_likelihood;
            Ok(Item::Number(match metric {
                Metric::LikelihoodDiff => difference.abs(),
                _ => f64::from(u8::from(difference > 0.0)),
            }))
        }
        (builtin, metric) => bail!("`{}` gives no `{metric}`", builtin.name()),
    }
}

/// The true answers' share of the probability of all answers. It is worked out from differences to the likeliest: the
/// probabilities themselves may be smaller than the smallest number.
fn mass_of_true(sample: &Sample, answers: &[Answer]) -> Result<Item> {
    let labels = sample.doc["mc2_targets"]["labels"].as_array();
    let labels = labels.context("its `mc2_targets.labels` are no list")?;
    ensure!(
        labels.len() == answers.len(),
        "it has {} labels and {} answers",
        labels.len(),
        answers.len()
    );
    let log_likelihoods = || answers.iter().map(|answer| answer.log_likelihood);
    let largest = log_likelihoods().fold(f64::NEG_INFINITY, f64::max);
    let all: f64 = log_likelihoods().map(|value| (value - largest).exp()).sum();
    let is_true = |(_, label): &(f64, &Value)| **label == 1 || **label == true;
    let of_true = log_likelihoods().zip(labels).filter(is_true);
    let of_true: f64 = of_true.map(|(value, _)| (value - largest).exp()).sum();
    Ok(Item::Number(of_true / all))
}

fn over_units(metric: Metric, log_likelihood: f64, text: &str) -> Item {
    let n = match metric {
        Metric::WordPerplexity => split_by_white_space(text),
        _ => text.len() as u64,
    };
    Item::Ratio(log_likelihood, n)
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
        let space = python::is_space(c);
        runs += u64::from(space && !inside);
        inside = space;
    }
    runs
}

/// `exact_match` of a generated text.
#[derive(Debug)]
pub(super) struct Matcher {
    ignored: Vec<Pattern>,
    settings: ExactMatch,
}

impl Matcher {
    /// Compiles its patterns.
    ///
    /// # Errors
    /// Names the pattern that is wrong.
    pub(super) fn new(settings: &ExactMatch) -> Result<Self> {
        let patterns = settings.regexes_to_ignore.iter().map(|pattern| Pattern::new(pattern));
        Ok(Self {
            ignored: patterns.collect::<Result<_>>().context("`regexes_to_ignore`")?,
            settings: settings.clone(),
        })
    }

    /// Whether the text is one of the targets.
    ///
    /// # Errors
    /// When a pattern takes too much.
    pub(super) fn item(&self, text: &str, sample: &Sample) -> Result<Item> {
        let Target::Texts(targets) = &sample.target else {
            bail!("its target is no text");
        };
        let text = self.cleaned(text)?;
        for target in targets {
            if self.cleaned(target)? == text {
                return Ok(Item::Number(1.0));
            }
        }
        Ok(Item::Number(0.0))
    }

    fn cleaned(&self, text: &str) -> Result<String> {
        let mut text = text.to_owned();
        for pattern in &self.ignored {
            text = pattern.remove(&text)?;
        }
        if self.settings.ignore_case {
            text = text.to_lowercase();
        }
        text.retain(|c| {
            !(self.settings.ignore_punctuation && c.is_ascii_punctuation()
                || self.settings.ignore_numbers && c.is_ascii_digit())
        });
        // The library that compares (numpy) keeps no NUL at the end of a text.
        text.truncate(text.trim_end_matches('\0').len());
        Ok(text)
    }
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

    fn sample(target: Target, choices: &[&str], doc: Value) -> Sample {
        Sample {
            doc,
            logged_target: String::new(),
            target,
            requests: Vec::new(),
            choices: choices.iter().map(|choice| (*choice).to_owned()).collect(),
        }
    }

    fn answers(values: &[f64]) -> Vec<Answer> {
        let answer = |&log_likelihood: &f64| Answer {
            log_likelihood,
            is_greedy: log_likelihood > -2.5,
        };
        values.iter().map(answer).collect()
    }

    #[test]
    fn choices_are_decided_by_each_metrics_rule() {
        // By sum the second, by characters the first, by bytes the third, against the choices alone the third.
        let sample = sample(Target::Choices(vec![2]), &["aaaaaa", "b", "éééé"], Value::Null);
        let answers = answers(&[-3.6, -2.0, -4.0, -1.0, -1.0, -9.0]);
        let item = |metric| of_choices(metric, &sample, &answers).unwrap();
        assert_eq!(item(Metric::Acc), Item::Number(0.0));
        assert_eq!(item(Metric::AccNorm), Item::Number(0.0));
        assert_eq!(item(Metric::AccBytes), Item::Number(1.0));
        assert_eq!(item(Metric::AccMutualInfo), Item::Number(1.0));
        assert_eq!(item(Metric::ExactMatch), Item::Flag(false));
        assert_eq!(item(Metric::Mcc), Item::Pair(2, 1));
        assert!(of_choices(Metric::F1, &sample, &answers).is_err());
    }

    #[test]
    fn the_mass_of_true_answers_is_a_share() {
        let doc = json!({"mc2_targets": {"labels": [1, 0, 1]}});
        let sample = sample(Target::Choices(vec![0]), &["a", "b", "c"], doc);
        // numpy: exp(ll) / sum(exp(ll)) where the label is 1.
        let Item::Number(mass) = mass_of_true(&sample, &answers(&[-1.0, -2.0, -3.0])).unwrap() else {
            panic!("a number");
        };
        assert!((mass - 0.755_271_528_945_202_3).abs() < 1e-12, "{mass}");
        let Item::Number(far) = mass_of_true(&sample, &answers(&[-2001.0, -2002.0, -2003.0])).unwrap() else {
            panic!("a number");
        };
        assert!((far - mass).abs() < 1e-12);
        assert!(mass_of_true(&sample, &answers(&[-1.0])).is_err());
    }

    #[test]
    fn exact_match_passes_over_what_it_is_told_to() {
        let matches = |settings: ExactMatch, text: &str, targets: &[&str]| {
            let targets = Target::Texts(targets.iter().map(|target| (*target).to_owned()).collect());
            Matcher::new(&settings)
                .unwrap()
                .item(text, &sample(targets, &[], Value::Null))
                .unwrap()
                == Item::Number(1.0)
        };
        assert!(matches(ExactMatch::default(), "18", &["17", "18"]));
        assert!(!matches(ExactMatch::default(), "18", &[]));
        let gsm8k = || ExactMatch {
            regexes_to_ignore: [",", "\\$", "(?s).*#### ", "\\.$"].map(str::to_owned).to_vec(),
            ignore_case: true,
            ..ExactMatch::default()
        };
        assert!(matches(gsm8k(), "$1,018.", &["He\nhas #### 1018"]));
        assert!(!matches(gsm8k(), "1.018", &["#### 1018"]));
        let open = || ExactMatch {
            regexes_to_ignore: vec![r"\b(?:The |the |An |A |The |a |an )".to_owned()],
            ignore_case: true,
            ignore_punctuation: true,
            ..ExactMatch::default()
        };
        assert!(matches(open(), "The U.S.A", &["usa"]));
        let numbers = ExactMatch {
            ignore_numbers: true,
            ..ExactMatch::default()
        };
        assert!(matches(numbers, "a1b2", &["ab"]));
    }
}
