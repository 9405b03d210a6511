//! Direct transfer: who gets a URL, what counts of what was staged, and when it goes.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use fineline_api::error::ErrorCode;
use fineline_api::{PushSession, RunPattern, Scope};
use fineline_format::{Digest, frame};
use uuid::Uuid;

use super::fixture::{Fixture, Pusher, code, file};
use crate::auth::Caller;
use crate::db;
use crate::error::ApiResult;
use crate::service::{chunk, locate, staging};

async fn fixture() -> Fixture {
    let mut fixture = Fixture::new().await;
    fixture.app.store = fixture.app.store.clone().with_urls();
    fixture
}

async fn located(fixture: &Fixture, caller: &Caller, digest: Digest) -> bool {
    let answer = locate::locate(&fixture.app, caller, &[digest]).await.unwrap();
    assert!(answer.offered);
    answer.locations.iter().any(|location| location.digest == digest)
}

/// A place of a session.
async fn place(pusher: &Pusher<'_>, session: &PushSession) -> Uuid {
    let places = staging::open(pusher.app, &pusher.run, session.id, 1).await.unwrap();
    places.places[0].id
}

/// Puts a frame at a place, as a client does by its URL.
async fn stage(pusher: &Pusher<'_>, id: Uuid, raw: &[u8]) {
    let frame = Bytes::from(frame::encode_raw(raw));
    pusher.app.store.put_staged(id, frame).await;
}

async fn take(pusher: &Pusher<'_>, session: &PushSession, id: Uuid, raw: &[u8]) -> ApiResult<()> {
    staging::take(pusher.app, &pusher.caller, &pusher.run, session.id, id, Digest::of(raw)).await
}

async fn n_places(fixture: &Fixture) -> u64 {
    db::staging::count(fixture.app.db.reader()).await.unwrap()
}

/// Lets so much time pass for staging places.
async fn age(fixture: &Fixture, time: Duration) {
    let ms = time.as_millis();
    fixture
        .sql(&format!("UPDATE staging SET expires_at_ms = expires_at_ms - {ms}"))
        .await;
}

#[tokio::test]
async fn a_frame_has_a_url_for_those_who_may_read_it() {
    // Given a step of a private run
    let fixture = fixture().await;
    let (owner, stranger) = (fixture.run("lab/private").await, fixture.run("lab/other").await);
    let reader = fixture
        .caller(Scope::Read, owner.run.name.to_string().parse().unwrap())
        .await;
    let worker = fixture.caller(Scope::Evaluate, RunPattern::All).await;
    let (raw, unknown) = (b"secret", Digest::of(b"unknown"));
    let session = owner.open(1).await;
    owner.send(session.id, &[file("a.txt", raw)]).await.unwrap();
    // When it is only put, it is the writer's alone
    assert!(located(&fixture, &owner.caller, Digest::of(raw)).await);
    assert!(!located(&fixture, &reader, Digest::of(raw)).await);
    owner
        .commit(session.id, vec![file("a.txt", raw).described()])
        .await
        .unwrap();
    // Then readers of the run have it, and nobody else: as little as what does not exist.
    assert!(located(&fixture, &reader, Digest::of(raw)).await);
    for caller in [&stranger.caller, &worker] {
        assert!(!located(&fixture, caller, Digest::of(raw)).await);
        assert!(!located(&fixture, caller, unknown).await);
    }
    let many = vec![unknown; 1001];
    assert_eq!(
        code(locate::locate(&fixture.app, &reader, &many).await),
        ErrorCode::TooLarge
    );
}

#[tokio::test]
async fn a_frame_outlives_its_url() {
    // Given a frame that is handed out, and let go of by everybody in the next moment
    let fixture = fixture().await;
    let owner = fixture.run("lab/run").await;
    let session = owner.push(1, &[file("a.txt", "gone")]).await.unwrap();
    let digest = Digest::of(b"gone");
    let answer = locate::locate(&fixture.app, &owner.caller, &[digest]).await.unwrap();
    let (grace, lifetime) = (fixture.app.options.grace, Duration::from_secs(answer.expires_in_s));
    assert!(lifetime <= grace / 2, "{session:?}");
    fixture.sql("UPDATE revision SET state = 'deleted'").await;
    fixture.age(2 * grace).await;
    crate::service::collect::collect(&fixture.app, false).await.unwrap();
    // When it is condemned, no URL of it is given any more, though it is still read through the server
    assert!(!located(&fixture, &owner.caller, digest).await);
    assert!(chunk::get(&fixture.app, &owner.caller, digest, false).await.is_ok());
    // Then it is there for as long as the URL works, and gone only after the grace.
    fixture.age(lifetime).await;
    crate::service::collect::collect(&fixture.app, false).await.unwrap();
    assert_eq!(fixture.app.store.count_objects().await, 1);
    fixture.age(grace).await;
    crate::service::collect::collect(&fixture.app, false).await.unwrap();
    assert_eq!(fixture.app.store.count_objects().await, 0);
}

#[tokio::test]
async fn a_damaged_chunk_has_no_url() {
    let fixture = fixture().await;
    let owner = fixture.run("lab/run").await;
    owner.push(1, &[file("a.txt", "whole")]).await.unwrap();
    let digest = Digest::of(b"whole");
    let row = db::frame::find_chunk(fixture.app.db.reader(), &digest)
        .await
        .unwrap()
        .unwrap();
    let other = Bytes::from(frame::encode_raw(b"other"));
    fixture.app.store.put_frame(row.frame_id, other).await.unwrap();
    // The server can't know before somebody reads it there.
    assert!(located(&fixture, &owner.caller, digest).await);
    assert_eq!(
        code(chunk::get(&fixture.app, &owner.caller, digest, true).await),
        ErrorCode::Internal
    );
    assert!(!located(&fixture, &owner.caller, digest).await);
}

#[tokio::test]
async fn what_is_staged_counts_once_it_is_told_and_verified() {
    let fixture = fixture().await;
    let owner = fixture.run("lab/run").await;
    let session = owner.open(1).await;
    let id = place(&owner, &session).await;
    stage(&owner, id, b"bytes").await;
    let missing = || chunk::missing(&fixture.app, &owner.caller, vec![Digest::of(b"bytes")]);
    assert_eq!(missing().await.unwrap().len(), 1, "nobody was told yet");
    // Bytes that are not the chunk are refused and taken away.
    assert_eq!(
        code(take(&owner, &session, id, b"other").await),
        ErrorCode::DigestMismatch
    );
    assert_eq!(
        code(take(&owner, &session, id, b"bytes").await),
        ErrorCode::Unprocessable
    );
    stage(&owner, id, b"bytes").await;
    take(&owner, &session, id, b"bytes").await.unwrap();
    assert_eq!(missing().await.unwrap(), []);
    assert_eq!(
        fixture.app.store.count_objects().await,
        1,
        "the frame under its own key"
    );
    // The same call again, after a lost answer, is a success.
    take(&owner, &session, id, b"bytes").await.unwrap();
    owner
        .commit(session.id, vec![file("a.txt", "bytes").described()])
        .await
        .unwrap();
    fixture.assert_sound().await;
}

#[tokio::test]
async fn what_is_put_at_a_place_afterwards_changes_nothing_and_goes() {
    // Given a chunk that was taken in from a place
    let fixture = fixture().await;
    let owner = fixture.run("lab/run").await;
    let session = owner.open(1).await;
    let id = place(&owner, &session).await;
    stage(&owner, id, b"bytes").await;
    take(&owner, &session, id, b"bytes").await.unwrap();
    // When other bytes are put there by the same URL, before the commit and after it
    stage(&owner, id, b"worse").await;
    owner
        .commit(session.id, vec![file("a.txt", "bytes").described()])
        .await
        .unwrap();
    stage(&owner, id, b"worst").await;
    // Then the checkpoint is what it was, and they go with the place.
    fixture.assert_sound().await;
    let frame = chunk::get(&fixture.app, &owner.caller, Digest::of(b"bytes"), false)
        .await
        .unwrap();
    assert_eq!(frame::decode(&frame).unwrap(), b"bytes");
    staging::sweep(&fixture.app).await.unwrap();
    assert_eq!(
        (n_places(&fixture).await, fixture.app.store.count_objects().await),
        (1, 2)
    );
    age(&fixture, Duration::from_secs(2 * 60 * 60)).await;
    staging::sweep(&fixture.app).await.unwrap();
    assert_eq!(
        (n_places(&fixture).await, fixture.app.store.count_objects().await),
        (0, 1)
    );
}

#[tokio::test]
async fn a_place_is_its_sessions_alone() {
    let fixture = fixture().await;
    let (owner, stranger) = (fixture.run("lab/a").await, fixture.run("lab/b").await);
    let (session, second) = (owner.open(1).await, owner.open(2).await);
    let foreign = stranger.open(1).await;
    let id = place(&owner, &session).await;
    stage(&owner, id, b"bytes").await;
    // Another session's place is an unknown one, whoever's it is.
    for (pusher, session, id) in [
        (&owner, &second, id),
        (&stranger, &foreign, id),
        (&owner, &session, Uuid::now_v7()),
    ] {
        assert_eq!(code(take(pusher, session, id, b"bytes").await), ErrorCode::NotFound);
    }
    // And another run's session is one for both calls.
    assert_eq!(code(take(&stranger, &session, id, b"bytes").await), ErrorCode::NotFound);
    let opened = staging::open(&fixture.app, &stranger.run, session.id, 1).await;
    assert_eq!(code(opened), ErrorCode::NotFound);
    take(&owner, &session, id, b"bytes").await.unwrap();
}

#[tokio::test]
async fn a_held_chunk_that_one_may_not_name_is_no_answer_for_an_empty_place() {
    // Given a chunk of another run, and a place at which nothing was put
    let fixture = fixture().await;
    let (owner, stranger) = (fixture.run("lab/private").await, fixture.run("lab/other").await);
    owner.push(1, &[file("a.txt", "secret")]).await.unwrap();
    let session = stranger.open(1).await;
    let id = place(&stranger, &session).await;
    // When the stranger says that it was staged there, the answer is that for an unknown one.
    let mut answers = HashSet::new();
    for raw in [&b"secret"[..], b"unknown"] {
        let refused = take(&stranger, &session, id, raw).await.unwrap_err();
        answers.insert((refused.code().as_str(), refused.to_string()));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn places_are_bounded_and_end_with_their_session() {
    let fixture = fixture().await;
    let owner = fixture.run("lab/run").await;
    let session = owner.open(1).await;
    let open = |n| staging::open(&fixture.app, &owner.run, session.id, n);
    assert_eq!(code(open(101).await), ErrorCode::TooLarge);
    assert_eq!(open(100).await.unwrap().places.len(), 100);
    let id = place(&owner, &session).await;
    // No frame is so long; it is not even read, and taken away.
    let long = vec![0; fineline_format::MAX_FRAME_BYTES + 1];
    fixture.app.store.put_staged(id, long.into()).await;
    assert_eq!(code(take(&owner, &session, id, b"long").await), ErrorCode::TooLarge);
    assert_eq!(fixture.app.store.count_objects().await, 0);
    fixture.sql("UPDATE push_session SET state = 'aborted'").await;
    assert_eq!(code(open(1).await), ErrorCode::Conflict);
    assert_eq!(code(take(&owner, &session, id, b"long").await), ErrorCode::Conflict);
}

#[tokio::test]
async fn a_store_without_urls_offers_none() {
    let fixture = Fixture::new().await;
    let owner = fixture.run("lab/run").await;
    owner.push(1, &[file("a.txt", "bytes")]).await.unwrap();
    let answer = locate::locate(&fixture.app, &owner.caller, &[Digest::of(b"bytes")])
        .await
        .unwrap();
    assert!(!answer.offered && answer.locations.is_empty());
    let session = owner.open(2).await;
    let places = staging::open(&fixture.app, &owner.run, session.id, 5).await.unwrap();
    assert!(!places.offered && places.places.is_empty());
    assert_eq!(n_places(&fixture).await, 0);
}
