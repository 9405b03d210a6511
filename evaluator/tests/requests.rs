//! lm-eval's own requests, metrics and results without a model: every logged sample of every reference asks what we ask,
//! and its logged responses come to lm-eval's own numbers.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says why it skips"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use fineline_api::TaskScore;
use fineline_evaluator::engine::{Answer, Description, Engine, Generation, Progress};
use fineline_evaluator::task::{Overrides, PreparedTask};
use fineline_format::library;
use fineline_format::suite::EvalDtype;
use fineline_format::task::{DataFormat, OutputType, TaskFile};
use serde_json::Value;

/// The references were made with less text a sample than the task asks for.
const REFERENCE_MAX_GEN_TOKS: &str = "  temperature: 0.0\n  max_gen_toks: 64\n";

fn data() -> Option<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/lm_eval");
    if data.is_dir() {
        return Some(data);
    }
    println!("skipped: evaluator/requests: there is no ../shared/data beside the clone");
    None
}

/// Says what lm-eval logged, in the order of the requests.
struct Replay {
    answers: Vec<Answer>,
    texts: Vec<String>,
}

impl Engine for Replay {
    fn loglikelihood(&mut self, requests: &[(String, String)], _: Progress<'_>) -> Result<Vec<Answer>> {
        ensure!(requests.len() == self.answers.len(), "{} requests", requests.len());
        Ok(self.answers.clone())
    }

    fn loglikelihood_rolling(&mut self, documents: &[String], _: Progress<'_>) -> Result<Vec<f64>> {
        ensure!(documents.len() == self.answers.len(), "{} documents", documents.len());
        Ok(self.answers.iter().map(|answer| answer.log_likelihood).collect())
    }

    fn generate_until(&mut self, requests: &[Generation], _: Progress<'_>) -> Result<Vec<String>> {
        ensure!(requests.len() == self.texts.len(), "{} prompts", requests.len());
        Ok(self.texts.clone())
    }

    fn describe(&self) -> Description {
        Description {
            max_length: 1,
            bos_policy: "none".to_owned(),
            dtype: EvalDtype::Float32,
            computed_in: EvalDtype::Float32,
            n_parameters: 0,
        }
    }
}

impl Replay {
    /// What the samples of one filter say.
    fn of(samples: &[Value]) -> Self {
        let mut replay = Self {
            answers: Vec::new(),
            texts: Vec::new(),
        };
        for response in samples.iter().flat_map(|sample| sample["resps"].as_array().unwrap()) {
            match &response[0] {
                Value::Array(pair) => replay.answers.push(Answer {
                    log_likelihood: number(&pair[0]),
                    is_greedy: pair[1].as_bool().unwrap_or_else(|| pair[1] == "True"),
                }),
                Value::String(text) => {
                    // A rolling log-likelihood is logged as text too.
                    replay.answers.extend(text.parse().ok().map(|log_likelihood| Answer {
                        log_likelihood,
                        is_greedy: false,
                    }));
                    replay.texts.push(text.clone());
                }
                value => replay.answers.push(Answer {
                    log_likelihood: number(value),
                    is_greedy: false,
                }),
            }
        }
        replay
    }
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A task's YAML and its files by split.
type Task = (String, BTreeMap<String, Vec<Vec<u8>>>);

/// The tasks by their names, with their data.
fn tasks(data: &Path) -> BTreeMap<String, Task> {
    let dir = data.join("tasks");
    let mut tasks = BTreeMap::new();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let yaml = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let yaml = yaml.replace("  temperature: 0.0\n", REFERENCE_MAX_GEN_TOKS);
        let file = TaskFile::parse(&yaml).unwrap();
        let read = |path: &String| std::fs::read(dir.join(path)).unwrap();
        let files = file.data_files.iter();
        let files = files.map(|(split, paths)| (split.clone(), paths.iter().map(read).collect()));
        tasks.insert(file.task, (yaml, files.collect()));
    }
    tasks
}

/// The references of a model: results by task, with the shots that they were made with.
fn results(dir: &Path) -> BTreeMap<String, (Value, u32)> {
    let mut results = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            for (task, result) in file["results"].as_object().unwrap() {
                let n_shot = file["n-shot"][task].as_u64().unwrap();
                results.insert(task.clone(), (result.clone(), n_shot as u32));
            }
        }
    }
    results
}

fn assert_same_sample(task: &str, ours: &Value, theirs: &Value) {
    let place = format!("{task} {}", theirs["doc_id"]);
    assert_eq!(ours["arguments"], theirs["arguments"], "{place}");
    for field in [
        "doc_id",
        "target",
        "filter",
        "metrics",
        "doc_hash",
        "prompt_hash",
        "target_hash",
    ] {
        assert_eq!(ours[field], theirs[field], "{place} {field}");
    }
    if ours["filter"] != "none" {
        assert_eq!(ours["filtered_resps"], theirs["filtered_resps"], "{place}");
    }
    for metric in theirs["metrics"].as_array().unwrap() {
        let metric = metric.as_str().unwrap();
        match (&ours[metric], &theirs[metric]) {
            (Value::Array(ours), Value::Array(theirs)) => {
                let both = ours.iter().zip(theirs);
                both.for_each(|(ours, theirs)| assert_eq!(number(ours), number(theirs), "{place} {metric}"));
            }
            (ours, theirs) => assert_eq!(number(ours), number(theirs), "{place} {metric}"),
        }
    }
}

fn assert_same_score(task: &str, score: &TaskScore, result: &Value) {
    let near = |ours: f64, theirs: f64| (ours - theirs).abs() <= 1e-9 * theirs.abs().max(1.0);
    let TaskScore { metric, filter, .. } = score;
    let value = number(&result[format!("{metric},{filter}")]);
    assert!(near(score.value, value), "{task} {metric}: {} {value}", score.value);
    match &result[format!("{metric}_stderr,{filter}")] {
        Value::Number(stderr) => {
            let (ours, theirs) = (score.stderr.unwrap(), stderr.as_f64().unwrap());
            assert!(near(ours, theirs), "{task} {metric} stderr: {ours} {theirs}");
        }
        none => {
            assert_eq!(none, "N/A", "{task} {metric}");
            assert_eq!(score.stderr_method.as_deref(), Some("ratio_over_documents"));
        }
    }
}

/// Runs a task on what was logged of every reference of its name, and compares; gives the samples and scores that are the same.
fn replayed(data: &Path, tasks: &BTreeMap<String, Task>) -> (usize, usize) {
    let (mut n_samples, mut n_scores) = (0, 0);
    for model in ["stories260K", "run-step-000512", "run-step-003000"] {
        let dir = data.join("reference").join(model);
        for (task, (result, n_shot)) in results(&dir) {
            let Some((yaml, files)) = tasks.get(&task) else {
                continue;
            };
            let theirs = lines(&std::fs::read(dir.join(format!("samples_{task}.jsonl"))).unwrap());
            let n = theirs
                .iter()
                .filter(|sample| sample["filter"] == theirs[0]["filter"])
                .count();
            let overrides = Overrides {
                limit: Some(n as u64),
                num_fewshot: Some(n_shot),
            };
            let prepared = PreparedTask::new(yaml, files, overrides).unwrap();
            let ours = prepared.run(&mut Replay::of(&theirs[..n]), &mut |_| Ok(())).unwrap();
            let logged = lines(&ours.samples_jsonl);
            assert_eq!(logged.len(), theirs.len(), "{task}");
            for (ours, theirs) in logged.iter().zip(&theirs) {
                assert_same_sample(&task, ours, theirs);
            }
            for score in &ours.scores {
                assert_same_score(&task, score, &result);
                assert_eq!((score.n, score.n_shot), (n as u64, n_shot), "{task}");
            }
            n_samples += logged.len();
            n_scores += ours.scores.len();
        }
    }
    (n_samples, n_scores)
}

#[test]
fn requests_metrics_and_results_are_lm_evals() {
    let Some(data) = data() else { return };
    let (n_samples, n_scores) = replayed(&data, &tasks(&data));
    println!("requests: {n_samples} samples and {n_scores} scores are lm-eval's");
    assert!(n_samples > 4000 && n_scores > 50);
}

/// The library's YAML with the data of the local tasks of the same names. Where those score another split, for want of the
/// right one, its documents stand for it: what is asked of a document is the same.
#[test]
fn the_library_gives_what_lm_eval_gives() {
    let Some(data) = data() else { return };
    let mut of_library = BTreeMap::new();
    for (name, (yaml, mut files)) in tasks(&data) {
        let known = match name.trim_start_matches("local_") {
            "val_rolling" => "perplexity",
            known => known,
        };
        let Some(task) = library::find(known).map(|mut found| found.tasks.remove(0)) else {
            continue;
        };
        assert!(task.facts.verified, "{known}");
        let scored = TaskFile::parse(&yaml).unwrap().scored_split;
        let documents = files.remove(&scored).unwrap();
        files.insert(task.file.scored_split.clone(), documents);
        let splits: Vec<String> = files.keys().cloned().collect();
        let yaml = task.yaml(DataFormat::Json, &splits).unwrap();
        of_library.insert(
            name,
            (yaml.replace("  temperature: 0.0\n", REFERENCE_MAX_GEN_TOKS), files),
        );
    }
    let (n_samples, n_scores) = replayed(&data, &of_library);
    let n = of_library.len();
    println!("requests: {n_samples} samples and {n_scores} scores of {n} tasks of the library are lm-eval's");
    assert!(
        n == 13 && n_samples > 3000 && n_scores > 40,
        "{n} {n_samples} {n_scores}"
    );
}

#[test]
fn every_task_makes_its_requests() {
    let Some(data) = data() else { return };
    for (task, (yaml, files)) in tasks(&data) {
        let n_shot = TaskFile::parse(&yaml).unwrap().num_fewshot;
        let overrides = Overrides {
            limit: Some(20),
            num_fewshot: None,
        };
        let prepared = PreparedTask::new(&yaml, &files, overrides).unwrap();
        assert!(prepared.n_requests() >= 20, "{task}");
        // Shots of what is scored itself: one more is drawn and the document is no shot of its own.
        if n_shot.is_none() && TaskFile::parse(&yaml).unwrap().output_type != OutputType::LoglikelihoodRolling {
            let with_shots = PreparedTask::new(
                &yaml,
                &files,
                Overrides {
                    num_fewshot: Some(2),
                    ..overrides
                },
            );
            for (bare, shot) in prepared.requests().zip(with_shots.unwrap().requests()) {
                assert!(
                    shot.0.ends_with(&bare.0) || bare.0.starts_with("The following"),
                    "{task}"
                );
                assert!(shot.0.len() > bare.0.len() && shot.1 == bare.1, "{task}");
            }
        }
    }
}
