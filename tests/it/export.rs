//! A checkpoint's scores in lm-eval's files: written whole, in lm-eval's keys, and read by our own comparison.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use fineline_client::{PushOptions, ScoreQuery, apply_suite, push};
use fineline_evaluator::candle::engine::CandleEngine;
use fineline_evaluator::engine::Engine;
use harness::{TestServer, grammar_suite, serve, tiny_llama};
use serde_json::{Map, Value};

/// A server whose run `lab/run` has step 1 with the scores of the suite of real tasks; and the tasks' names.
async fn scored() -> (TestServer, Vec<String>) {
    let server = serve().await;
    let (file, tasks) = grammar_suite(server.dir.path(), 3);
    let model = tiny_llama(server.dir.path(), "model", 7);
    score(&server, &file, &model).await;
    (server, tasks)
}

/// Evaluates a model as step 1 of `lab/run`.
async fn score(server: &TestServer, suite: &Path, model: &Path) {
    let run = server.run("lab/run").await;
    apply_suite(&server.admin, suite, &"lab/*".parse().unwrap(), false)
        .await
        .unwrap();
    push(&server.admin, &run, 1, model, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let load = |dir: &Path, options| {
        let engine = CandleEngine::load(dir, &candle_core::Device::Cpu, options)?;
        Ok(Box::new(engine) as Box<dyn Engine>)
    };
    server.work(Arc::new(load)).await;
}

#[expect(clippy::print_stdout, reason = "a test says why it skips")]
fn shared_data() -> Option<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if data.is_dir() {
        return Some(data);
    }
    println!("skipped: it/export: there is no ../shared/data beside the clone");
    None
}

async fn fineline(server: &TestServer, args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_client-under-test"));
    command.args(args);
    command
        .env("FINELINE_URL", &server.server.url)
        .env("FINELINE_TOKEN", &server.server.admin_token);
    command.output().await.unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn first(value: &Value) -> &Value {
    value.as_object().unwrap().values().next().unwrap()
}

/// Every key that lm-eval writes is there; of those that are tasks or metrics, one of each.
fn has_the_keys_of(ours: &Value, theirs: &Value) {
    let mut expected = keys(theirs);
    expected.insert(fineline_client::OWN_KEY);
    assert_eq!(keys(ours), expected);
    assert_eq!(keys(&ours["config"]), keys(&theirs["config"]));
    for name in ["n-samples", "higher_is_better"] {
        assert_eq!(
            first(&ours[name]).as_object().map(Map::len).is_some(),
            first(&theirs[name]).is_object(),
            "{name}"
        );
    }
    assert_eq!(keys(first(&ours["n-samples"])), keys(first(&theirs["n-samples"])));
    // By a task whose one metric is that of the grammar's tasks.
    assert_eq!(keys(first(&ours["results"])), keys(&theirs["results"]["local_boolq"]));
    for name in ["versions", "n-shot"] {
        assert_eq!(
            first(&ours[name]).is_number(),
            first(&theirs[name]).is_number(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn an_export_has_lm_evals_form_and_is_the_same_as_itself() {
    let (server, tasks) = scored().await;
    let out = server.dir.path().join("out");
    let to = out.to_str().unwrap();
    let output = fineline(&server, &["eval", "export", "lab/run@1", to]).await;
    assert!(output.status.success(), "{output:?}");
    let folder = out.join("lab__run@step-1");
    let written = files(&folder);
    assert_eq!(written.len(), tasks.len() + 1, "{written:?}");
    let results = read(&written[0]);
    // All scores are there, to the last bit, and what lm-eval has no key for under ours.
    let run = "lab/run".parse().unwrap();
    let scores = server
        .admin
        .list_scores(&run, &ScoreQuery::default(), None, Some(1000))
        .await
        .unwrap();
    assert!(!scores.items.is_empty());
    for score in &scores.items {
        let key = format!("{},{}", score.metric, score.filter);
        let value = results["results"][&score.task][key].as_f64().unwrap();
        assert_eq!(value.to_bits(), score.value.to_bits(), "{score:?}");
    }
    let own = results[fineline_client::OWN_KEY]["scores"].as_array().unwrap();
    assert_eq!(own.len(), scores.items.len());
    for fact in ["bos_policy", "prompts_digest", "bootstrap_seed", "task_version"] {
        assert!(own.iter().all(|score| score["provenance"][fact].is_string()), "{fact}");
    }
    for fact in ["dtype", "harness_version"] {
        assert!(own.iter().all(|score| score[fact].is_string()), "{fact}");
    }
    if let Some(data) = shared_data() {
        let theirs = read(&data.join("lm_eval/reference/run-step-000512/results_all.json"));
        has_the_keys_of(&results, &theirs);
    }
    let output = fineline(&server, &["--json", "eval", "compare", to, to]).await;
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert_eq!(told["tasks"].as_array().unwrap().len(), tasks.len());
    assert!(
        told["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|task| task["n_compared"] != 0)
    );
}

#[tokio::test]
async fn what_is_there_is_replaced_only_when_that_is_asked() {
    let (server, tasks) = scored().await;
    let out = server.dir.path().join("out");
    let to = out.to_str().unwrap();
    let export = async |more: &[&str]| {
        let args = [&["eval", "export", "lab/run@latest", to], more].concat();
        fineline(&server, &args).await
    };
    assert!(export(&[]).await.status.success());
    let folder = out.join("lab__run@step-1");
    let log = files(&folder).pop().unwrap();
    std::fs::write(&log, "mine").unwrap();
    let refused = export(&[]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("--overwrite"),
        "{refused:?}"
    );
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "mine");
    assert!(export(&["--overwrite"]).await.status.success());
    assert_ne!(std::fs::read_to_string(&log).unwrap(), "mine");
    assert_eq!(
        files(&folder).len(),
        tasks.len() + 1,
        "nothing is left of what was refused"
    );
    let none = export(&["--suite", "other"]).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&none.stderr).contains("suite `other`"),
        "{none:?}"
    );
}

#[tokio::test]
async fn an_export_is_the_same_as_lm_evals_own_output_of_the_model() {
    let Some(data) = shared_data() else { return };
    // Given a real checkpoint that is scored as lm-eval scored it
    let server = serve().await;
    let task = |name: &str| format!("{}/lm_eval/tasks/{name}.yaml", data.display());
    let tasks = ["arc_easy", "copa", "val_rolling", "winogrande"];
    let suite = serde_json::json!({"suite": "s", "limit": 100, "tasks": tasks.map(task)});
    let file = server.dir.path().join("suite.yaml");
    std::fs::write(&file, suite.to_string()).unwrap();
    score(&server, &file, &data.join("run/step-003000")).await;
    // When it is exported and compared
    let out = server.dir.path().join("out");
    let to = out.to_str().unwrap();
    assert!(
        fineline(&server, &["eval", "export", "lab/run@1", to])
            .await
            .status
            .success()
    );
    let theirs = data.join("lm_eval/reference/run-step-003000");
    let args = [
        "--json",
        "eval",
        "compare",
        theirs.to_str().unwrap(),
        to,
        "--only-common",
    ];
    let output = fineline(&server, &args).await;
    // Then all samples of those tasks are there, and nothing differs.
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told["breaches"]);
    let rows = told["tasks"].as_array().unwrap();
    for task in tasks {
        let name = format!("local_{task}");
        let row = rows.iter().find(|row| row["task"] == name.as_str()).unwrap();
        assert_eq!(row["n_compared"], 100, "{row}");
        assert_eq!([&row["n_only_a"], &row["n_only_b"]], [0, 0], "{row}");
    }
}
