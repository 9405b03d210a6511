//! Sources that are folders: what is there comes in by itself, whole and once, whatever happens to the server.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fineline_api::source::{SourceState, SourceStepState};
use fineline_api::{Checkpoint, CreateSource, EvaluationState, Reference, RunName, Source, SourceLocation, SourceStep};
use fineline_client::{Client, EvaluationQuery, PushOptions, PushOutcome, apply_suite, push};
use fineline_format::Digest;
use harness::{ServerProcess, Start, TestServer, checkpoint, serve_with, suite, until};
use tempfile::TempDir;

mod changed;
mod hub;
mod refused;
mod trouble;

const REGISTRY: &str = env!("CARGO_BIN_EXE_registry-under-test");

/// A server that may read below a folder, and the folder.
async fn serve_root() -> (TestServer, TempDir) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_owned();
    let server = serve_with(|options| options.reach.roots.push(path)).await;
    (server, root)
}

/// A source that is a folder and takes what is there at once.
fn folder_source(name: &str, run: &RunName, path: &Path) -> CreateSource {
    let location = SourceLocation::Folder {
        path: path.to_str().unwrap().to_owned(),
    };
    CreateSource {
        settle_s: Some(0),
        ..CreateSource::new(name, run.clone(), location)
    }
}

/// Waits until a source has nothing left to do, or has looked and waits.
async fn looked_at(client: &Client, name: &str) -> (Source, Vec<SourceStep>) {
    let mut source = client.get_source(name).await.unwrap();
    until(async || {
        source = client.get_source(name).await.unwrap();
        source.synced_at.is_some() && source.state == SourceState::Done
    })
    .await;
    let steps = client.list_source_steps(name).await.unwrap();
    (source, steps)
}

async fn step_of(client: &Client, run: &RunName, step: u64) -> fineline_client::Result<Checkpoint> {
    client.get_checkpoint(run, &Reference::Step(step)).await
}

/// The checkpoint that a push of a folder makes.
async fn pushed(client: &Client, run: &RunName, step: u64, dir: &Path) -> Digest {
    let PushOutcome { digest, .. } = push(client, run, step, dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    digest
}

async fn bind_suite(client: &Client, dir: &Path, pattern: &str) {
    apply_suite(client, &suite(dir), &pattern.parse().unwrap(), false)
        .await
        .unwrap();
}

/// The steps of all evaluations of a run, sorted: one that stands there twice was queued twice.
async fn evaluated_steps(client: &Client, run: &RunName) -> Vec<u64> {
    let query = EvaluationQuery {
        run: Some(run.clone()),
        ..EvaluationQuery::default()
    };
    let page = client.list_evaluations(&query, None, None).await.unwrap();
    let mut steps: Vec<u64> = page.items.iter().map(|evaluation| evaluation.step).collect();
    assert!(
        page.items
            .iter()
            .all(|evaluation| evaluation.state == EvaluationState::Queued)
    );
    steps.sort_unstable();
    steps
}

#[tokio::test]
async fn folders_become_the_steps_that_a_push_of_them_would_and_are_evaluated_once() {
    let (server, root) = serve_root().await;
    let (run, other) = (server.run("lab/run").await, server.run("lab/pushed").await);
    bind_suite(&server.admin, server.dir.path(), "lab/run").await;
    let names = [("step-1", 1), ("global_step20", 20), ("checkpoint-300", 300)];
    for (seed, (name, _)) in (1..).zip(names) {
        let dir = checkpoint(root.path(), name, 40_000, seed);
        std::fs::write(dir.join("optimizer.pt"), "no part of a model").unwrap();
        std::fs::write(
            dir.join("trainer_state.json"),
            format!(r#"{{"loss": {seed}.5, "tokens_seen": {seed}000}}"#),
        )
        .unwrap();
    }
    checkpoint(root.path(), "final", 40_000, 9);
    server
        .admin
        .create_source(&folder_source("s", &run, root.path()))
        .await
        .unwrap();
    let (source, steps) = looked_at(&server.admin, "s").await;
    assert_eq!(source.error, None);
    assert_eq!(source.n_steps[&SourceStepState::Ready], 3);
    assert_eq!(
        steps.last().unwrap().state,
        SourceStepState::Ignored,
        "`final` says no step"
    );

    for ((name, step), came) in names.into_iter().zip(&steps) {
        assert_eq!(
            (came.step, came.state),
            (Some(step), SourceStepState::Ready),
            "{came:?}"
        );
        std::fs::remove_file(root.path().join(name).join("optimizer.pt")).unwrap();
        let same = pushed(&server.admin, &other, step, &root.path().join(name)).await;
        let checkpoint = step_of(&server.admin, &run, step).await.unwrap();
        assert_eq!(checkpoint.digest, Some(same), "the same files make the same checkpoint");
        assert_eq!(
            checkpoint.label.as_deref(),
            (name != "step-1").then_some(name).or(Some("step-1"))
        );
        assert!(
            checkpoint.loss.is_some() && checkpoint.tokens.is_some(),
            "the trainer's state is read"
        );
    }
    assert_eq!(evaluated_steps(&server.admin, &run).await, [1, 20, 300]);

    // The same again brings nothing.
    server.admin.sync_source("s").await.unwrap();
    until(async || {
        let again = server.admin.get_source("s").await.unwrap();
        again.synced_at > source.synced_at && again.state == SourceState::Done
    })
    .await;
    assert_eq!(evaluated_steps(&server.admin, &run).await, [1, 20, 300]);
}

#[tokio::test]
async fn a_half_uploaded_step_waits_says_for_what_and_comes_when_it_is_whole() {
    let (server, root) = serve_root().await;
    let run = server.run("lab/run").await;
    let whole = checkpoint(root.path(), "whole", 1000, 1);
    let dir = root.path().join("run/step-5");
    std::fs::create_dir_all(&dir).unwrap();
    let index = r#"{"metadata": {"total_size": 2000}, "weight_map": {"w": "model-00002-of-00002.safetensors"}}"#;
    std::fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
    std::fs::write(dir.join("config.json"), "{}").unwrap();
    std::fs::copy(
        whole.join("model.safetensors"),
        dir.join("model-00002-of-00002.safetensors"),
    )
    .unwrap();
    let new = CreateSource {
        interval_s: Some(3600),
        ..folder_source("s", &run, &root.path().join("run"))
    };
    server.admin.create_source(&new).await.unwrap();
    let waits_for = async |word: &str| {
        let mut step = None;
        until(async || {
            step = server.admin.list_source_steps("s").await.unwrap().pop();
            step.as_ref()
                .is_some_and(|step| step.message.as_ref().is_some_and(|message| message.contains(word)))
        })
        .await;
        step.unwrap()
    };
    // By its name it is the second shard of two.
    assert_eq!(waits_for("shard 1").await.state, SourceStepState::Waiting);
    std::fs::rename(dir.join("model-00002-of-00002.safetensors"), dir.join("model.bin")).unwrap();
    server.admin.sync_source("s").await.unwrap();
    // Only the index tells that one is missing now.
    assert_eq!(
        waits_for("it names shard `model-00002-of-00002.safetensors`")
            .await
            .state,
        SourceStepState::Waiting
    );
    assert!(
        step_of(&server.admin, &run, 5).await.is_err(),
        "nothing half-done is visible"
    );
    std::fs::remove_file(dir.join("model.safetensors.index.json")).unwrap();
    std::fs::rename(dir.join("model.bin"), dir.join("model.safetensors")).unwrap();
    server.admin.sync_source("s").await.unwrap();
    until(async || step_of(&server.admin, &run, 5).await.is_ok()).await;
}

#[tokio::test]
async fn a_step_that_changes_becomes_a_new_revision_with_a_warning() {
    let (server, root) = serve_root().await;
    let run = server.run("lab/run").await;
    checkpoint(root.path(), "step-5", 1000, 1);
    server
        .admin
        .create_source(&folder_source("s", &run, root.path()))
        .await
        .unwrap();
    let (_, steps) = looked_at(&server.admin, "s").await;
    let first = steps[0].checkpoint.unwrap();
    checkpoint(root.path(), "step-5", 1000, 2);
    server.admin.sync_source("s").await.unwrap();
    until(async || {
        let now = step_of(&server.admin, &run, 5).await.unwrap();
        now.digest != Some(first)
    })
    .await;
    let (_, steps) = looked_at(&server.admin, "s").await;
    assert!(
        steps[0].warnings[0].contains("changed in the source"),
        "{:?}",
        steps[0].warnings
    );
    let before = server
        .admin
        .get_checkpoint(&run, &Reference::Digest(first))
        .await
        .unwrap();
    assert!(!before.current, "the first one is there and not current");
}

#[tokio::test]
async fn a_step_that_somebody_pushed_is_not_replaced() {
    let (server, root) = serve_root().await;
    let run = server.run("lab/run").await;
    let other = checkpoint(server.dir.path(), "other", 1000, 7);
    let theirs = pushed(&server.admin, &run, 5, &other).await;
    checkpoint(root.path(), "step-5", 1000, 1);
    let new = CreateSource {
        interval_s: Some(3600),
        ..folder_source("s", &run, root.path())
    };
    server.admin.create_source(&new).await.unwrap();
    until(async || {
        let steps = server.admin.list_source_steps("s").await.unwrap();
        steps.first().is_some_and(|step| step.state == SourceStepState::Failed)
    })
    .await;
    let steps = server.admin.list_source_steps("s").await.unwrap();
    assert!(
        steps[0].message.as_ref().unwrap().contains("holds other bytes"),
        "{:?}",
        steps[0].message
    );
    assert_eq!(step_of(&server.admin, &run, 5).await.unwrap().digest, Some(theirs));
}

#[tokio::test]
async fn a_preview_tells_what_would_come_and_makes_nothing() {
    let (server, root) = serve_root().await;
    let run = server.run("lab/run").await;
    checkpoint(root.path(), "step-7", 1000, 1);
    checkpoint(root.path(), "global_step7", 1000, 2);
    checkpoint(root.path(), "main", 1000, 3);
    std::fs::create_dir(root.path().join("step-9")).unwrap();
    std::fs::write(root.path().join("step-9/README.md"), "no weights").unwrap();
    let preview = server
        .admin
        .preview_source(&folder_source("s", &run, root.path()))
        .await
        .unwrap();
    let states: Vec<_> = preview
        .steps
        .iter()
        .map(|step| (step.name.as_str(), step.state))
        .collect();
    use SourceStepState::{Failed, Ignored, Waiting};
    let expected = [
        ("global_step7", Failed),
        ("step-7", Failed),
        ("step-9", Waiting),
        ("main", Ignored),
    ];
    assert_eq!(states, expected, "two are step 7, one has no weights, one no step");
    assert!(server.admin.list_sources().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_webhook_is_believed_by_its_secret_alone() {
    let (server, root) = serve_root().await;
    let run = server.run("lab/run").await;
    let new = CreateSource {
        interval_s: Some(3600),
        webhook_secret: Some("hush-hush-hush-hush".to_owned()),
        ..folder_source("s", &run, root.path())
    };
    let made = server.admin.create_source(&new).await.unwrap();
    assert!(made.has_webhook_secret && !serde_json::to_string(&made).unwrap().contains("hush"));
    until(async || server.admin.get_source("s").await.unwrap().synced_at.is_some()).await;
    checkpoint(root.path(), "step-5", 1000, 1);
    let nobody = Client::new(&server.server.url, None).unwrap();
    for (source, secret) in [("s", "other-other-other-x"), ("t", "hush-hush-hush-hush")] {
        assert!(nobody.hear_source(source, secret).await.is_err(), "{source} {secret}");
    }
    let before = server.admin.get_source("s").await.unwrap().synced_at;
    nobody.hear_source("s", "hush-hush-hush-hush").await.unwrap();
    until(async || step_of(&server.admin, &run, 5).await.is_ok()).await;
    assert!(server.admin.get_source("s").await.unwrap().synced_at >= before);
}

#[tokio::test]
async fn a_paused_source_is_not_looked_at_and_a_removed_one_leaves_its_steps() {
    let (server, root) = serve_root().await;
    let run = server.run("lab/run").await;
    checkpoint(root.path(), "step-1", 1000, 1);
    server
        .admin
        .create_source(&folder_source("s", &run, root.path()))
        .await
        .unwrap();
    looked_at(&server.admin, "s").await;
    assert_eq!(server.admin.pause_source("s").await.unwrap().state, SourceState::Paused);
    checkpoint(root.path(), "step-2", 1000, 2);
    // Another one that is made later has had its turn.
    let other = server.run("lab/other").await;
    server
        .admin
        .create_source(&folder_source("t", &other, root.path()))
        .await
        .unwrap();
    looked_at(&server.admin, "t").await;
    assert!(step_of(&server.admin, &other, 2).await.is_ok());
    assert!(step_of(&server.admin, &run, 2).await.is_err());
    server.admin.sync_source("s").await.unwrap();
    until(async || step_of(&server.admin, &run, 2).await.is_ok()).await;
    server.admin.delete_source("s").await.unwrap();
    assert!(server.admin.get_source("s").await.is_err());
    assert!(step_of(&server.admin, &run, 2).await.is_ok());
}

/// Waits, with a client of a process that may be starting, until all steps are there.
async fn all_ready(client: &Client, n: usize) -> bool {
    let Ok(steps) = client.list_source_steps("s").await else {
        return false;
    };
    steps.len() == n && steps.iter().all(|step| step.state == SourceStepState::Ready)
}

#[tokio::test]
async fn a_server_that_is_killed_at_each_point_of_an_ingest_brings_every_step_once() {
    let dir = tempfile::tempdir().unwrap();
    let (root, data) = (dir.path().join("root"), dir.path().join("data"));
    let run: RunName = "lab/run".parse().unwrap();
    let points = [
        "chunk.attached",
        "ingest.fetched",
        "ingest.before_commit",
        "ready.before_commit",
        "ingest.brought",
    ];
    let (root_argument, folder): (String, PathBuf) = (root.to_str().unwrap().to_owned(), root.join("run"));
    let arguments = ["--source-root", root_argument.as_str()];
    let how = |kill_at| Start {
        kill_at,
        arguments: &arguments,
        ..Start::default()
    };
    let n_steps = points.len();
    for (seed, step) in (1..).zip(1..=n_steps) {
        checkpoint(&folder, &format!("step-{step}"), 20_000, seed);
    }
    let server = ServerProcess::start(REGISTRY, &data, how(None)).unwrap();
    let client = Client::new(&server.url, Some(&server.token())).unwrap();
    client.create_run(&run, &Default::default()).await.unwrap();
    bind_suite(&client, dir.path(), "lab/run").await;
    server.kill();
    let mut is_first = true;
    for point in points {
        let server = ServerProcess::start(REGISTRY, &data, how(Some(point))).unwrap();
        if is_first {
            let client = Client::new(&server.url, Some(&server.token())).unwrap();
            let new = CreateSource {
                interval_s: Some(10),
                ..folder_source("s", &run, &folder)
            };
            // The answer may be lost with the server.
            drop(client.create_source(&new).await);
            is_first = false;
        }
        tokio::task::spawn_blocking(move || server.wait_for_death())
            .await
            .unwrap();
    }
    let server = ServerProcess::start(REGISTRY, &data, how(None)).unwrap();
    let client = Client::new(&server.url, Some(&server.token())).unwrap();
    let begun = Instant::now();
    while !all_ready(&client, n_steps).await {
        assert!(begun.elapsed() < Duration::from_secs(120), "the steps do not come");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let expected: Vec<u64> = (1..=n_steps as u64).collect();
    assert_eq!(evaluated_steps(&client, &run).await, expected);
    for (seed, step) in (1..).zip(1..=n_steps) {
        let other: RunName = "lab/pushed".parse().unwrap();
        if seed == 1 {
            client.create_run(&other, &Default::default()).await.unwrap();
        }
        let dir = folder.join(format!("step-{step}"));
        let same = pushed(&client, &other, step as u64, &dir).await;
        let came = step_of(&client, &run, step as u64).await.unwrap();
        assert_eq!(came.digest, Some(same));
    }
}
