//! Bytes by way of a real bucket (Garage): pushes and pulls around the registry, what a URL is good for and what it is
//! not, and kills in the middle.

mod away;
mod killed;

use std::path::Path;
use std::time::Duration;

use fineline_api::{CheckpointFile, ChunkRef, CreatePushSession, Reference, RunName, Scope};
use fineline_client::{Client, Error, PullOptions, PullOutcome, PushOptions, PushOutcome, pull, push};
use fineline_format::{Digest, FileEntry, Manifest, frame};
use fineline_registry::serve::AwsVariables;
use futures::TryStreamExt as _;
use harness::{Bucket, Garage, TestServer, checkpoint, garage, serve_with, until};
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use reqwest::StatusCode;
use uuid::Uuid;

async fn serve(garage: &Garage, bucket: &Bucket, grace: Duration) -> TestServer {
    serve_with(|options| {
        options.store = Some(bucket.url.clone());
        options.store_options.aws = AwsVariables::new(garage.variables());
        options.grace = grace;
    })
    .await
}

const LONG: Duration = Duration::from_secs(3 * 24 * 60 * 60);

async fn push_step(client: &Client, run: &RunName, step: u64, dir: &Path) -> PushOutcome {
    push(client, run, step, dir, &PushOptions::default(), |_| {})
        .await
        .unwrap()
}

async fn pull_step(client: &Client, run: &RunName, step: u64, to: &Path) -> Result<PullOutcome, Error> {
    pull(client, run, &Reference::Step(step), to, &PullOptions::default(), |_| {}).await
}

fn assert_same(a: &Path, b: &Path) {
    for entry in std::fs::read_dir(a).unwrap() {
        let name = entry.unwrap().file_name();
        let same = std::fs::read(a.join(&name)).unwrap() == std::fs::read(b.join(&name)).unwrap();
        assert!(same, "{}", name.display());
    }
}

#[tokio::test]
async fn a_step_goes_to_the_bucket_and_comes_from_it() {
    let Some(garage) = garage("it/direct") else {
        return;
    };
    let bucket = garage.new_store();
    let server = serve(garage, &bucket, LONG).await;
    let run = server.run("lab/run").await;
    let dir = checkpoint(server.dir.path(), "step", 3_000_000, 1);
    let reader = server.client(&[Scope::Read], "lab/run").await;
    let to = server.dir.path().join("pulled");
    // When a step is pushed and pulled by who may read it
    let pushed = push_step(&server.admin, &run, 1, &dir).await;
    let pulled = pull_step(&reader, &run, 1, &to).await.unwrap();
    // Then nearly all of it passed the registry by.
    assert_same(&dir, &to);
    assert!(pushed.direct_bytes > pushed.sent_bytes * 95 / 100, "{pushed:?}");
    assert_eq!(pulled.direct_bytes, pushed.direct_bytes);
    // Each frame lies under its own key, and what was staged is gone.
    assert_eq!(bucket.keys("frames").await.len() as u64, pushed.sent_chunks);
    assert_eq!(bucket.keys("staging").await, []);
    // And a stranger gets no URL of it.
    let stranger = server.client(&[Scope::Write], "lab/other").await;
    let other = server.run("lab/other").await;
    let files = reader.list_files(&run, &Reference::Step(1), true).await.unwrap();
    let digests = files
        .iter()
        .flat_map(|file| &file.chunks)
        .map(|chunk| chunk.digest)
        .collect();
    let answer = stranger.locate_chunks(&other, digests).await.unwrap();
    assert!(answer.offered && answer.locations.is_empty());
}

#[tokio::test]
async fn a_url_is_good_for_one_frame_or_one_place_and_nothing_else() {
    let Some(garage) = garage("it/direct") else {
        return;
    };
    let bucket = garage.new_store();
    let server = serve(garage, &bucket, LONG).await;
    let run = server.run("lab/run").await;
    let dir = checkpoint(server.dir.path(), "step", 100_000, 1);
    push_step(&server.admin, &run, 1, &dir).await;
    let files = server.admin.list_files(&run, &Reference::Step(1), true).await.unwrap();
    let chunks: Vec<Digest> = files
        .iter()
        .flat_map(|file| &file.chunks)
        .map(|chunk| chunk.digest)
        .collect();
    let located = server
        .admin
        .locate_chunks(&run, chunks.clone())
        .await
        .unwrap()
        .locations;
    assert_eq!(located.len(), chunks.len());
    let (url, http) = (&located[0].url, reqwest::Client::new());
    let read = http.get(url).send().await.unwrap().bytes().await.unwrap();
    let raw = frame::decode(&read).unwrap();
    assert_eq!(
        (Digest::of(&raw), read.len() as u64),
        (located[0].digest, located[0].size_bytes)
    );
    // It writes and deletes nothing, and reads nothing else.
    let other = located[1].url.split('?').next().unwrap();
    let query = url.split_once('?').unwrap().1;
    for request in [
        http.put(url).body("x"),
        http.delete(url),
        http.get(format!("{other}?{query}")),
        http.get(url.split('?').next().unwrap()),
    ] {
        assert_eq!(request.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    }
    // And a staging place's URL does not read.
    let session = open_session(&server, &run, 2).await;
    let place = server
        .admin
        .stage_frames(&run, session, 1)
        .await
        .unwrap()
        .places
        .remove(0);
    assert_eq!(
        http.put(&place.url).body("x").send().await.unwrap().status(),
        StatusCode::OK
    );
    for request in [http.get(&place.url), http.delete(&place.url)] {
        assert_eq!(request.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    }
}

async fn open_session(server: &TestServer, run: &RunName, step: u64) -> Uuid {
    let new = CreatePushSession {
        step,
        ..CreatePushSession::default()
    };
    server.admin.create_push_session(run, &new).await.unwrap().id
}

#[tokio::test]
async fn a_second_put_after_verification_changes_nothing_and_goes() {
    let Some(garage) = garage("it/direct") else {
        return;
    };
    // Given a server whose URLs work for some seconds, and a chunk that it took from a staging place
    let bucket = garage.new_store();
    let server = serve(garage, &bucket, Duration::from_secs(12)).await;
    let run = server.run("lab/run").await;
    let (admin, http) = (&server.admin, reqwest::Client::new());
    let session = open_session(&server, &run, 1).await;
    let place = admin.stage_frames(&run, session, 1).await.unwrap().places.remove(0);
    let put = |raw: &[u8]| http.put(&place.url).body(frame::encode_raw(raw)).send();
    let digest = Digest::of(b"good");
    assert_eq!(put(b"good").await.unwrap().status(), StatusCode::OK);
    admin.put_staged_chunk(&run, digest, session, place.id).await.unwrap();
    assert_eq!(bucket.keys("staging").await, []);
    // When other bytes are put by the same URL, and the step is committed
    assert_eq!(put(b"evil").await.unwrap().status(), StatusCode::OK);
    assert_eq!(bucket.keys("staging").await.len(), 1);
    let (path, size_bytes) = ("a.txt".to_owned(), 4);
    let file = CheckpointFile {
        path: path.clone(),
        size_bytes,
        digest,
        chunks: vec![ChunkRef { digest, size_bytes }],
    };
    admin.add_push_session_file(&run, session, &file).await.unwrap();
    let entry = FileEntry {
        path,
        size_bytes,
        digest,
    };
    let manifest = Manifest::new(vec![entry]).unwrap().digest();
    admin.commit_push_session(&run, session, manifest).await.unwrap();
    let committed = admin.get_push_session(&run, session, 30).await.unwrap();
    // Then the step reads as what was verified, on either way,
    assert_eq!(committed.digest, Some(manifest), "{committed:?}");
    let frame = admin.get_chunk(&run, digest, false).await.unwrap();
    assert_eq!(frame::decode(&frame).unwrap(), b"good");
    let located = admin.locate_chunks(&run, vec![digest]).await.unwrap().locations;
    assert_eq!(
        http.get(&located[0].url).send().await.unwrap().bytes().await.unwrap(),
        frame
    );
    // and what was put last goes once the URL works no longer.
    until(async || bucket.keys("staging").await.is_empty()).await;
    assert!(put(b"late").await.unwrap().status().is_client_error());
    assert_eq!(bucket.keys("frames").await.len(), 1);
}

#[tokio::test]
async fn damage_in_the_bucket_is_told_and_repaired() {
    let Some(garage) = garage("it/direct") else {
        return;
    };
    // Given a step of which one object was overwritten from outside
    let bucket = garage.new_store();
    let server = serve(garage, &bucket, LONG).await;
    let run = server.run("lab/run").await;
    let dir = checkpoint(server.dir.path(), "step", 1_000_000, 1);
    let pushed = push_step(&server.admin, &run, 1, &dir).await;
    let mut frames: Vec<_> = bucket.objects.list(Some(&bucket.prefix)).try_collect().await.unwrap();
    frames.sort_by_key(|object: &object_store::ObjectMeta| object.size);
    let largest = &frames.last().unwrap().location;
    let mut bytes = bucket
        .objects
        .get(largest)
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap()
        .to_vec();
    bytes[100_000] ^= 1;
    bucket.objects.put(largest, bytes.into()).await.unwrap();
    // When it is pulled, no wrong byte is kept and the registry learns of it
    let to = server.dir.path().join("pulled");
    let error = pull_step(&server.admin, &run, 1, &to).await.unwrap_err();
    assert!(matches!(error, Error::Server(_)), "{error:?}");
    assert!(!to.join("model.safetensors").exists());
    // Then the same push sends what is damaged, and all is well.
    let again = push_step(&server.admin, &run, 1, &dir).await;
    assert_eq!((again.digest, again.sent_chunks), (pushed.digest, 1));
    pull_step(&server.admin, &run, 1, &to).await.unwrap();
    assert_same(&dir, &to);
}

#[tokio::test]
async fn a_client_that_cannot_reach_the_bucket_goes_through_the_registry() {
    let Some(garage) = garage("it/direct") else {
        return;
    };
    // Given URLs that lead nowhere from here
    let bucket = garage.new_store();
    let server = serve_with(|options| {
        options.store = Some(bucket.url.clone());
        options.store_options.aws = AwsVariables::new(garage.variables());
        options.store_options.public_url = Some("http://127.0.0.1:1".to_owned());
    })
    .await;
    let run = server.run("lab/run").await;
    let dir = checkpoint(server.dir.path(), "step", 1_000_000, 1);
    let to = server.dir.path().join("pulled");
    let pushed = push_step(&server.admin, &run, 1, &dir).await;
    let pulled = pull_step(&server.admin, &run, 1, &to).await.unwrap();
    assert_same(&dir, &to);
    assert_eq!((pushed.direct_bytes, pulled.direct_bytes), (0, 0));
    assert_eq!(bucket.keys("staging").await, []);
}
