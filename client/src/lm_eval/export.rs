//! Writing a checkpoint's scores and sample logs as lm-eval 0.4.13 would have: a results file an evaluation, and a log a
//! task, in the folder that lm-eval would make for the model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use fineline_api::score::OWN_HARNESS;
use fineline_api::{Checkpoint, Evaluation, EvaluationState, Reference, RunName, Score};
use fineline_format::task::RawTask;
use fineline_format::{Digest, Hasher};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::names::{as_texts, date_id, sanitized};
use super::pending::Pending;
use super::results_file::{Evaluated, model_name, results_file};
use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::http::Client;
use crate::page::all_pages;
use crate::score::ScoreQuery;

/// What is exported, and how.
#[derive(Debug, Clone, Default)]
pub struct ExportOptions {
    /// Only the suite of this name or digest.
    pub suite: Option<String>,
    /// Replaces files that are there.
    pub overwrite: bool,
}

/// What was exported.
#[derive(Debug, Serialize)]
pub struct ExportOutcome {
    /// The folder of the model.
    pub folder: PathBuf,
    /// What was written; nothing when the checkpoint has no scores of ours.
    pub files: Vec<PathBuf>,
    /// What was left out and why, for people.
    pub notes: Vec<String>,
}

/// Writes the scores of a checkpoint and their sample logs below `dir`, in a folder named as the model.
///
/// # Errors
/// [`Error::Folder`] when a file is there already; as every call.
pub async fn export_results(
    client: &Client,
    run: &RunName,
    reference: &Reference,
    dir: &Path,
    options: &ExportOptions,
) -> Result<ExportOutcome> {
    let checkpoint = client.get_checkpoint(run, reference).await?;
    let folder = dir.join(sanitized(&model_name(&checkpoint)));
    let mut notes = Vec::new();
    let mut files = Vec::new();
    let evaluations = evaluations(client, &checkpoint, options, &mut notes).await?;
    if !evaluations.is_empty() {
        let (folder, overwrite) = (folder.clone(), options.overwrite);
        let mut pending = blocking(move || Pending::new(&folder, overwrite)).await?;
        let mut times = BTreeSet::new();
        for (evaluation, scores) in evaluations {
            let date = date_id(unused(
                evaluation.finished_at.unwrap_or(evaluation.created_at),
                &mut times,
            ));
            let evaluated = evaluated(client, &checkpoint, evaluation, scores).await?;
            pending = write(client, pending, evaluated, &date, &mut notes).await?;
        }
        files = blocking(move || pending.commit()).await?;
    }
    Ok(ExportOutcome { folder, files, notes })
}

/// Writes the files of an evaluation, the results file last.
async fn write(
    client: &Client,
    mut files: Pending,
    mut evaluated: Evaluated,
    date: &str,
    notes: &mut Vec<String>,
) -> Result<Pending> {
    let tasks: Vec<String> = evaluated.suite.tasks.iter().map(|task| task.task.clone()).collect();
    for task in tasks {
        let log = match client.get_samples(evaluated.evaluation.id, &task).await {
            Ok(log) => log,
            Err(Error::NotFound(_)) => {
                notes.push(format!("task `{task}` has no sample log"));
                continue;
            }
            Err(error) => return Err(error),
        };
        let name = format!("samples_{}_{date}.jsonl", sanitized(&task));
        let write = move || -> Result<_> {
            let (text, hash) = as_lm_eval(&log).map_err(|reason| unreadable(&task, &reason))?;
            files.add(&name, &text)?;
            Ok((files, task, hash))
        };
        let (written, task, hash) = blocking(write).await?;
        files = written;
        evaluated.task_hashes.insert(task, hash);
    }
    let name = format!("results_{date}.json");
    let write = move || -> Result<_> {
        let text = serde_json::to_string_pretty(&results_file(&evaluated)).expect("it is JSON");
        files.add(&name, text.as_bytes())?;
        Ok(files)
    };
    blocking(write).await
}

/// The evaluations whose scores the checkpoint has, from the first that ended to the last, with those scores.
async fn evaluations(
    client: &Client,
    checkpoint: &Checkpoint,
    options: &ExportOptions,
    notes: &mut Vec<String>,
) -> Result<Vec<(Evaluation, Vec<Score>)>> {
    let query = ScoreQuery {
        step_min: Some(checkpoint.step),
        step_max: Some(checkpoint.step),
        harness: Some(OWN_HARNESS.to_owned()),
        all_revisions: true,
        ..ScoreQuery::default()
    };
    let page = async |cursor: Option<String>| {
        client
            .list_scores(&checkpoint.run, &query, cursor.as_deref(), Some(1000))
            .await
    };
    let mut by_evaluation: BTreeMap<Uuid, Vec<Score>> = BTreeMap::new();
    for score in all_pages(page).await? {
        let is_its = Some(score.checkpoint) == checkpoint.digest;
        if let Some(id) = score.evaluation.filter(|_| is_its) {
            by_evaluation.entry(id).or_default().push(score);
        }
    }
    let mut evaluations = Vec::with_capacity(by_evaluation.len());
    for (id, scores) in by_evaluation {
        let evaluation = client.get_evaluation(id).await?;
        let is_asked = |suite: &String| *suite == evaluation.suite || *suite == evaluation.suite_digest.to_string();
        if !options.suite.as_ref().is_none_or(is_asked) {
            continue;
        }
        if evaluation.state != EvaluationState::Done {
            let (suite, state) = (&evaluation.suite, evaluation.state);
            notes.push(format!("suite `{suite}` is left out: its evaluation is {state}"));
            continue;
        }
        evaluations.push((evaluation, scores));
    }
    evaluations.sort_by_key(|(evaluation, _)| (evaluation.finished_at, evaluation.id));
    Ok(evaluations)
}

/// Two evaluations may end in one moment; the time in their files' names tells them apart.
fn unused(mut time: DateTime<Utc>, used: &mut BTreeSet<DateTime<Utc>>) -> DateTime<Utc> {
    while !used.insert(time) {
        time += TimeDelta::microseconds(1);
    }
    time
}

async fn evaluated(
    client: &Client,
    checkpoint: &Checkpoint,
    evaluation: Evaluation,
    scores: Vec<Score>,
) -> Result<Evaluated> {
    let suite = client.get_suite(evaluation.suite_digest).await?;
    let mut configs = BTreeMap::new();
    for task in &suite.tasks {
        let yaml = client.get_suite_blob(evaluation.suite_digest, task.yaml.digest).await?;
        let raw = std::str::from_utf8(&yaml).map_err(|error| error.to_string());
        let raw = raw.and_then(|text| RawTask::parse(text).map_err(|error| error.to_string()));
        let raw = raw.map_err(|reason| unreadable(&task.task, &reason))?;
        configs.insert(task.task.clone(), raw.to_json());
    }
    Ok(Evaluated {
        checkpoint: checkpoint.clone(),
        evaluation,
        suite,
        configs,
        scores,
        task_hashes: BTreeMap::new(),
    })
}

fn unreadable(task: &str, reason: &str) -> Error {
    Error::Folder(format!(
        "what the registry has of task `{task}` can't be read: {reason}"
    ))
}

/// A log as lm-eval writes it, with responses as texts, and the task's hash: SHA-256 of the three hashes of every line.
fn as_lm_eval(log: &[u8]) -> std::result::Result<(Vec<u8>, String), String> {
    let mut text = Vec::with_capacity(log.len() + log.len() / 16);
    let mut hasher = Hasher::new();
    for (i, line) in log.split(|&byte| byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let mut line: Map<String, Value> =
            serde_json::from_slice(line).map_err(|error| format!("line {}: {error}", i + 1))?;
        for name in ["resps", "filtered_resps"] {
            if let Some(said) = line.get_mut(name) {
                *said = as_texts(said);
            }
        }
        for name in ["doc_hash", "prompt_hash", "target_hash"] {
            hasher.update(line.get(name).and_then(Value::as_str).unwrap_or_default().as_bytes());
        }
        serde_json::to_writer(&mut text, &line).map_err(|error| error.to_string())?;
        text.push(b'\n');
    }
    let hash: Digest = hasher.finish();
    Ok((text, hash.to_hex()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ends_in_one_moment_have_two_names() {
        let (time, mut used) = (DateTime::UNIX_EPOCH, BTreeSet::new());
        let names = [(); 3].map(|()| date_id(unused(time, &mut used)));
        assert_eq!(names[0], "1970-01-01T00-00-00.000000");
        assert_eq!(names[2], "1970-01-01T00-00-00.000002");
    }

    #[test]
    fn a_log_is_written_with_texts_and_hashed() {
        let line = r#"{"doc_id":0,"resps":[[[-1.5,true]]],"filtered_resps":["a"],"doc_hash":"a","prompt_hash":"b","target_hash":"c"}"#;
        let (text, hash) = as_lm_eval(format!("{line}\n").as_bytes()).unwrap();
        let expected = line.replace("[-1.5,true]", r#"["-1.5","True"]"#) + "\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        assert_eq!(hash, Digest::of(b"abc").to_hex());
        assert!(as_lm_eval(b"{}\n[").unwrap_err().contains("line 2"));
    }

    #[test]
    fn a_tasks_hash_is_lm_evals() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/lm_eval/reference/run-step-000512");
        if !folder.is_dir() {
            println!("skipped: client/export: there is no ../shared/data beside the clone");
            return;
        }
        let results: Value = serde_json::from_slice(&std::fs::read(folder.join("results_all.json")).unwrap()).unwrap();
        let hashes = results["task_hashes"].as_object().unwrap();
        assert!(!hashes.is_empty());
        for (task, hash) in hashes {
            let log = std::fs::read(folder.join(format!("samples_{task}.jsonl"))).unwrap();
            assert_eq!(as_lm_eval(&log).unwrap().1, hash.as_str().unwrap(), "{task}");
        }
    }
}
