//! Frames by way of a bucket: that they go there, what goes with them, and what happens when it fails.

use fineline_client::{Client, ClientOptions, Direct, PullOptions, PushOptions, pull, push};
use fineline_format::frame;

use super::fake::{Bucket, Registry};
use super::{assert_same, pull_quietly, push_quietly, run, step_folder};

/// A registry that sends to a bucket behind its own address.
async fn registry_with_bucket() -> Registry {
    let registry = Registry::start().await;
    let url = registry.url.clone();
    registry.world().bucket = Some(Bucket {
        url,
        ..Bucket::default()
    });
    registry
}

fn asked(registry: &Registry) -> Vec<String> {
    registry.world().bucket.as_ref().unwrap().asked.clone()
}

fn set(registry: &Registry, change: impl FnOnce(&mut Bucket)) {
    change(registry.world().bucket.as_mut().unwrap());
}

#[tokio::test]
async fn frames_go_by_way_of_the_bucket_and_the_token_does_not() {
    // Given a step whose large chunks are nearly all of it
    let (registry, dir, to) = (
        registry_with_bucket().await,
        step_folder(20),
        tempfile::tempdir().unwrap(),
    );
    // When it is pushed and pulled
    let pushed = push_quietly(&registry, 7, dir.path(), &PushOptions::default())
        .await
        .unwrap();
    let n_put = asked(&registry).len();
    let pulled = pull_quietly(&registry, to.path()).await.unwrap();
    // Then nearly all went there and came from there, byte for byte,
    assert_same(dir.path(), to.path());
    assert!(pushed.direct_bytes > pushed.sent_bytes * 99 / 100 && pushed.direct_bytes < pushed.sent_bytes);
    assert_eq!(
        (pulled.received_bytes, pulled.direct_bytes),
        (pushed.sent_bytes, pushed.direct_bytes)
    );
    // and the bucket saw neither token nor lease, and a length for each PUT.
    let asked = asked(&registry);
    assert!(n_put >= 20 && asked.len() == 2 * n_put, "{n_put} and {}", asked.len());
    for request in &asked {
        let request = request.to_lowercase();
        assert!(
            !["authorization", "fl_test", "lease"]
                .iter()
                .any(|word| request.contains(word)),
            "{request}"
        );
        assert!(
            request.starts_with("get") || request.contains("content-length"),
            "{request}"
        );
    }
}

#[tokio::test]
async fn a_bucket_that_cannot_be_reached_costs_no_push_and_no_pull() {
    let (registry, dir, to) = (
        registry_with_bucket().await,
        step_folder(20),
        tempfile::tempdir().unwrap(),
    );
    set(&registry, |bucket| bucket.url = "http://127.0.0.1:1".to_owned());
    let pushed = push_quietly(&registry, 7, dir.path(), &PushOptions::default())
        .await
        .unwrap();
    let pulled = pull_quietly(&registry, to.path()).await.unwrap();
    assert_same(dir.path(), to.path());
    assert_eq!((pushed.direct_bytes, pulled.direct_bytes), (0, 0));
}

#[tokio::test]
async fn what_fails_now_and_then_goes_through_the_registry_and_what_fails_always_is_left() {
    let (registry, dir, to) = (
        registry_with_bucket().await,
        step_folder(60),
        tempfile::tempdir().unwrap(),
    );
    // Given a bucket that fails twice
    set(&registry, |bucket| bucket.n_unavailable = 2);
    let pushed = push_quietly(&registry, 7, dir.path(), &PushOptions::default())
        .await
        .unwrap();
    // Then the other frames go there.
    assert!(pushed.direct_bytes > pushed.sent_bytes / 2 && pushed.direct_bytes < pushed.sent_bytes * 99 / 100);
    // And one that always fails is asked only by those that were under way: 16 of each file.
    set(&registry, |bucket| {
        (bucket.n_unavailable, bucket.asked) = (usize::MAX, Vec::new());
    });
    let pulled = pull_quietly(&registry, to.path()).await.unwrap();
    assert_same(dir.path(), to.path());
    let n_asked = asked(&registry).len();
    assert!(pulled.direct_bytes == 0 && (4..48).contains(&n_asked), "{n_asked}");
}

#[tokio::test]
async fn wrong_bytes_from_the_bucket_are_asked_of_the_registry() {
    let (registry, dir, to) = (
        registry_with_bucket().await,
        step_folder(3),
        tempfile::tempdir().unwrap(),
    );
    push_quietly(&registry, 7, dir.path(), &PushOptions::default())
        .await
        .unwrap();
    // Given a bucket that gives whole frames of other chunks
    set(&registry, |bucket| {
        bucket.wrong_frame = Some(frame::encode_raw(b"other").into());
    });
    // Then the registry's answer counts, whichever it is.
    let pulled = pull_quietly(&registry, to.path()).await.unwrap();
    assert_same(dir.path(), to.path());
    assert_eq!(pulled.direct_bytes, 0);
    registry.world().wrong_chunk = Some(frame::encode_raw(b"other").into());
    let again = tempfile::tempdir().unwrap();
    let error = pull_quietly(&registry, again.path()).await.unwrap_err();
    assert!(matches!(error, fineline_client::Error::Corrupt { .. }), "{error:?}");
    assert!(!error.to_string().contains("hush"), "{error}");
}

#[tokio::test]
async fn a_staged_frame_that_is_lost_is_sent_with_the_call() {
    let (registry, dir) = (registry_with_bucket().await, step_folder(24));
    set(&registry, |bucket| bucket.loses = true);
    let pushed = push_quietly(&registry, 7, dir.path(), &PushOptions::default())
        .await
        .unwrap();
    assert_eq!(pushed.direct_bytes, 0);
    assert!(pushed.sent_bytes > 0 && registry.world().n_puts as u64 == pushed.sent_chunks);
    // Such a bucket is another one than the registry's, and soon left.
    let n_asked = asked(&registry).len();
    assert!((4..=20).contains(&n_asked), "{n_asked}");
}

#[tokio::test]
async fn off_is_off() {
    let (registry, dir, to) = (
        registry_with_bucket().await,
        step_folder(3),
        tempfile::tempdir().unwrap(),
    );
    let options = ClientOptions {
        direct: Direct::Off,
        ..ClientOptions::default()
    };
    let client = Client::with_options(&registry.url, Some("fl_test"), options).unwrap();
    push(&client, &run(), 7, dir.path(), &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let step = "7".parse().unwrap();
    pull(&client, &run(), &step, to.path(), &PullOptions::default(), |_| {})
        .await
        .unwrap();
    assert_same(dir.path(), to.path());
    assert!(asked(&registry).is_empty());
}
