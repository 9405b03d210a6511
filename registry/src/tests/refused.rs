//! Pushes that lie: each is a clear refusal, and nothing of them is visible.

use bytes::Bytes;
use fineline_api::error::ErrorCode;
use fineline_api::{PushSession, PushSessionState, Reference};
use fineline_format::{Digest, frame};

use super::fixture::{Fixture, Pusher, TestFile, code, described, file, model, weights};
use crate::service::{checkpoint, chunk, commit, push_session};

/// Pushes files that are refused; what the session then says.
async fn refusal(pusher: &Pusher<'_>, files: &[TestFile]) -> String {
    let session = pusher.push(1, files).await.unwrap();
    why(pusher, session).await
}

async fn why(pusher: &Pusher<'_>, session: PushSession) -> String {
    assert_eq!(session.state, PushSessionState::Failed);
    let visible = checkpoint::resolve(pusher.app, &pusher.caller, &pusher.run, &Reference::Step(1)).await;
    assert_eq!(code(visible), ErrorCode::NotFound);
    session.failure.unwrap().message
}

#[tokio::test]
async fn weights_that_lie_fail_with_their_file_named() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    let mut truncated = weights(1.0);
    truncated.truncate(300);
    let index = r#"{"metadata":{},"weight_map":{"w":"model-00001-of-00002.safetensors"}}"#;

    let said = refusal(&pusher, &[file("model.safetensors", truncated)]).await;
    assert!(said.contains("`model.safetensors`"), "{said}");
    let said = refusal(&pusher, &[file("model.safetensors.index.json", index)]).await;
    assert!(said.contains("`model-00001-of-00002.safetensors`"), "{said}");
    let said = refusal(&pusher, &[file("config.json", "{")]).await;
    assert!(said.contains("`config.json`"), "{said}");
}

#[tokio::test]
async fn a_file_with_another_digest_than_said_is_never_ready() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    let files = model(1.0);
    let session = pusher.open(1).await;
    pusher.send(session.id, &files).await.unwrap();
    let mut said = described(&files);
    said[0].digest = Digest::of(b"other");

    let session = pusher.commit(session.id, said).await.unwrap();

    let reason = why(&pusher, session).await;
    assert!(reason.contains("`config.json`"), "{reason}");
}

#[tokio::test]
async fn a_size_that_lies_of_a_verified_file_is_never_ready() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    let (known, other) = (file("a.txt", "twelve bytes"), file("a.txt", "nine byte"));
    pusher.push(2, &[known]).await.unwrap();
    let session = pusher.open(1).await;
    pusher.send(session.id, std::slice::from_ref(&other)).await.unwrap();
    let mut said = other.described();
    said.digest = Digest::of(b"twelve bytes");

    let session = pusher.commit(session.id, vec![said]).await.unwrap();

    let reason = why(&pusher, session).await;
    assert!(reason.contains("9 bytes") && reason.contains("12"), "{reason}");
}

#[tokio::test]
async fn a_frame_with_other_bytes_is_refused_by_both_digests() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    let session = pusher.open(1).await;
    let (named, sent) = (Digest::of(b"named"), Digest::of(b"sent"));
    let put = |body: Vec<u8>| chunk::put(&fixture.app, &pusher.run, session.id, named, body.into());

    let error = put(frame::encode_raw(b"sent")).await.unwrap_err();

    assert_eq!(error.code(), ErrorCode::DigestMismatch);
    let said = error.to_string();
    assert!(
        said.contains(&named.to_string()) && said.contains(&sent.to_string()),
        "{said}"
    );
    assert_eq!(code(put(b"no frame".to_vec()).await), ErrorCode::Unprocessable);
}

#[tokio::test]
async fn a_commit_names_the_chunk_that_is_missing_or_has_another_size() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    let files = [file("a.bin", [7; 2500])];
    let mut said = files[0].described();
    let session = pusher.open(1).await;
    let body = Bytes::from(frame::encode_raw(&[7; 1000]));
    let put = chunk::put(&fixture.app, &pusher.run, session.id, Digest::of(&[7; 1000]), body).await;
    put.unwrap();

    let error = pusher.commit(session.id, vec![said.clone()]).await.unwrap_err();
    assert!(error.to_string().starts_with("chunk 2 of file `a.bin`"), "{error}");

    (said.chunks[0].size_bytes, said.chunks[1].size_bytes) = (999, 1001);
    let error = pusher.commit(session.id, vec![said]).await.unwrap_err();
    assert!(error.to_string().contains("chunk 0 of file `a.bin`"), "{error}");
    assert!(error.to_string().contains("1000 bytes"), "{error}");
}

#[tokio::test]
async fn paths_and_recipes_that_break_a_rule_are_refused_at_the_door() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    let session = pusher.open(1).await;
    let add = |file| push_session::add_file(&fixture.app, &pusher.run, session.id, file);
    for path in ["../x", "/x", "a/../b", "a\\b", ""] {
        let mut said = file("a", "bytes").described();
        said.path = path.to_owned();
        assert_eq!(code(add(said).await), ErrorCode::Unprocessable, "{path}");
    }
    let mut said = file("a", "bytes").described();
    said.size_bytes += 1;
    assert_eq!(code(add(said).await), ErrorCode::Unprocessable);
    let mut empty = file("a", "").described();
    empty.digest = Digest::of(b"not empty");
    assert_eq!(code(add(empty).await), ErrorCode::DigestMismatch);

    let meant = Digest::of(b"another manifest");
    let committed = commit::commit(&fixture.app, &pusher.caller, &pusher.run, session.id, meant).await;
    assert_eq!(code(committed), ErrorCode::Unprocessable);
}
