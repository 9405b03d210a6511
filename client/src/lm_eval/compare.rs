//! Comparing two sets of lm-eval's output sample by sample.
//!
//! **Invariant:** of a log only A's is in memory, and of each sample only what the other is compared with; the answer is
//! "the same" only when something was compared.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::difference::Differences;
use super::judge;
use super::lines::Lines;
use super::results::{self, ScoreKey};
use super::sample::{self, Key, Sample};
use super::set::Set;
use super::tally::{MetricTally, Side, Tally};

/// How much a log-likelihood may differ unless told otherwise, absolute and relative together.
pub const DEFAULT_TOLERANCE: f64 = 1e-4;

/// Why two sets can't be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A file or folder is none of lm-eval's, or can't be read.
    #[error("can't compare `{}`: {reason}", path.display())]
    Input {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A line of a sample log is no sample.
    #[error("can't compare `{}` line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The two sets have no sample and no score in common.
    #[error("the two have no sample and no score in common: {0}")]
    NothingInCommon(String),
}

impl CompareError {
    pub(super) fn input(path: &Path, reason: impl Into<String>) -> Self {
        Self::Input {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    pub(super) fn file(path: &Path, error: &io::Error) -> Self {
        Self::input(path, error.to_string())
    }
}

/// How two sets are compared.
#[derive(Debug, Clone, Copy)]
pub struct CompareOptions {
    /// How much a log-likelihood or a score may differ: by this plus this times A's value.
    pub tolerance: f64,
    /// Judges what both sets have; what only one has is told and breaks nothing.
    pub only_common: bool,
}

impl Default for CompareOptions {
    fn default() -> Self {
        Self {
            tolerance: DEFAULT_TOLERANCE,
            only_common: false,
        }
    }
}

/// What two sets have alike and what not.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Whether nothing breaks the rules.
    pub is_same: bool,
    /// The tolerance that it was judged by.
    pub tolerance: f64,
    /// By task and filter, where both have sample logs.
    pub tasks: Vec<TaskComparison>,
    /// By task or group, metric and filter.
    pub scores: Vec<ScoreComparison>,
    /// What breaks the rules, for people.
    pub breaches: Vec<String>,
    /// What else is to be known, for people.
    pub notes: Vec<String>,
}

/// The samples of a task under a filter.
#[derive(Debug, Serialize)]
pub struct TaskComparison {
    /// The task.
    pub task: String,
    /// The filter.
    pub filter: String,
    /// Samples that both have: of the same `doc_id` and `doc_hash`.
    pub n_compared: u64,
    /// Samples that only A has.
    pub n_only_a: u64,
    /// Samples that only B has.
    pub n_only_b: u64,
    /// Compared samples whose `arguments` differ, or the number of responses.
    pub n_different_prompts: u64,
    /// Compared samples whose generated texts differ.
    pub n_different_texts: u64,
    /// Compared samples with a log-likelihood that is greedy on one side alone.
    pub n_different_greedy: u64,
    /// Log-likelihoods that differ by more than the tolerance.
    pub n_beyond: u64,
    /// Of log-likelihoods, B minus A; absent where there are none.
    pub differences: Option<Differences>,
    /// By metric.
    pub metrics: Vec<MetricComparison>,
}

/// A metric of a task's samples.
#[derive(Debug, Serialize)]
pub struct MetricComparison {
    /// The metric.
    pub metric: String,
    /// Whether it decides: 0 or 1 for every sample, or a choice. Others are numbers with a tolerance.
    pub decides: bool,
    /// Compared samples whose values differ: at all where it decides, else by more than the tolerance. Without those that
    /// are excused.
    pub n_unequal: u64,
    /// Decisions that differ between two answers which A's own numbers don't tell apart.
    pub n_excused: u64,
    /// The first documents whose values differ, by `doc_id`.
    pub unequal_docs: Vec<String>,
    /// The first of those that are excused.
    pub excused_docs: Vec<String>,
}

/// A score of the two sets: that of the results files, else worked out from the samples.
#[derive(Debug, Serialize)]
pub struct ScoreComparison {
    /// The task or group.
    pub task: String,
    /// The metric.
    pub metric: String,
    /// The filter.
    pub filter: String,
    /// A's.
    pub a: Option<f64>,
    /// B's.
    pub b: Option<f64>,
    /// B minus A.
    pub difference: Option<f64>,
}

/// Compares two sets: folders with `samples_*.jsonl` and `results_*.json`, or one such file each. Blocking.
///
/// # Errors
/// When one of them can't be read as such, or they have nothing in common.
pub fn compare_results(a: &Path, b: &Path, options: CompareOptions) -> Result<Comparison, CompareError> {
    let (mut of_a, mut of_b) = (Set::open(a)?, Set::open(b)?);
    let mut notes: Vec<String> = of_a
        .passed_over
        .iter()
        .chain(&of_b.passed_over)
        .map(|path| format!("`{}` is passed over: there is a newer log of its task", path.display()))
        .collect();
    name_alike(&mut of_a, &mut of_b, (a, b));
    if of_a.logs.is_empty() || of_b.logs.is_empty() {
        notes.push("only scores are compared: one of the two has no sample log".to_owned());
        of_a.logs.clear();
        of_b.logs.clear();
    }
    let mut tallies = BTreeMap::new();
    let mut tasks: Vec<&String> = of_a.logs.keys().chain(of_b.logs.keys()).collect();
    tasks.sort_unstable();
    tasks.dedup();
    for task in tasks {
        for (filter, tally) in read_logs(of_a.logs.get(task), of_b.logs.get(task), options.tolerance)? {
            tallies.insert((task.clone(), filter), tally);
        }
    }
    let scores = scores(&of_a.results, &of_b.results, &tallies)?;
    let n_common = tallies.values().map(|tally| tally.n_compared).sum::<u64>()
        + scores.iter().filter(|score| score.difference.is_some()).count() as u64;
    if n_common == 0 {
        let names = |set: &Set| set.logs.keys().cloned().collect::<Vec<_>>().join(", ");
        let tasks = format!("sample logs of A: {}; of B: {}", names(&of_a), names(&of_b));
        return Err(CompareError::NothingInCommon(tasks));
    }
    let breaches = breaches(&tallies, &scores, options);
    Ok(Comparison {
        is_same: breaches.is_empty(),
        tolerance: options.tolerance,
        tasks: tallies.iter().map(told).collect(),
        scores,
        breaches,
        notes,
    })
}

/// Two single logs are of one task, whatever their files are called.
fn name_alike(a: &mut Set, b: &mut Set, (path_a, path_b): (&Path, &Path)) {
    if path_a.is_file()
        && path_b.is_file()
        && let (Some(task), Some((_, log))) = (a.logs.keys().next(), b.logs.pop_first())
    {
        b.logs.insert(task.clone(), log);
    }
}

type Tallies = BTreeMap<(String, String), Tally>;

/// Reads both logs of a task; gives the counts by filter.
fn read_logs(
    a: Option<&PathBuf>,
    b: Option<&PathBuf>,
    tolerance: f64,
) -> Result<BTreeMap<String, Tally>, CompareError> {
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut waiting: HashMap<Key, Option<Sample>> = HashMap::new();
    read_log(a, |key, sample| {
        tallies.entry(key.filter.clone()).or_default().read(Side::A, &sample);
        waiting.insert(key, Some(sample)).is_none()
    })?;
    let mut only_b = std::collections::HashSet::new();
    read_log(b, |key, sample| {
        let tally = tallies.entry(key.filter.clone()).or_default();
        tally.read(Side::B, &sample);
        match waiting.get_mut(&key) {
            Some(of_a) => {
                let Some(of_a) = of_a.take() else { return false };
                tally.compare(&key.doc_id, &of_a, &sample, tolerance);
                true
            }
            None => {
                tally.n_only_b += 1;
                only_b.insert(key)
            }
        }
    })?;
    for (key, _) in waiting.iter().filter(|(_, sample)| sample.is_some()) {
        tallies.entry(key.filter.clone()).or_default().n_only_a += 1;
    }
    Ok(tallies)
}

/// Hands each sample to `take`, which tells whether it is the first of its key.
fn read_log(path: Option<&PathBuf>, mut take: impl FnMut(Key, Sample) -> bool) -> Result<(), CompareError> {
    let Some(path) = path else { return Ok(()) };
    let mut lines = Lines::open(path)?;
    while let Some(line) = lines.next_value()? {
        let (key, sample) = sample::read(&line).map_err(|reason| lines.bad(reason))?;
        let said = format!("`doc_id` {} is there twice under filter `{}`", key.doc_id, key.filter);
        if !take(key, sample) {
            return Err(lines.bad(said));
        }
    }
    Ok(())
}

fn scores(a: &[PathBuf], b: &[PathBuf], tallies: &Tallies) -> Result<Vec<ScoreComparison>, CompareError> {
    let (mut of_a, mut of_b) = (results::scores(a)?, results::scores(b)?);
    let add = |scores: &mut BTreeMap<ScoreKey, f64>, key: &ScoreKey, value: Option<f64>| {
        if let Some(value) = value {
            scores.entry(key.clone()).or_insert(value);
        }
    };
    for ((task, filter), tally) in tallies {
        for (metric, counts) in &tally.metrics {
            let key = (task.clone(), metric.clone(), filter.clone());
            add(&mut of_a, &key, counts.a.value(metric));
            add(&mut of_b, &key, counts.b.value(metric));
        }
    }
    let mut keys: Vec<&ScoreKey> = of_a.keys().chain(of_b.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let score = |key: &ScoreKey| {
        let (a, b) = (of_a.get(key).copied(), of_b.get(key).copied());
        let (task, metric, filter) = key.clone();
        let difference = a.zip(b).map(|(a, b)| b - a);
        ScoreComparison {
            task,
            metric,
            filter,
            a,
            b,
            difference,
        }
    };
    Ok(keys.into_iter().map(score).collect())
}

fn breaches(tallies: &Tallies, scores: &[ScoreComparison], options: CompareOptions) -> Vec<String> {
    let mut breaches = Vec::new();
    for ((task, filter), tally) in tallies {
        let of_samples = [
            (tally.n_only_a, "samples are only in A", !options.only_common),
            (tally.n_only_b, "samples are only in B", !options.only_common),
            (tally.n_different_prompts, "samples have different prompts", true),
            (tally.n_different_texts, "samples have different texts", true),
            (tally.n_different_greedy, "samples are greedy on one side alone", true),
            (
                tally.n_beyond,
                "log-likelihoods differ by more than the tolerance",
                true,
            ),
        ];
        for (n, what, counts) in of_samples {
            if n > 0 && counts {
                breaches.push(format!("task `{task}`, filter `{filter}`: {n} {what}"));
            }
        }
        for (metric, counts) in &tally.metrics {
            let (n, what, docs) = match counts.decides {
                true => (counts.unequal.n, "decisions are unequal", &counts.unequal.docs),
                false => (
                    counts.beyond.n,
                    "values differ by more than the tolerance",
                    &counts.beyond.docs,
                ),
            };
            if n > 0 {
                let docs = docs.join(", ");
                breaches.push(format!(
                    "task `{task}`, filter `{filter}`: {n} {what} by `{metric}`: document {docs}"
                ));
            }
        }
    }
    breaches.extend(scores.iter().filter_map(|score| score_breach(score, tallies, options)));
    breaches
}

fn score_breach(score: &ScoreComparison, tallies: &Tallies, options: CompareOptions) -> Option<String> {
    let ScoreComparison {
        task, metric, filter, ..
    } = score;
    let named = format!("task `{task}`, filter `{filter}`: score `{metric}`");
    let (Some(a), Some(b)) = (score.a, score.b) else {
        let side = if score.a.is_some() { "A" } else { "B" };
        return (!options.only_common).then(|| format!("{named} is only in {side}"));
    };
    let tally = tallies.get(&(task.clone(), filter.clone()));
    // A score over other samples is another one, and one with an excused decision differs by right; a group has no samples
    // of its own.
    let is_of_others = |tally: &Tally| tally.n_only_a + tally.n_only_b > 0;
    let is_excused = |tally: &Tally| tally.metrics.values().any(|counts| counts.excused.n > 0);
    let is_free = match tally {
        Some(tally) => is_of_others(tally) || is_excused(tally),
        None => tallies.values().any(|tally| is_of_others(tally) || is_excused(tally)),
    };
    let is_same = is_free || judge::is_same_score(metric, a, b, options.tolerance);
    (!is_same).then(|| format!("{named} is {a} in A and {b} in B"))
}

fn told(((task, filter), tally): (&(String, String), &Tally)) -> TaskComparison {
    let metric = |(metric, counts): (&String, &MetricTally)| {
        let unequal = if counts.decides {
            &counts.unequal
        } else {
            &counts.beyond
        };
        MetricComparison {
            metric: metric.clone(),
            decides: counts.decides,
            n_unequal: unequal.n,
            n_excused: if counts.decides { counts.excused.n } else { 0 },
            unequal_docs: unequal.docs.clone(),
            excused_docs: if counts.decides {
                counts.excused.docs.clone()
            } else {
                Vec::new()
            },
        }
    };
    TaskComparison {
        task: task.clone(),
        filter: filter.clone(),
        n_compared: tally.n_compared,
        n_only_a: tally.n_only_a,
        n_only_b: tally.n_only_b,
        n_different_prompts: tally.n_different_prompts,
        n_different_texts: tally.n_different_texts,
        n_different_greedy: tally.n_different_greedy,
        n_beyond: tally.n_beyond,
        differences: tally.differences.told(),
        metrics: tally.metrics.iter().map(metric).collect(),
    }
}
