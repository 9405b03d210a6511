//! What changes in a source after it came in, and whose a step is.

use std::path::Path;

use fineline_api::source::SourceStepState;
use fineline_api::{CreateSource, Reference, SourceStep};
use fineline_client::{Client, PushOptions, push};
use harness::{checkpoint, until};

use super::{folder_source, looked_at, pushed, serve_root, step_of};

async fn the_step(client: &Client, is: impl Fn(&SourceStep) -> bool) -> SourceStep {
    let mut step = None;
    until(async || {
        step = client.list_source_steps("s").await.unwrap().pop();
        step.as_ref().is_some_and(&is)
    })
    .await;
    step.unwrap()
}

#[tokio::test]
async fn a_source_that_is_made_again_goes_on_with_its_steps() {
    let (server, root) = serve_root().await;
    let run = server.run("lab/run").await;
    checkpoint(root.path(), "step-5", 1000, 1);
    let new = folder_source("s", &run, root.path());
    server.admin.create_source(&new).await.unwrap();
    let (_, steps) = looked_at(&server.admin, "s").await;
    let first = steps[0].checkpoint.unwrap();
    server.admin.delete_source("s").await.unwrap();
    checkpoint(root.path(), "step-5", 1000, 2);
    server.admin.create_source(&new).await.unwrap();
    let step = the_step(&server.admin, |step| step.state == SourceStepState::Ready).await;
    assert!(step.checkpoint != Some(first) && step.warnings[0].contains("changed in the source"));
    // The revision says it too, to whoever does not look at the source.
    let now = step_of(&server.admin, &run, 5).await.unwrap();
    assert!(
        now.warnings
            .iter()
            .any(|warning| warning.contains("changed in the source")),
        "{now:?}"
    );
    assert_eq!(now.replaced, [first]);
}

#[tokio::test]
async fn another_source_of_the_same_name_does_not_own_the_steps() {
    let (server, root) = serve_root().await;
    let run = server.run("lab/run").await;
    checkpoint(root.path(), "a/step-5", 1000, 1);
    checkpoint(root.path(), "b/step-5", 1000, 2);
    let at = |folder: &str| CreateSource {
        interval_s: Some(3600),
        ..folder_source("s", &run, &root.path().join(folder))
    };
    server.admin.create_source(&at("a")).await.unwrap();
    let first = the_step(&server.admin, |step| step.state == SourceStepState::Ready).await;
    server.admin.delete_source("s").await.unwrap();
    server.admin.create_source(&at("b")).await.unwrap();
    the_step(&server.admin, |step| step.state == SourceStepState::Failed).await;
    assert_eq!(step_of(&server.admin, &run, 5).await.unwrap().digest, first.checkpoint);
}

#[tokio::test]
async fn what_somebody_puts_in_place_of_a_step_stays_when_the_source_changes() {
    let (server, root) = serve_root().await;
    let run = server.run("lab/run").await;
    checkpoint(root.path(), "step-5", 1000, 1);
    let new = CreateSource {
        interval_s: Some(3600),
        ..folder_source("s", &run, root.path())
    };
    server.admin.create_source(&new).await.unwrap();
    the_step(&server.admin, |step| step.state == SourceStepState::Ready).await;
    let options = PushOptions {
        replace: true,
        ..PushOptions::default()
    };
    let other = checkpoint(server.dir.path(), "other", 1000, 7);
    let theirs = push(&server.admin, &run, 5, &other, &options, |_| {})
        .await
        .unwrap()
        .digest;
    checkpoint(root.path(), "step-5", 1000, 2);
    server.admin.sync_source("s").await.unwrap();
    let step = the_step(&server.admin, |step| step.state == SourceStepState::Failed).await;
    assert!(
        step.message.as_ref().unwrap().contains("did not come from here"),
        "{step:?}"
    );
    assert_eq!(step_of(&server.admin, &run, 5).await.unwrap().digest, Some(theirs));
}

#[tokio::test]
async fn a_step_that_was_pushed_with_the_same_files_is_its_pushers() {
    let (server, root) = serve_root().await;
    let run = server.run("lab/run").await;
    let dir = checkpoint(root.path(), "step-5", 1000, 1);
    let theirs = pushed(&server.admin, &run, 5, &dir).await;
    let new = CreateSource {
        interval_s: Some(3600),
        ..folder_source("s", &run, root.path())
    };
    server.admin.create_source(&new).await.unwrap();
    let step = the_step(&server.admin, |step| step.state == SourceStepState::Ready).await;
    assert_eq!(step.checkpoint, Some(theirs), "it is there already");
    checkpoint(root.path(), "step-5", 1000, 2);
    server.admin.sync_source("s").await.unwrap();
    the_step(&server.admin, |step| step.state == SourceStepState::Failed).await;
    assert_eq!(step_of(&server.admin, &run, 5).await.unwrap().digest, Some(theirs));
}

fn mark(dir: &Path, text: &str) {
    std::fs::write(dir.join("DONE"), text).unwrap();
}

#[tokio::test]
async fn a_marker_says_nothing_of_files_that_change_after_it() {
    let (server, root) = serve_root().await;
    let run = server.run("lab/run").await;
    let dir = checkpoint(root.path(), "step-5", 1000, 1);
    mark(&dir, "1");
    let new = CreateSource {
        interval_s: Some(3600),
        settle_s: None,
        marker: Some("DONE".to_owned()),
        ..folder_source("s", &run, root.path())
    };
    server.admin.create_source(&new).await.unwrap();
    let first = the_step(&server.admin, |step| step.state == SourceStepState::Ready).await;
    // Written over in place: half of it may be old.
    checkpoint(root.path(), "step-5", 1000, 2);
    server.admin.sync_source("s").await.unwrap();
    let waits = |step: &SourceStep| {
        step.message
            .as_ref()
            .is_some_and(|message| message.contains("stay as they are"))
    };
    the_step(&server.admin, waits).await;
    let held = server.admin.get_checkpoint(&run, &Reference::Step(5)).await.unwrap();
    assert_eq!(held.digest, first.checkpoint);
    mark(&dir, "2");
    server.admin.sync_source("s").await.unwrap();
    the_step(&server.admin, |step| {
        step.state == SourceStepState::Ready && step.checkpoint != first.checkpoint
    })
    .await;
}
