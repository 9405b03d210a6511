//! The results file of an evaluation, with the keys of lm-eval 0.4.13 in its order. What is not known is null; what lm-eval
//! has no key for stands under [`OWN_KEY`].

use std::collections::BTreeMap;

use fineline_api::{Checkpoint, Evaluation, Score};
use fineline_format::suite::SuiteDefinition;
use serde_json::{Map, Value, json};

use super::names::sanitized;

/// The key under which everything stands that lm-eval has no field for.
pub const OWN_KEY: &str = "fineline";

/// What lm-eval writes for a standard error that it doesn't work out.
const NO_STDERR: &str = "N/A";

/// The standard error of ratios, for which lm-eval has none.
const OF_RATIOS: &str = "ratio_over_documents";

/// An evaluation with all that its files are made of.
#[derive(Debug)]
pub(super) struct Evaluated {
    pub(super) checkpoint: Checkpoint,
    pub(super) evaluation: Evaluation,
    pub(super) suite: SuiteDefinition,
    /// The fields of each task's YAML.
    pub(super) configs: BTreeMap<String, Map<String, Value>>,
    pub(super) scores: Vec<Score>,
    /// Of each task with a sample log.
    pub(super) task_hashes: BTreeMap<String, String>,
}

impl Evaluated {
    /// What lm-eval would call the model.
    pub(super) fn model_name(&self) -> String {
        model_name(&self.checkpoint)
    }

    fn of(&self, task: &str) -> impl Iterator<Item = &Score> {
        self.scores.iter().filter(move |score| score.task == task)
    }

    /// A fact of the provenance that all scores share.
    fn fact(&self, name: &str) -> Option<&String> {
        self.scores.iter().find_map(|score| score.provenance.get(name))
    }
}

/// What lm-eval would call the model: the run and the step.
pub(super) fn model_name(checkpoint: &Checkpoint) -> String {
    format!("{}@step-{}", checkpoint.run, checkpoint.step)
}

/// The whole file.
pub(super) fn results_file(evaluated: &Evaluated) -> Value {
    let suite = &evaluated.suite;
    let tasks: Vec<&str> = suite.tasks.iter().map(|task| task.task.as_str()).collect();
    let groups: Vec<&str> = suite.groups.iter().map(|group| group.group.as_str()).collect();
    let mut all: Vec<&str> = tasks.iter().chain(&groups).copied().collect();
    let results = object(&all, |name| metrics(evaluated, name));
    let of_groups = object(&groups, |name| metrics(evaluated, name));
    all.sort_unstable();
    let first = |name: &str| evaluated.of(name).next();
    let mut file = Map::new();
    let mut put = |key: &str, value: Value| file.insert(key.to_owned(), value);
    put("results", results);
    if !groups.is_empty() {
        put("groups", of_groups);
    }
    put(
        "group_subtasks",
        suite
            .groups
            .iter()
            .map(|group| (group.group.clone(), json!(group.tasks)))
            .collect(),
    );
    put("configs", object(&all, |name| config(evaluated, name)));
    put("versions", object(&all, |name| first(name).map(version)));
    put(
        "n-shot",
        object(&all, |name| first(name).map(|score| json!(score.n_shot))),
    );
    put(
        "higher_is_better",
        object(&all, |name| Some(higher_is_better(evaluated, name))),
    );
    put(
        "n-samples",
        object(&tasks, |name| first(name).map(|score| n_samples(evaluated, score))),
    );
    put("config", run_config(evaluated));
    // lm-eval did not run: what it says of itself and of Python is not there to be said.
    put("git_hash", Value::Null);
    let seconds = |time: chrono::DateTime<chrono::Utc>| time.timestamp_micros() as f64 / 1e6;
    put("date", json!(evaluated.evaluation.started_at.map(seconds)));
    for key in [
        "pretty_env_info",
        "transformers_version",
        "lm_eval_version",
        "upper_git_hash",
    ] {
        put(key, Value::Null);
    }
    for key in [
        "tokenizer_pad_token",
        "tokenizer_eos_token",
        "tokenizer_bos_token",
        "eot_token_id",
    ] {
        put(key, Value::Null);
    }
    put("max_length", number(evaluated.fact("max_length")));
    put("task_hashes", json!(evaluated.task_hashes));
    put("model_source", json!("fineline"));
    put("model_name", json!(evaluated.model_name()));
    put("model_name_sanitized", json!(sanitized(&evaluated.model_name())));
    for key in ["system_instruction", "system_instruction_sha", "fewshot_as_multiturn"] {
        put(key, Value::Null);
    }
    for key in ["chat_template", "chat_template_sha"] {
        put(key, Value::Null);
    }
    let took = evaluated.evaluation.started_at.zip(evaluated.evaluation.finished_at);
    let took = took.map(|(from, to)| ((to - from).num_milliseconds() as f64 / 1e3).to_string());
    put("total_evaluation_time_seconds", json!(took));
    put(OWN_KEY, own(evaluated));
    Value::Object(file)
}

/// An object with those names for which there is a value.
fn object(names: &[&str], value: impl Fn(&str) -> Option<Value>) -> Value {
    let member = |name: &&str| Some(((*name).to_owned(), value(name)?));
    Value::Object(names.iter().filter_map(member).collect())
}

/// The scores of a task or group.
fn metrics(evaluated: &Evaluated, name: &str) -> Option<Value> {
    let n = evaluated.of(name).map(|score| score.n).max()?;
    let mut metrics = Map::new();
    metrics.insert("name".to_owned(), json!(name));
    metrics.insert("alias".to_owned(), json!(name));
    metrics.insert("sample_len".to_owned(), json!(n));
    for score in evaluated.of(name) {
        let Score { metric, filter, .. } = score;
        let of_ratios = score.stderr_method.as_deref() == Some(OF_RATIOS);
        let stderr = score
            .stderr
            .filter(|_| !of_ratios)
            .map_or(json!(NO_STDERR), |stderr| json!(stderr));
        metrics.insert(format!("{metric},{filter}"), json!(score.value));
        metrics.insert(format!("{metric}_stderr,{filter}"), stderr);
    }
    Some(Value::Object(metrics))
}

fn config(evaluated: &Evaluated, task: &str) -> Option<Value> {
    let mut config = evaluated.configs.get(task)?.clone();
    let n_shot = evaluated.of(task).next().map(|score| score.n_shot);
    config.insert("num_fewshot".to_owned(), json!(n_shot));
    Some(Value::Object(config))
}

/// A number where it is one, as lm-eval has it.
fn version(score: &Score) -> Value {
    let version = score.provenance.get("task_version");
    match version.and_then(|version| version.parse::<f64>().ok()) {
        Some(number) => json!(number),
        None => json!(version),
    }
}

fn higher_is_better(evaluated: &Evaluated, name: &str) -> Value {
    let member = |score: &Score| (score.metric.clone(), json!(score.higher_is_better));
    evaluated.of(name).map(member).collect()
}

/// How many documents the split has stands in a score's provenance; scores of before did not say, and then it is known only where
/// the limit did not cut it.
fn n_samples(evaluated: &Evaluated, score: &Score) -> Value {
    let is_cut = evaluated.suite.limit.is_some_and(|limit| score.n >= limit);
    let told = score.provenance.get("n_documents").and_then(|n| n.parse::<u64>().ok());
    let original = told.or((!is_cut).then_some(score.n));
    json!({ "original": original, "effective": score.n })
}

fn number(text: Option<&String>) -> Value {
    json!(text.and_then(|text| text.parse::<u64>().ok()))
}

fn run_config(evaluated: &Evaluated) -> Value {
    let Evaluated { evaluation, suite, .. } = evaluated;
    json!({
        "model": "fineline",
        "model_args": { "pretrained": evaluated.model_name(), "dtype": evaluation.dtype },
        "model_num_parameters": number(evaluated.fact("n_parameters")),
        "model_dtype": format!("torch.{}", evaluation.dtype),
        "model_revision": format!("step-{}", evaluated.checkpoint.step),
        "model_sha": evaluated.checkpoint.digest.map(|digest| digest.to_hex()),
        "batch_size": null,
        "batch_sizes": [],
        "device": null,
        "use_cache": null,
        "limit": suite.limit.map(|limit| limit as f64),
        "bootstrap_iters": 100_000,
        "gen_kwargs": {},
        "random_seed": null,
        "numpy_seed": null,
        "torch_seed": null,
        "fewshot_seed": number(evaluated.fact("fewshot_seed")),
    })
}

/// Where the scores are from, and each of them whole, with its provenance and the standard error that lm-eval has none for.
fn own(evaluated: &Evaluated) -> Value {
    let Evaluated {
        checkpoint, evaluation, ..
    } = evaluated;
    json!({
        "run": checkpoint.run,
        "step": checkpoint.step,
        "tokens": checkpoint.tokens,
        "checkpoint": checkpoint.digest,
        "weights_digest": checkpoint.weights_digest,
        "model_digest": evaluation.model_digest,
        "architecture": checkpoint.architecture,
        "evaluation": evaluation.id,
        "suite": evaluation.suite,
        "suite_digest": evaluation.suite_digest,
        "dtype": evaluation.dtype,
        "worker": evaluation.worker,
        "started_at": evaluation.started_at,
        "finished_at": evaluation.finished_at,
        "scores": evaluated.scores,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(task: &str, metric: &str, stderr_method: &str, n: u64) -> Value {
        json!({"run": "lab/a", "step": 7, "task": task, "metric": metric, "filter": "none", "value": 0.5, "stderr": 0.25,
            "stderr_method": stderr_method, "n": n, "n_shot": 5, "higher_is_better": true, "harness": "fineline",
            "checkpoint": digest(), "current": true, "provenance": {"task_version": "2.0", "n_parameters": "9"},
            "created_at": "2026-01-01T00:00:00Z"})
    }

    fn digest() -> String {
        fineline_format::Digest::of(b"x").to_string()
    }

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    /// A group of two tasks, cut by a limit that one of them did not reach.
    fn evaluated() -> Evaluated {
        let time = "2026-01-01T00:00:00Z";
        let task = |name: &str| json!({"task": name, "yaml": {"digest": digest(), "size_bytes": 1}, "data": {}});
        let scores = [
            score("t", "acc", "sample_mean", 100),
            score("u", "bits_per_byte", "ratio_over_documents", 9),
            score("g", "acc", "pooled", 100),
        ];
        Evaluated {
            checkpoint: read(
                json!({"run": "lab/a", "step": 7, "state": "ready", "current": true, "evaluable": true,
                "digest": digest(), "metadata": {}, "tags": [], "n_files": 1, "size_bytes": 1, "warnings": [],
                "evaluations": {"queued": 0, "leased": 0, "done": 1, "failed": 0, "parked": 0, "cancelled": 0},
                "created_at": time, "replaced": [], "same_model_steps": []}),
            ),
            evaluation: read(
                json!({"id": uuid::Uuid::nil(), "run": "lab/a", "step": 7, "checkpoint": digest(),
                "model_digest": digest(), "suite": "s", "suite_digest": digest(), "dtype": "bfloat16", "state": "done",
                "n_failures": 0, "n_expiries": 0, "created_at": time, "started_at": time,
                "finished_at": "2026-01-01T00:00:01.5Z"}),
            ),
            suite: read(json!({"suite": "s", "tasks": [task("t"), task("u")], "limit": 100,
                "groups": [{"group": "g", "tasks": ["t", "u"], "metrics": []}]})),
            configs: [("t".to_owned(), Map::new())].into(),
            scores: scores.into_iter().map(read).collect(),
            task_hashes: BTreeMap::new(),
        }
    }

    #[test]
    fn a_group_is_told_as_lm_eval_tells_it() {
        let file = results_file(&evaluated());
        let group = json!({"name": "g", "alias": "g", "sample_len": 100, "acc,none": 0.5, "acc_stderr,none": 0.25});
        assert_eq!((&file["groups"], &file["results"]["g"]), (&json!({"g": group}), &group));
        assert_eq!(file["group_subtasks"], json!({"g": ["t", "u"]}));
        assert_eq!(file["n-shot"], json!({"g": 5, "t": 5, "u": 5}));
        assert_eq!(file["configs"], json!({"t": {"num_fewshot": 5}}));
        assert_eq!(file["versions"]["t"], json!(2.0));
    }

    #[test]
    fn what_lm_eval_does_not_work_out_and_what_is_not_known_are_not_made_up() {
        let file = results_file(&evaluated());
        assert_eq!(file["results"]["u"]["bits_per_byte_stderr,none"], "N/A");
        assert_eq!(file[OWN_KEY]["scores"][1]["stderr"], 0.25);
        assert_eq!(file["n-samples"]["t"], json!({"original": null, "effective": 100}));
        assert_eq!(file["n-samples"]["u"], json!({"original": 9, "effective": 9}));
        let mut told = evaluated();
        told.scores[0]
            .provenance
            .insert("n_documents".to_owned(), "1319".to_owned());
        assert_eq!(
            results_file(&told)["n-samples"]["t"],
            json!({"original": 1319, "effective": 100})
        );
        assert_eq!(file["config"]["model_dtype"], "torch.bfloat16");
        assert_eq!(file["config"]["model_num_parameters"], 9);
        assert_eq!(file["config"]["fewshot_seed"], Value::Null);
        assert_eq!(file["total_evaluation_time_seconds"], "1.5");
    }
}
