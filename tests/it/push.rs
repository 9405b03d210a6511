//! Pushing and pulling steps.

use fineline_api::{Reference, Scope};
use fineline_client::{CheckpointQuery, Client, DeleteOptions, Error, PullOptions, PushOptions, pull, push, wait};
use harness::{Cut, Proxy, checkpoint, serve};

#[tokio::test]
async fn a_step_comes_back_byte_for_byte_and_the_same_push_changes_nothing() {
    let server = serve().await;
    let run = server.run("lab/run").await;
    let dir = checkpoint(server.dir.path(), "a", 40_000, 1);
    let options = PushOptions {
        tags: vec!["best/x".to_owned()],
        label: Some("ckpt_7".to_owned()),
        ..Default::default()
    };
    let first = push(&server.admin, &run, 7, &dir, &options, |_| {}).await.unwrap();
    assert!(!first.unchanged && first.sent_chunks > 0);
    let again = push(&server.admin, &run, 7, &dir, &options, |_| {}).await.unwrap();
    assert!(again.unchanged && again.sent_chunks == 0 && again.digest == first.digest);

    let digest = first.digest.to_string();
    for reference in ["7", "step-7", "ckpt_7", "best/x", "latest", digest.as_str()] {
        let reference: Reference = reference.parse().unwrap();
        let to = server.dir.path().join("pulled");
        pull(&server.admin, &run, &reference, &to, &PullOptions::default(), |_| {})
            .await
            .unwrap();
        for name in ["model.safetensors", "config.json", "tokenizer.json"] {
            assert_eq!(
                std::fs::read(dir.join(name)).unwrap(),
                std::fs::read(to.join(name)).unwrap(),
                "{reference}"
            );
        }
        std::fs::remove_dir_all(to).unwrap();
    }
}

#[tokio::test]
async fn other_bytes_at_a_held_step_need_replace_and_the_old_ones_stay_by_digest() {
    let server = serve().await;
    let run = server.run("lab/run").await;
    let (a, b) = (
        checkpoint(server.dir.path(), "a", 9000, 1),
        checkpoint(server.dir.path(), "b", 9000, 2),
    );
    let old = push(&server.admin, &run, 1, &a, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let refused = push(&server.admin, &run, 1, &b, &PushOptions::default(), |_| {}).await;
    assert!(matches!(refused, Err(Error::StepExists(_))), "{refused:?}");

    let replace = PushOptions {
        replace: true,
        ..Default::default()
    };
    let new = push(&server.admin, &run, 1, &b, &replace, |_| {}).await.unwrap();
    let current = server.admin.get_checkpoint(&run, &Reference::Step(1)).await.unwrap();
    assert_eq!(current.digest, Some(new.digest));
    let before = server
        .admin
        .get_checkpoint(&run, &Reference::Digest(old.digest))
        .await
        .unwrap();
    assert!(!before.current && before.digest == Some(old.digest));
}

#[tokio::test]
async fn the_same_weights_at_two_steps_are_warned_of() {
    let server = serve().await;
    let run = server.run("lab/run").await;
    let dir = checkpoint(server.dir.path(), "a", 9000, 1);
    push(&server.admin, &run, 1, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let second = push(&server.admin, &run, 2, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    assert!(
        second.warnings.iter().any(|warning| warning.contains("step 1")),
        "{:?}",
        second.warnings
    );
}

#[tokio::test]
async fn a_reader_cannot_push_and_a_writer_of_another_run_cannot_see() {
    let server = serve().await;
    let run = server.run("lab/run").await;
    let dir = checkpoint(server.dir.path(), "a", 9000, 1);
    let reader = server.client(&[Scope::Read], "lab/*").await;
    let refused = push(&reader, &run, 1, &dir, &PushOptions::default(), |_| {}).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    let stranger = server.client(&[Scope::Write], "other/*").await;
    assert!(matches!(stranger.get_run(&run).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_wait_tells_of_a_failed_push_until_a_good_one_of_its_step() {
    let server = serve().await;
    let run = server.run("lab/run").await;
    let dir = checkpoint(server.dir.path(), "a", 9000, 1);
    let config = std::fs::read(dir.join("config.json")).unwrap();
    let send = async || push(&server.admin, &run, 1, &dir, &PushOptions::default(), |_| {}).await;
    let failed_steps = async || {
        let outcome = wait(&server.admin, &run, None, None, |_| {}).await.unwrap();
        outcome.failed_steps
    };
    // Given a push whose verification fails
    std::fs::write(dir.join("config.json"), vec![b' '; 2 << 20]).unwrap();
    send().await.unwrap_err();
    assert_eq!(failed_steps().await, [1]);
    // When the step is pushed well
    std::fs::write(dir.join("config.json"), config).unwrap();
    send().await.unwrap();
    // Then the failure is of the past.
    assert!(failed_steps().await.is_empty());
}

#[tokio::test]
async fn the_latest_step_is_deleted_once_though_the_answer_is_lost() {
    let server = serve().await;
    let run = server.run("lab/run").await;
    for step in [1, 2] {
        let dir = checkpoint(server.dir.path(), &format!("{step}"), 9000, step);
        push(&server.admin, &run, step.into(), &dir, &PushOptions::default(), |_| {})
            .await
            .unwrap();
    }
    // Given a connection that loses the answer to the deletion
    let cut = Cut {
        method: "DELETE",
        path_end: "",
        nth: 1,
    };
    let proxy = Proxy::start(&server.server.url, Some(cut)).await;
    let client = Client::new(&proxy.url, Some(&server.server.admin_token)).unwrap();
    // When the latest step is deleted
    let latest: Reference = "latest".parse().unwrap();
    let deleted = client.delete_checkpoint(&run, &latest, DeleteOptions::default()).await;
    // Then it was asked twice, and the step before it is there.
    let asked = proxy.exchanges();
    let deletions: Vec<_> = asked.iter().filter(|exchange| exchange.is("DELETE", "")).collect();
    assert!(
        deletions.len() == 2 && deletions[0].status.is_none(),
        "{asked:?}, {deleted:?}"
    );
    let left = server
        .admin
        .list_checkpoints(&run, &CheckpointQuery::default(), None, None)
        .await
        .unwrap();
    assert_eq!(left.items.iter().map(|item| item.step).collect::<Vec<_>>(), [1]);
}
