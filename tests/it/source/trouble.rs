//! What goes wrong with one checkpoint, in passing, or while somebody changes what is looked at.

use std::path::Path;
use std::time::Duration;

use fineline_api::source::{SourceState, SourceStepState};
use fineline_api::{CreateSource, Reference, SourceStep};
use fineline_client::{Client, DeleteOptions};
use harness::{TestServer, checkpoint, serve_with, until};

use super::hub::{Fault, Hub};
use super::{bind_suite, evaluated_steps, folder_source, looked_at, pushed, serve_root, step_of};

/// A server that may reach a Hub of these steps, and a source that watches it.
async fn serve_hub(root: &Path, steps: std::ops::RangeInclusive<u32>) -> (TestServer, Hub, CreateSource) {
    let server = serve_with(|options| options.reach.allowed.push("127.0.0.1".parse().unwrap())).await;
    let run = server.run("lab/run").await;
    for step in steps {
        checkpoint(root, &format!("step-{step}"), 1000, step);
    }
    let hub = Hub::start(root).await;
    let source = CreateSource {
        location: hub.location(),
        interval_s: Some(3600),
        ..folder_source("s", &run, root)
    };
    (server, hub, source)
}

/// The same in the middle of a look, which waits for the weights of step 1.
async fn serve_look(root: &Path, steps: std::ops::RangeInclusive<u32>) -> (TestServer, Hub, CreateSource) {
    let (server, hub, source) = serve_hub(root, steps).await;
    hub.fail("step-1/model.safetensors", Fault::Held);
    server.admin.create_source(&source).await.unwrap();
    until(async || hub.n_asked("step-1/model.safetensors") > 0).await;
    (server, hub, source)
}

async fn source_step(client: &Client, name: &str) -> Option<SourceStep> {
    let steps = client.list_source_steps("s").await.unwrap();
    steps.into_iter().find(|step| step.name == name)
}

/// Waits until a checkpoint of the source is in this state.
async fn is(client: &Client, name: &str, state: SourceStepState) -> SourceStep {
    let mut found = None;
    until(async || {
        found = source_step(client, name).await;
        found.as_ref().is_some_and(|step| step.state == state)
    })
    .await;
    found.unwrap()
}

#[tokio::test]
async fn a_file_that_is_refused_keeps_its_own_step_out_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (server, hub, source) = serve_hub(dir.path(), 1..=3).await;
    hub.fail("step-1/model.safetensors", Fault::Refused(403));
    hub.fail("step-2/model.safetensors", Fault::Refused(451));
    server.admin.create_source(&source).await.unwrap();
    is(&server.admin, "step-3", SourceStepState::Ready).await;
    for name in ["step-1", "step-2"] {
        let failed = is(&server.admin, name, SourceStepState::Failed).await;
        let message = failed.message.unwrap();
        assert!(message.contains("model.safetensors"), "{message}");
    }
    assert_eq!(
        server.admin.get_source("s").await.unwrap().error,
        None,
        "the source is well"
    );
    hub.heal();
    server.admin.sync_source("s").await.unwrap();
    for name in ["step-1", "step-2"] {
        is(&server.admin, name, SourceStepState::Ready).await;
    }
}

#[tokio::test]
async fn a_run_that_is_deleted_during_a_look_is_filled_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let (server, hub, source) = serve_look(dir.path(), 1..=2).await;
    let options = DeleteOptions {
        force: true,
        ..DeleteOptions::default()
    };
    server.admin.delete_run(&source.run, options).await.unwrap();
    hub.heal();
    until(async || {
        let source = server.admin.get_source("s").await.unwrap();
        source.error.is_some_and(|error| error.contains("was deleted"))
    })
    .await;
    assert_eq!(hub.n_asked("step-2/model.safetensors"), 0, "nothing more is read");
    // A run of the same name is another one.
    server.run("lab/run").await;
    let before = server.admin.sync_source("s").await.unwrap().synced_at;
    until(async || server.admin.get_source("s").await.unwrap().synced_at > before).await;
    assert!(step_of(&server.admin, &source.run, 1).await.is_err());
}

#[tokio::test]
async fn a_source_that_is_paused_during_a_look_says_so_and_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (server, hub, source) = serve_look(dir.path(), 1..=1).await;
    server.admin.pause_source("s").await.unwrap();
    let paused = source_step(&server.admin, "step-1").await.unwrap();
    assert_eq!(
        (paused.state, paused.message.as_deref()),
        (SourceStepState::Waiting, Some("the source is paused"))
    );
    hub.heal();
    // Its look ends with its claim.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let shown = server.admin.get_source("s").await.unwrap();
    assert_eq!((shown.state, shown.error), (SourceState::Paused, None));
    assert!(step_of(&server.admin, &source.run, 1).await.is_err());
    server.admin.sync_source("s").await.unwrap();
    is(&server.admin, "step-1", SourceStepState::Ready).await;
}

#[tokio::test]
async fn two_servers_of_one_database_bring_every_step_once() {
    let dir = tempfile::tempdir().unwrap();
    let shared = tempfile::tempdir().unwrap();
    let (database, store) = (
        format!("sqlite://{}", shared.path().join("shared.db").display()),
        format!("file://{}", shared.path().join("store").display()),
    );
    let secret = shared.path().join("secret");
    std::fs::write(&secret, format!("fl_{}", "a1".repeat(32))).unwrap();
    let replica = || {
        serve_with(|options| {
            options.database = Some(database.clone());
            options.store = Some(store.clone());
            options.admin_token_file = Some(secret.clone());
            options.reach.allowed.push("127.0.0.1".parse().unwrap());
        })
    };
    let (one, two) = (replica().await, replica().await);
    let run = one.run("lab/run").await;
    for step in 1..=8 {
        checkpoint(dir.path(), &format!("step-{step}"), 1000, step);
    }
    bind_suite(&one.admin, shared.path(), "lab/run").await;
    let hub = Hub::start(dir.path()).await;
    let new = CreateSource {
        location: hub.location(),
        interval_s: Some(3600),
        ..folder_source("s", &run, dir.path())
    };
    one.admin.create_source(&new).await.unwrap();
    // Wishes for a look wake both servers again and again.
    until(async || {
        two.admin.sync_source("s").await.unwrap();
        let steps = two.admin.list_source_steps("s").await.unwrap();
        steps.iter().filter(|step| step.state == SourceStepState::Ready).count() == 8
    })
    .await;
    let steps: Vec<u64> = (1..=8).collect();
    assert_eq!(evaluated_steps(&two.admin, &run).await, steps);
    for step in steps {
        assert_eq!(hub.n_asked(&format!("step-{step}/model.safetensors")), 1, "step {step}");
        let came = step_of(&one.admin, &run, step).await.unwrap();
        assert!(came.current && came.replaced.is_empty(), "{came:?}");
    }
}

#[tokio::test]
async fn a_source_that_is_looked_at_once_waits_for_its_marker() {
    let (server, root) = serve_root().await;
    let run = server.run("lab/run").await;
    let dir = checkpoint(root.path(), "step-5", 1000, 1);
    let new = CreateSource {
        marker: Some("DONE".to_owned()),
        ..folder_source("s", &run, root.path())
    };
    server.admin.create_source(&new).await.unwrap();
    let waiting = is(&server.admin, "step-5", SourceStepState::Waiting).await;
    assert!(waiting.message.unwrap().contains("`DONE`"));
    until(async || server.admin.get_source("s").await.unwrap().synced_at.is_some()).await;
    let source = server.admin.get_source("s").await.unwrap();
    assert_eq!(source.state, SourceState::Active, "it has not given up");
    assert!(source.next_sync_at.is_some());
    std::fs::write(dir.join("DONE"), "").unwrap();
    server.admin.sync_source("s").await.unwrap();
    until(async || step_of(&server.admin, &run, 5).await.is_ok()).await;
}

#[tokio::test]
async fn what_failed_is_tried_at_once_when_somebody_asks_for_it() {
    let (server, root) = serve_root().await;
    let run = server.run("lab/run").await;
    // Of another size: that it is another is known before it is read.
    let other = checkpoint(server.dir.path(), "other", 2000, 7);
    pushed(&server.admin, &run, 5, &other).await;
    checkpoint(root.path(), "step-5", 1000, 1);
    let new = CreateSource {
        interval_s: Some(3600),
        ..folder_source("s", &run, root.path())
    };
    server.admin.create_source(&new).await.unwrap();
    let failed = is(&server.admin, "step-5", SourceStepState::Failed).await;
    assert!(failed.message.unwrap().contains("did not come from here"));
    server
        .admin
        .delete_checkpoint(&run, &Reference::Step(5), DeleteOptions::default())
        .await
        .unwrap();
    server.admin.sync_source("s").await.unwrap();
    is(&server.admin, "step-5", SourceStepState::Ready).await;
}

#[tokio::test]
async fn a_tokenizer_that_is_not_there_is_told_and_the_steps_come() {
    let (server, root) = serve_root().await;
    let run = server.run("lab/run").await;
    checkpoint(root.path(), "run/step-5", 1000, 1);
    let tokenizer = root.path().join("tokenizer");
    let new = CreateSource {
        tokenizer: Some(tokenizer.to_str().unwrap().to_owned()),
        ..folder_source("s", &run, &root.path().join("run"))
    };
    server.admin.create_source(&new).await.unwrap();
    let (source, _) = looked_at(&server.admin, "s").await;
    let error = source.error.unwrap();
    assert!(error.contains("tokenizer") && error.contains("is not there"), "{error}");
    assert!(step_of(&server.admin, &run, 5).await.is_ok());
    std::fs::create_dir(&tokenizer).unwrap();
    std::fs::write(tokenizer.join("tokenizer.json"), "{}").unwrap();
    server.admin.sync_source("s").await.unwrap();
    until(async || server.admin.get_source("s").await.unwrap().error.is_none()).await;
    let (source, steps) = looked_at(&server.admin, "s").await;
    assert_eq!(source.n_steps[&SourceStepState::Ready], 1, "a tokenizer is no step");
    assert_eq!(steps.len(), 2);
}

#[tokio::test]
async fn a_place_without_checkpoints_says_so_to_whoever_looks_once() {
    let (server, root) = serve_root().await;
    let run = server.run("lab/run").await;
    server
        .admin
        .create_source(&folder_source("s", &run, root.path()))
        .await
        .unwrap();
    let (source, steps) = looked_at(&server.admin, "s").await;
    assert!(steps.is_empty() && source.error.unwrap().contains("nothing at this place"));
}

#[tokio::test]
async fn a_name_that_its_trainer_contradicts_is_told() {
    let (server, root) = serve_root().await;
    let run = server.run("lab/run").await;
    for (name, told) in [("step-5", 5), ("step-6", 7)] {
        let dir = checkpoint(root.path(), name, 1000, told);
        std::fs::write(dir.join("trainer_state.json"), format!(r#"{{"global_step": {told}}}"#)).unwrap();
    }
    server
        .admin
        .create_source(&folder_source("s", &run, root.path()))
        .await
        .unwrap();
    let (_, steps) = looked_at(&server.admin, "s").await;
    let told = |step: &SourceStep| step.warnings.iter().any(|warning| warning.contains("says step `7`"));
    assert_eq!(steps.iter().map(told).collect::<Vec<_>>(), [false, true]);
}
