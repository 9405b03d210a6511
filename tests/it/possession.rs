//! A digest of a run that a token may not read answers as an unknown one, at every door that takes one.

use fineline_api::{CheckpointFile, ChunkRef, CreatePushSession, Reference, Scope};
use fineline_client::{PushOptions, push};
use fineline_format::Digest;
use harness::{checkpoint, serve};

#[tokio::test]
async fn a_private_runs_digests_are_unknown_to_others() {
    let server = serve().await;
    let secret = server.run("lab/secret").await;
    let open = server.run("lab/open").await;
    let dir = checkpoint(server.dir.path(), "a", 40_000, 1);
    let pushed = push(&server.admin, &secret, 1, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let files = server
        .admin
        .list_files(&secret, &Reference::Step(1), true)
        .await
        .unwrap();
    let held: Vec<ChunkRef> = files.iter().flat_map(|file| file.chunks.clone()).collect();
    let unknown = Digest::of(b"never stored");

    // A writer, a reader and an evaluator of a run of the same namespace that the pattern holds apart.
    for scopes in [&[Scope::Write][..], &[Scope::Read], &[Scope::Evaluate]] {
        let token = server.token(scopes, "lab/open*").await;
        let answer = async |digest: Digest| {
            let url = format!("{}/api/v1/runs/lab/open/chunks/{digest}", server.server.url);
            let response = reqwest::Client::new()
                .get(url)
                .bearer_auth(&token)
                .send()
                .await
                .unwrap();
            let status = response.status();
            let mut headers = response.headers().clone();
            headers.remove("x-request-id");
            headers.remove("date");
            let body = response.text().await.unwrap();
            let hex = digest.to_string();
            let mut body: serde_json::Value = serde_json::from_str(&body.replace(&hex, "DIGEST")).unwrap();
            body["error"]["request_id"] = "".into();
            (status, headers, body)
        };
        assert_eq!(
            answer(held[0].digest).await,
            answer(unknown).await,
            "chunk get with {scopes:?}"
        );
    }
    let writer = server.client(&[Scope::Write], "lab/open*").await;
    let digests: Vec<Digest> = held.iter().map(|chunk| chunk.digest).collect();
    assert_eq!(
        writer.missing_chunks(&open, digests.clone()).await.unwrap(),
        digests,
        "all are missing to a stranger"
    );
    let by_digest = writer.get_checkpoint(&open, &Reference::Digest(pushed.digest)).await;
    assert!(by_digest.is_err(), "a manifest's digest names nothing in another run");

    // Publishing by naming alone is refused, and sending the bytes works as if nobody had them.
    let session = writer
        .create_push_session(
            &open,
            &CreatePushSession {
                step: 1,
                ..Default::default()
            },
        )
        .await
        .unwrap();
    for file in &files {
        writer
            .add_push_session_file(&open, session.id, &CheckpointFile { ..file.clone() })
            .await
            .unwrap();
    }
    let refused = writer
        .commit_push_session(&open, session.id, pushed.digest)
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("was not sent"), "{refused}");
    let sent = push(&writer, &open, 2, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    assert_eq!(sent.held_bytes, 0);
    assert_eq!(sent.digest, pushed.digest);
}
