//! Tasks of the library by the real command line against a real registry: listed without one, applied from a folder and a
//! bucket, scored.

use std::path::Path;
use std::process::Output;

use fineline_api::Binding;
use fineline_client::{PushOptions, ScoreQuery, push};
use fineline_format::library;
use harness::{TestServer, checkpoint, garage, load_fake, serve};
use serde_json::Value;

/// The command line without anything that this machine says.
fn command(arguments: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_client-under-test"));
    command
        .args(arguments)
        .env_remove("FINELINE_URL")
        .env_remove("FINELINE_TOKEN");
    command
}

/// `fineline suite apply` on all runs of `lab`.
async fn apply(server: &TestServer, arguments: &[&str], variables: &[(String, String)]) -> Output {
    let mut command = command(&["suite", "apply", "--run", "lab/*", "--json"]);
    command
        .args(arguments)
        .envs(variables.iter().map(|(name, value)| (name, value)));
    command
        .env("FINELINE_URL", &server.server.url)
        .env("FINELINE_TOKEN", &server.server.admin_token);
    command.output().await.unwrap()
}

fn bound(output: &Output) -> Binding {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn write(path: &Path, bytes: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Two questions of each of mmlu's subjects, all in one file.
fn questions() -> String {
    let tasks = library::find("mmlu").unwrap().tasks;
    let subjects = tasks.iter().filter_map(|task| task.task().strip_prefix("mmlu_"));
    let question = |subject: &str, i: usize| {
        format!(
            "{{\"question\": \"{subject} {i}\", \"subject\": \"{subject}\", \"choices\": [\"a\", \"b\", \"c\", \"d\"], \"answer\": {i}}}\n"
        )
    };
    subjects
        .flat_map(|subject| [question(subject, 0), question(subject, 3)])
        .collect()
}

#[tokio::test]
async fn the_library_is_listed_without_a_registry() {
    let output = command(&["suite", "list", "--json"]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<_> = listed.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, library::names());
    assert!(
        listed
            .iter()
            .all(|entry| entry["domain"].is_string() && entry["verified"].is_boolean())
    );
}

#[tokio::test]
async fn mmlu_is_applied_by_name_and_its_groups_are_scored() {
    let server = serve().await;
    let run = server.run("lab/run").await;
    let data = server.dir.path().join("sets");
    write(&data.join("mmlu/test.jsonl"), &questions());
    let folder = data.to_str().unwrap();
    // A split that shots are drawn from and that is not there is an error for the user, and nothing is bound.
    let refused = apply(&server, &["mmlu", "--data", folder, "--num-fewshot", "5"], &[]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("split `dev`") && said.contains("`mmlu/dev.jsonl`"),
        "{said}"
    );
    assert!(server.admin.list_bindings().await.unwrap().is_empty());
    // When it is applied without shots and a step is scored
    let output = apply(&server, &["mmlu", "--data", folder, "--limit", "1"], &[]).await;
    assert_eq!(bound(&output).suite, "mmlu");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["data"].as_array().unwrap().len(), 57);
    let dir = checkpoint(server.dir.path(), "a", 9000, 1);
    push(&server.admin, &run, 1, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    server.work(load_fake()).await;
    // Then there are scores of the groups, over one document of each subject.
    let query = |task: &str| ScoreQuery {
        task: Some(task.to_owned()),
        ..ScoreQuery::default()
    };
    for (task, n) in [("mmlu", 57), ("mmlu_stem", 19), ("mmlu_virology", 1)] {
        let page = server.admin.list_scores(&run, &query(task), None, None).await.unwrap();
        let scores: Vec<_> = page
            .items
            .iter()
            .map(|score| (score.metric.as_str(), score.n))
            .collect();
        assert_eq!(scores, [("acc", n)], "{task}");
    }
}

#[tokio::test]
async fn data_of_a_bucket_are_those_of_a_folder() {
    let Some(garage) = garage("it/library") else {
        return;
    };
    let server = serve().await;
    let bucket = garage.new_store();
    bucket.put("mmlu/test.jsonl", &questions()).await;
    bucket
        .put(
            "mmlu/virology/test.jsonl",
            "{\"question\": \"own\", \"choices\": [\"a\", \"b\", \"c\", \"d\"], \"answer\": 0}\n",
        )
        .await;
    let data = server.dir.path().join("sets");
    write(&data.join("mmlu/test.jsonl"), &questions());
    let variables = garage.variables();
    let source = bucket.url.clone();
    for (name, is_same) in [("mmlu_anatomy", true), ("mmlu_virology", false)] {
        let from_folder = bound(&apply(&server, &[name, "--data", data.to_str().unwrap()], &[]).await);
        let from_bucket = bound(&apply(&server, &[name, "--data", &source], &variables).await);
        assert_eq!(from_folder.suite_digest == from_bucket.suite_digest, is_same, "{name}");
    }
    // What is not there is told by its place; what may not be read as well, and without the secret.
    let missing = apply(&server, &["sciq", "--data", &source], &variables).await;
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(
        missing.status.code() == Some(1) && said.contains(&source) && said.contains("`sciq/test.jsonl`"),
        "{said}"
    );
    let mut wrong = variables.clone();
    wrong.push(("AWS_SECRET_ACCESS_KEY".to_owned(), "hush-hush".to_owned()));
    let refused = apply(&server, &["sciq", "--data", &source], &wrong).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(1) && said.contains("credentials"),
        "{said}"
    );
    assert!(!said.contains("hush"), "{said}");
}
