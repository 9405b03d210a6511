//! Who may name a digest.

use std::time::Duration;

use bytes::Bytes;
use fineline_api::error::ErrorCode;
use fineline_api::{PushSessionState, Reference, RunPattern, Scope};
use fineline_format::Digest;

use super::fixture::{Fixture, TestFile, code, file, model};
use crate::db;
use crate::service::{checkpoint, chunk, collect, fsck};

#[tokio::test]
async fn a_chunk_of_a_run_that_one_may_not_read_is_an_unknown_one() {
    let fixture = Fixture::new().await;
    let (owner, stranger) = (fixture.run("lab/private").await, fixture.run("lab/other").await);
    let files = [file("a.txt", "secret")];
    owner.push(1, &files).await.unwrap();
    let digest = Digest::of(b"secret");

    let missing = |caller| chunk::missing(&fixture.app, caller, vec![digest]);
    assert_eq!(missing(&stranger.caller).await.unwrap(), [digest]);
    assert_eq!(missing(&owner.caller).await.unwrap(), []);
    let held = chunk::get(&fixture.app, &stranger.caller, digest, false).await;
    let unknown = chunk::get(&fixture.app, &stranger.caller, Digest::of(b"unknown"), false).await;
    assert_eq!((code(held), code(unknown)), (ErrorCode::NotFound, ErrorCode::NotFound));

    // Who sends the bytes may name them, and they are kept once.
    let session = stranger.open(1).await;
    stranger.send(session.id, &files).await.unwrap();
    assert_eq!(missing(&stranger.caller).await.unwrap(), []);
    assert_eq!(fsck::check(&fixture.app, false).await.unwrap().n_chunks, 1);
}

#[tokio::test]
async fn what_is_named_after_a_collection_began_is_passed_over_by_it() {
    let fixture = Fixture::new().await;
    let owner = fixture.run("lab/run").await;
    owner.push(1, &[file("a.txt", "named")]).await.unwrap();
    let put_at = async || {
        let possessed = db::collect::possessed(fixture.app.db.reader(), owner.run.id, None, 100).await;
        let found = possessed
            .unwrap()
            .into_iter()
            .find(|row| row.digest == Digest::of(b"named"));
        found.unwrap().put_at_ms
    };
    let before = put_at().await;
    fixture.age(Duration::from_secs(1)).await;
    collect::collect(&fixture.app, false).await.unwrap();
    owner.push(2, &[file("b.txt", "named")]).await.unwrap();
    assert!(put_at().await > before);
}

#[tokio::test]
async fn what_is_going_is_taken_back_among_thousands() {
    // Given more chunks than one statement asks for, the first let go of and the last condemned
    let fixture = Fixture::new().await;
    let owner = fixture.run("lab/run").await;
    let chunks = (0..1100_u32)
        .map(|n| Bytes::copy_from_slice(&n.to_le_bytes()))
        .collect();
    let large = TestFile { path: "a.bin", chunks };
    owner.push(1, std::slice::from_ref(&large)).await.unwrap();
    let mut digests: Vec<Digest> = large.chunks.iter().map(|bytes| Digest::of(bytes)).collect();
    digests.sort_unstable();
    let [released, condemned] = [digests[0], digests[1099]].map(|digest| fixture.literal(digest.as_bytes()));
    fixture
        .sql(&format!(
            "UPDATE possession SET released_at_ms = 1 WHERE digest = {released}"
        ))
        .await;
    let condemn = "UPDATE frame SET state = 'condemned', condemned_at_ms = 1";
    fixture
        .sql(&format!("{condemn} WHERE chunk_digest = {condemned}"))
        .await;
    let reader = fixture.app.db.reader();
    let going = async || {
        let possessed = db::collect::possessed(reader, owner.run.id, None, 2000).await.unwrap();
        let n_released = possessed.iter().filter(|row| row.released).count();
        (n_released, db::frame::any_condemned(reader, &digests).await.unwrap())
    };
    assert_eq!(going().await, (1, true));

    let missing = chunk::missing(&fixture.app, &owner.caller, digests.clone()).await;

    assert_eq!(missing.unwrap(), []);
    assert_eq!(going().await, (0, false));
}

#[tokio::test]
async fn bytes_that_were_only_put_are_the_writers_alone() {
    let fixture = Fixture::new().await;
    let owner = fixture.run("lab/run").await;
    let reader = fixture.caller(Scope::Read, RunPattern::All).await;
    let files = [file("a.txt", "new")];
    let session = owner.open(1).await;
    owner.send(session.id, &files).await.unwrap();
    let get = |caller| chunk::get(&fixture.app, caller, Digest::of(b"new"), false);

    assert!(get(&owner.caller).await.is_ok());
    assert_eq!(code(get(&reader).await), ErrorCode::NotFound);
    owner.commit(session.id, vec![files[0].described()]).await.unwrap();
    assert!(get(&reader).await.is_ok());
}

#[tokio::test]
async fn a_file_known_elsewhere_is_read_back_from_what_the_pusher_sent() {
    let fixture = Fixture::new().await;
    let (owner, stranger) = (fixture.run("lab/private").await, fixture.run("lab/other").await);
    owner.push(1, &[file("a.txt", "secret")]).await.unwrap();
    let session = stranger.open(1).await;
    let own = file("a.txt", "public");
    stranger.send(session.id, std::slice::from_ref(&own)).await.unwrap();
    let mut said = own.described();
    said.digest = Digest::of(b"secret");

    let session = stranger.commit(session.id, vec![said]).await.unwrap();

    assert_eq!(session.state, PushSessionState::Failed);
    assert_eq!(session.failure.unwrap().code, ErrorCode::DigestMismatch);
}

#[tokio::test]
async fn a_file_cut_otherwise_elsewhere_is_served_whole_with_chunks_that_may_be_named() {
    let fixture = Fixture::new().await;
    let (first, second) = (fixture.run("lab/a").await, fixture.run("lab/b").await);
    let cut = |size: usize| -> Vec<TestFile> {
        let cut = |file: TestFile| TestFile {
            chunks: file.bytes().chunks(size).map(Bytes::copy_from_slice).collect(),
            ..file
        };
        model(1.0).into_iter().map(cut).collect()
    };
    first.push(1, &cut(100)).await.unwrap();

    second.push(1, &cut(77)).await.unwrap();

    let revision = checkpoint::resolve(&fixture.app, &second.caller, &second.run, &Reference::Step(1)).await;
    for file in checkpoint::files(&fixture.app, &revision.unwrap(), true).await.unwrap() {
        for piece in file.chunks {
            chunk::get(&fixture.app, &second.caller, piece.digest, true)
                .await
                .unwrap();
        }
    }
    fixture.assert_sound().await;
}
