//! Scores that lie beside a checkpoint's weights: results files of lm-eval, in the form of its 0.3 (LLM360's
//! `eval_*.json`) and in that of its 0.4.
//!
//! **Invariant:** what is given can be posted. A value that is no finite number is left out, and so is a name that is
//! too long; a file of another program's is refused, so that lm-eval is said to have measured only what it did.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::error::shown;
use crate::python_json;

/// The longest file that is read: one with 10,000 tasks has less.
pub const MAX_BYTES: u64 = 16 << 20;

/// The most scores of a file.
const MAX_SCORES: usize = 10_000;

/// The most tasks of a group that are counted together.
const MAX_PARTS: usize = 10_000;

/// Who measured.
const HARNESS: &str = "lm-eval";

/// Members of a task that are no metrics.
const NO_METRICS: [&str; 5] = ["alias", "name", "sample_len", "sample_count", "samples"];

/// The scores of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct ShippedScores {
    /// Who measured, as scores from outside name it.
    pub harness: String,
    /// Its version, where the file says one.
    pub harness_version: Option<String>,
    /// The scores of tasks and groups, one at least.
    pub scores: Vec<ShippedScore>,
}

/// A score of a task or a group.
#[derive(Debug, Clone, PartialEq)]
pub struct ShippedScore {
    /// The task's name, or the group's.
    pub task: String,
    /// The metric's name.
    pub metric: String,
    /// The filter's name; `none` where there is none.
    pub filter: String,
    /// The value; finite.
    pub value: f64,
    /// Its standard error; finite.
    pub stderr: Option<f64>,
    /// Samples; 0 where the file does not say.
    pub n: u64,
    /// Samples of a task at most, where that left some out or the file does not say whether it did.
    pub limit: Option<u64>,
    /// Shots.
    pub n_shot: u32,
    /// Which way is better, where the file says it.
    pub higher_is_better: Option<bool>,
    /// The dtype that it was computed in, where the file says it.
    pub dtype: Option<String>,
}

/// Whether a file's name is that of a results file: `eval_*.json`, `results.json`, `results_*.json`, `lm_eval*.json`,
/// in any folder. transformers' `eval_results.json` holds a loss and is none.
pub fn is_score_file(path: &str) -> bool {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let Some(stem) = name.strip_suffix(".json") else {
        return false;
    };
    let begins = ["eval_", "results_", "lm_eval"]
        .iter()
        .any(|begin| stem.starts_with(begin));
    stem == "results" || begins && stem != "eval_results"
}

/// Reads a results file; `None` when it is not named as one.
///
/// # Errors
/// A sentence, when it is named so and holds no scores of lm-eval's. That is no fault of the checkpoint.
pub fn read(path: &str, json: &[u8]) -> Option<Result<ShippedScores, String>> {
    let refused = |why: String| format!("the scores in `{}` are not used: {why}", shown(path));
    is_score_file(path).then(|| parse(json).map_err(refused))
}

fn parse(json: &[u8]) -> Result<ShippedScores, String> {
    if json.len() as u64 > MAX_BYTES {
        return Err(format!("it has {} bytes, {MAX_BYTES} at most are read", json.len()));
    }
    let file = python_json::parse(json).map_err(|error| format!("it is no JSON: {error}"))?;
    let file = ResultsFile::of(&file)?;
    let scores = file.scores()?;
    if scores.is_empty() {
        return Err("it has no finite value of any metric".to_owned());
    }
    let version = file.root.get("lm_eval_version").and_then(Value::as_str);
    Ok(ShippedScores {
        harness: HARNESS.to_owned(),
        harness_version: version.filter(|version| is_word(version)).map(str::to_owned),
        scores,
    })
}

/// A name that the registry takes for a metric, a filter, a dtype or a version.
fn is_word(text: &str) -> bool {
    (1..=128).contains(&text.len())
}

/// The parts of a file that scores are made of. All but `results` and `config` are of 0.4 only.
struct ResultsFile<'a> {
    root: &'a Map<String, Value>,
    results: &'a Map<String, Value>,
    config: &'a Map<String, Value>,
}

/// What is the same for all metrics of a task.
struct Measured {
    n: u64,
    limit: Option<u64>,
    n_shot: u32,
}

impl<'a> ResultsFile<'a> {
    fn of(file: &'a Value) -> Result<Self, String> {
        let object = |key: &str| file.get(key).and_then(Value::as_object);
        let root = file.as_object().ok_or("it is no JSON object")?;
        if root.contains_key("fineline") {
            return Err("they are Fineline's own, exported, and not lm-eval's".to_owned());
        }
        Ok(Self {
            root,
            results: object("results").ok_or("it has no `results`")?,
            config: object("config").ok_or("it has no `config`, as lm-eval's files have")?,
        })
    }

    fn scores(&self) -> Result<Vec<ShippedScore>, String> {
        let groups = self.root.get("groups").and_then(Value::as_object);
        // 0.4 repeats its groups among the results.
        let groups = groups.into_iter().flatten();
        let tasks = self
            .results
            .iter()
            .chain(groups.filter(|(group, _)| !self.results.contains_key(*group)));
        let dtype = self.dtype();
        let mut scores = Vec::new();
        for (task, metrics) in tasks {
            let Some(metrics) = metrics.as_object().filter(|_| (1..=256).contains(&task.len())) else {
                continue;
            };
            let values = values(metrics);
            if values.is_empty() {
                continue;
            }
            let Measured { n, limit, n_shot } = self.measured(task, metrics)?;
            for ((metric, filter), (value, stderr)) in values {
                scores.push(ShippedScore {
                    task: task.clone(),
                    metric: metric.to_owned(),
                    filter: filter.to_owned(),
                    value,
                    stderr,
                    n,
                    limit,
                    n_shot,
                    higher_is_better: self
                        .of_task("higher_is_better", task)
                        .and_then(|better| better.get(metric)?.as_bool()),
                    dtype: dtype.clone(),
                });
            }
            if scores.len() > MAX_SCORES {
                return Err(format!("it has more than {MAX_SCORES}"));
            }
        }
        Ok(scores)
    }

    fn measured(&self, task: &str, metrics: &Map<String, Value>) -> Result<Measured, String> {
        let parts = self.parts(task);
        let counts: Vec<(u64, u64)> = parts.iter().filter_map(|part| self.n_samples(part)).collect();
        let is_counted = !counts.is_empty() && counts.len() == parts.len();
        let n = match is_counted {
            true => counts
                .iter()
                .fold(0_u64, |n, (_, effective)| n.saturating_add(*effective)),
            false => metrics.get("sample_len").and_then(Value::as_u64).unwrap_or(0),
        };
        let is_whole = is_counted && counts.iter().all(|(original, effective)| effective >= original);
        let limit = if is_whole { None } else { self.limit(&counts)? };
        Ok(Measured {
            n: n.min(i64::MAX as u64),
            limit,
            n_shot: self.n_shot(&parts),
        })
    }

    /// The tasks of a group and of the groups in it; a task itself; none of a group that is too large.
    fn parts(&self, task: &'a str) -> Vec<&'a str> {
        let subtasks = self.root.get("group_subtasks");
        let (mut parts, mut seen, mut open) = (Vec::new(), BTreeSet::new(), vec![task]);
        while let Some(name) = open.pop() {
            if !seen.insert(name) {
                continue;
            }
            if seen.len() > MAX_PARTS {
                return Vec::new();
            }
            let its = subtasks.and_then(|subtasks| subtasks.get(name)?.as_array());
            match its.filter(|its| !its.is_empty()) {
                Some(its) => open.extend(its.iter().filter_map(Value::as_str)),
                None => parts.push(name),
            }
        }
        parts
    }

    fn of_task(&self, key: &str, task: &str) -> Option<&'a Value> {
        self.root.get(key)?.get(task)
    }

    /// All samples of a task, and those that were taken.
    fn n_samples(&self, task: &str) -> Option<(u64, u64)> {
        let counts = self.of_task("n-samples", task)?;
        Some((counts.get("original")?.as_u64()?, counts.get("effective")?.as_u64()?))
    }

    /// The limit. A part of all samples, which lm-eval takes too, is as many as were taken of the largest task.
    fn limit(&self, counts: &[(u64, u64)]) -> Result<Option<u64>, String> {
        let cut = counts.iter().filter(|(original, effective)| effective < original);
        let taken = cut.map(|(_, effective)| *effective).max().filter(|n| *n > 0);
        match self.config.get("limit").and_then(Value::as_f64) {
            Some(limit) if (1.0..9e15).contains(&limit) => Ok(Some(limit as u64)),
            Some(limit) if taken.is_none() => Err(format!(
                "they are of a part of each task's samples (limit `{limit}`), and how many that were is not said"
            )),
            _ => Ok(taken),
        }
    }

    /// The shots that all parts share; lm-eval names them by task, before by the file.
    fn n_shot(&self, parts: &[&str]) -> u32 {
        let shots = |value: &Value| {
            value
                .as_u64()
                .and_then(|n| i32::try_from(n).ok())
                .map(i32::unsigned_abs)
        };
        let of_part = |part: &&str| {
            let told = self.of_task("n-shot", part).and_then(shots);
            told.or_else(|| self.of_task("configs", part)?.get("num_fewshot").and_then(shots))
        };
        let first = parts.first().and_then(of_part);
        let shared = first.filter(|_| parts.iter().all(|part| of_part(part) == first));
        shared
            .or_else(|| self.config.get("num_fewshot").and_then(shots))
            .unwrap_or(0)
    }

    fn dtype(&self) -> Option<String> {
        let arguments = self.config.get("model_args");
        let in_text = |text: &'a str| {
            text.split(',')
                .find_map(|argument| argument.trim().strip_prefix("dtype="))
        };
        let argument = arguments.and_then(|arguments| match arguments {
            Value::String(text) => in_text(text),
            other => other.get("dtype")?.as_str(),
        });
        let told = self.config.get("model_dtype").and_then(Value::as_str).or(argument)?;
        let dtype = told.strip_prefix("torch.").unwrap_or(told).trim_matches(['"', '\'']);
        Some(dtype)
            .filter(|dtype| is_word(dtype) && *dtype != "auto")
            .map(str::to_owned)
    }
}

/// The finite values of a task by metric and filter, with their standard errors.
fn values(metrics: &Map<String, Value>) -> BTreeMap<(&str, &str), (f64, Option<f64>)> {
    let mut stderrs = BTreeMap::new();
    let mut values = BTreeMap::new();
    for (name, value) in metrics {
        let (metric, filter) = name.split_once(',').unwrap_or((name, "none"));
        let Some(value) = value.as_f64().filter(|value| value.is_finite()) else {
            continue;
        };
        if let Some(metric) = metric.strip_suffix("_stderr") {
            stderrs.insert((metric, filter), value);
        } else if is_word(metric) && is_word(filter) && !NO_METRICS.contains(&metric) {
            values.insert((metric, filter), value);
        }
    }
    let with_stderr = |(key, value)| {
        let stderr = stderrs.get(&key).copied().filter(|stderr| *stderr >= 0.0);
        (key, (value, stderr))
    };
    values.into_iter().map(with_stderr).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Task, metric, filter, value, standard error.
    type Told<'a> = (&'a str, &'a str, &'a str, f64, Option<f64>);

    fn told(scores: &ShippedScores) -> Vec<Told<'_>> {
        let mut told = Vec::new();
        for score in &scores.scores {
            told.push((&*score.task, &*score.metric, &*score.filter, score.value, score.stderr));
        }
        told
    }

    fn parsed(file: &Value) -> Result<ShippedScores, String> {
        read("results.json", file.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_results_file_is_told_by_its_name() {
        for path in [
            "eval_arc.json",
            "results.json",
            "results_2024-05-01T00-00-00.5.json",
            "eval/lab__model/results_all.json",
            "lm_eval.json",
            "lm_eval_mmlu.json",
        ] {
            assert!(is_score_file(path), "{path}");
        }
        for path in [
            "config.json",
            "eval_results.json",
            "all_results.json",
            "results.jsonl",
            "results_a/config.json",
            "my_results.json",
            "samples_arc.jsonl",
        ] {
            assert!(read(path, b"{}").is_none(), "{path}");
        }
    }

    #[test]
    fn the_older_form_is_read() {
        // As LLM360 ships it.
        let file = br#"{"results": {"hellaswag": {"acc": 0.5476, "acc_stderr": 0.0049, "acc_norm": 0.7382,
            "acc_norm_stderr": NaN}}, "versions": {"hellaswag": 0}, "config": {"model": "hf-causal",
            "model_args": "pretrained=./workdir/ckpt_359,dtype='bfloat16'", "num_fewshot": 10, "limit": null}}"#;
        let read = read("eval_hellaswag.json", file).unwrap().unwrap();
        assert_eq!((read.harness.as_str(), &read.harness_version), ("lm-eval", &None));
        assert_eq!(
            told(&read),
            [
                ("hellaswag", "acc", "none", 0.5476, Some(0.0049)),
                ("hellaswag", "acc_norm", "none", 0.7382, None)
            ]
        );
        let score = &read.scores[0];
        assert_eq!((score.n, score.limit, score.n_shot), (0, None, 10));
        assert_eq!(
            (score.higher_is_better, score.dtype.as_deref()),
            (None, Some("bfloat16"))
        );
    }

    fn newer() -> Value {
        json!({
            "results": {
                "t": {"alias": " - t", "name": "t", "sample_len": 9, " ": " ", "acc,none": 0.5, "acc_stderr,none": 0.25,
                    "em,strict": 1, "em_stderr,strict": "N/A", "by_part": {"a": 1.0}, "note": "0.7"},
                "u": {"ppl,none": 12.5, "ppl_stderr,none": -1.0, "inf,none": "Infinity"},
                "g": {"acc,none": 0.4, "acc_stderr,none": 0.1}, "text": "no task", "": {"acc,none": 1},
            },
            "groups": {"g": {"acc,none": 0.4}, "h": {"acc,none": 0.3}},
            "group_subtasks": {"g": ["t", "h"], "h": ["u", "g"], "t": []},
            "configs": {"u": {"num_fewshot": 5}}, "n-shot": {"t": 5},
            "higher_is_better": {"t": {"acc": true, "em": null}, "u": {"ppl": false}},
            "n-samples": {"t": {"original": 500, "effective": 100}, "u": {"original": 40, "effective": 40}},
            "config": {"model_args": {"dtype": "auto"}, "model_dtype": "torch.float32", "limit": 100.0},
            "lm_eval_version": "0.4.13",
        })
    }

    #[test]
    fn the_newer_form_is_read_with_its_groups() {
        let read = parsed(&newer()).unwrap();
        assert_eq!(read.harness_version.as_deref(), Some("0.4.13"));
        assert_eq!(
            told(&read),
            [
                ("t", "acc", "none", 0.5, Some(0.25)),
                ("t", "em", "strict", 1.0, None),
                ("u", "ppl", "none", 12.5, None),
                ("g", "acc", "none", 0.4, Some(0.1)),
                ("h", "acc", "none", 0.3, None)
            ]
        );
        let samples: Vec<_> = read
            .scores
            .iter()
            .map(|score| (score.n, score.limit, score.n_shot))
            .collect();
        let cut = Some(100);
        // The task that the limit did not reach is whole.
        assert_eq!(
            samples,
            [
                (100, cut, 5),
                (100, cut, 5),
                (40, None, 5),
                (140, cut, 5),
                (140, cut, 5)
            ]
        );
        let better: Vec<_> = read.scores.iter().map(|score| score.higher_is_better).collect();
        assert_eq!(better, [Some(true), None, Some(false), None, None]);
        assert!(
            read.scores
                .iter()
                .all(|score| score.dtype.as_deref() == Some("float32"))
        );
    }

    #[test]
    fn a_limit_is_never_passed_over() {
        let limit = |limit: Value, counts: Value| {
            let file = json!({"results": {"t": {"acc": 1}}, "config": {"limit": limit}, "n-samples": {"t": counts}});
            parsed(&file).map(|read| (read.scores[0].n, read.scores[0].limit))
        };
        assert_eq!(limit(json!(50), Value::Null), Ok((0, Some(50))));
        assert_eq!(
            limit(json!(0.1), json!({"original": 90, "effective": 9})),
            Ok((9, Some(9)))
        );
        assert_eq!(
            limit(Value::Null, json!({"original": 90, "effective": 9})),
            Ok((9, Some(9)))
        );
        assert!(limit(json!(0.1), Value::Null).unwrap_err().contains("limit `0.1`"));
    }

    #[test]
    fn what_is_no_results_file_is_told() {
        let mut own = newer();
        own["fineline"] = json!({});
        for (file, words) in [
            (own, "Fineline's own"),
            (json!([]), "no JSON object"),
            (json!({"eval_loss": 1.5}), "no `results`"),
            (
                json!({"results": {"harness|arc|25": {"acc": 0.5}}, "config_general": {}}),
                "no `config`",
            ),
            (
                json!({"results": {"t": {"acc": "N/A"}}, "config": {}}),
                "no finite value",
            ),
        ] {
            let error = parsed(&file).unwrap_err();
            assert!(error.contains(words) && error.contains("`results.json`"), "{error}");
        }
        assert!(read("eval_a.json", b"{").unwrap().unwrap_err().contains("no JSON"));
    }

    #[test]
    fn a_long_chain_of_groups_is_not_walked_for_each() {
        let group = |n: usize| (format!("g{n}"), json!([format!("g{}", n + 1)]));
        let mut file = newer();
        file["group_subtasks"] = (0..MAX_PARTS + 10).map(group).collect();
        file["results"] = json!({"g0": {"acc": 1}});
        assert_eq!(parsed(&file).unwrap().scores[0].n, 0);
    }
}
