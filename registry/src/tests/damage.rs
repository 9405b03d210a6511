//! Planted corruptions: each is found and named, reads of it fail without a wrong byte, and the same push repairs it.

use std::collections::BTreeSet;

use bytes::Bytes;
use fineline_api::{PushSession, PushSessionState, Reference};
use fineline_format::{Digest, frame};
use futures::TryStreamExt;

use super::fixture::{Fixture, Pusher, TestFile, described, file, model};
use crate::db;
use crate::db::frame::ChunkRow;
use crate::recipe;
use crate::service::fsck::{self, ProblemKind};
use crate::service::{checkpoint, chunk, collect, content};

/// A model and a file of several chunks.
fn files() -> Vec<TestFile> {
    let mut files = model(1.0);
    files.push(file(
        "vocab.txt",
        (0..5000u32).map(|n| (n / 7) as u8).collect::<Vec<u8>>(),
    ));
    files
}

struct Planted<'a> {
    fixture: &'a Fixture,
    pusher: Pusher<'a>,
    /// The second chunk of the file of several.
    victim: ChunkRow,
}

async fn planted(fixture: &Fixture) -> Planted<'_> {
    let pusher = fixture.run("lab/run").await;
    pusher.push(1, &files()).await.unwrap();
    pusher.push(2, &model(2.0)).await.unwrap();
    let victim = described(&files())[3].chunks[1].digest;
    let victim = db::frame::find_chunk(fixture.app.db.reader(), &victim)
        .await
        .unwrap()
        .unwrap();
    Planted {
        fixture,
        pusher,
        victim,
    }
}

impl Planted<'_> {
    /// What `fsck` or `scrub` finds, with the steps that each concerns.
    async fn found(&self, read_data: bool) -> BTreeSet<(String, Vec<String>)> {
        let report = fsck::check(&self.fixture.app, read_data).await.unwrap();
        let kind = |kind: ProblemKind| serde_json::to_value(kind).unwrap().as_str().unwrap().to_owned();
        report
            .problems
            .into_iter()
            .map(|problem| (kind(problem.kind), problem.checkpoints))
            .collect()
    }

    async fn assert_found(&self, read_data: bool, kind: &str) {
        let step_1 = (kind.to_owned(), vec!["lab/run@1".to_owned()]);
        assert_eq!(self.found(read_data).await, BTreeSet::from([step_1]));
    }

    /// Reads the damaged file through both doors: either all of its bytes come, or an error.
    async fn assert_read_fails(&self) {
        let revision = checkpoint::resolve(
            &self.fixture.app,
            &self.pusher.caller,
            &self.pusher.run,
            &Reference::Step(1),
        );
        let revision = revision.await.unwrap();
        let read = async {
            let row = checkpoint::file(&self.fixture.app, &revision, "vocab.txt")
                .await
                .map_err(|error| error.to_string())?;
            let parts = content::read_range(&self.fixture.app, &row.chunks, 0..row.size_bytes);
            parts
                .try_collect::<Vec<Bytes>>()
                .await
                .map_err(|error| error.to_string())
        };
        let read = read.await;
        assert!(read.is_err(), "{} parts were read", read.unwrap().len());
    }

    /// The same push as before, which sends what is missing and no more.
    async fn push_again(&self) -> (PushSession, usize) {
        let new = fineline_api::CreatePushSession {
            step: 1,
            manifest_digest: Some(super::fixture::manifest(&described(&files())).digest()),
            ..Default::default()
        };
        let session = crate::service::push_session::create(&self.fixture.app, &self.pusher.run, new)
            .await
            .unwrap();
        assert_eq!(
            session.state,
            PushSessionState::Open,
            "what is damaged can be sent again"
        );
        let all: Vec<Bytes> = files().iter().flat_map(|file| file.chunks.clone()).collect();
        let digests = all.iter().map(|raw| Digest::of(raw)).collect();
        let missing = chunk::missing(&self.fixture.app, &self.pusher.caller, digests)
            .await
            .unwrap();
        for raw in all.iter().filter(|raw| missing.contains(&Digest::of(raw))) {
            let body = frame::encode_raw(raw).into();
            chunk::put(&self.fixture.app, &self.pusher.run, session.id, Digest::of(raw), body)
                .await
                .unwrap();
        }
        let session = self.pusher.commit(session.id, described(&files())).await.unwrap();
        (session, missing.len())
    }

    /// The same push repairs it by sending so many chunks.
    async fn assert_repaired(&self, n_sent: usize) {
        let (session, n) = self.push_again().await;
        assert_eq!(
            (session.state, session.unchanged, n),
            (PushSessionState::Committed, true, n_sent)
        );
        self.fixture.assert_sound().await;
        self.fixture.collect_all().await;
        self.fixture.assert_sound().await;
    }
}

#[tokio::test]
async fn an_object_that_is_missing() {
    let fixture = Fixture::new().await;
    let planted = planted(&fixture).await;
    fixture.app.store.delete_frame(planted.victim.frame_id).await.unwrap();

    planted.assert_read_fails().await;
    planted.assert_found(false, "object_missing").await;
    planted.assert_found(true, "object_missing").await;
    planted.assert_repaired(1).await;
}

#[tokio::test]
async fn a_byte_flipped_in_a_frame() {
    let fixture = Fixture::new().await;
    let planted = planted(&fixture).await;
    let id = planted.victim.frame_id;
    let frame = fixture.app.store.get_frame(id).await.unwrap();
    // Wherever it is flipped it is found: by who hashes what the store holds, and by the registry when it is asked to.
    for at in 0..frame.len() {
        let mut flipped = frame.to_vec();
        flipped[at] ^= 1;
        fixture.app.store.put_frame(id, flipped.into()).await.unwrap();
        let get = |verify| chunk::get(&fixture.app, &planted.pusher.caller, planted.victim.digest, verify);
        let handed_out = frame::decode(&get(false).await.unwrap()).map(|raw| Digest::of(&raw));
        assert_ne!(handed_out, Ok(planted.victim.digest), "byte {at}");
        assert!(get(true).await.is_err(), "byte {at}");
        let known = db::frame::find_chunk(fixture.app.db.reader(), &planted.victim.digest).await;
        assert!(known.unwrap().unwrap().damaged, "byte {at}");
        // As if nobody had asked.
        content::set_damaged(&fixture.app, &planted.victim, false)
            .await
            .unwrap();
    }
    planted.assert_read_fails().await;
    assert!(
        planted.found(false).await.is_empty(),
        "structure alone does not show it"
    );
    planted.assert_found(true, "frame_damaged").await;
    planted.assert_repaired(1).await;
}

#[tokio::test]
async fn a_row_that_points_to_another_frame() {
    let fixture = Fixture::new().await;
    let planted = planted(&fixture).await;
    let other = described(&model(2.0))[1].chunks[0].digest;
    let other = db::frame::find_chunk(fixture.app.db.reader(), &other)
        .await
        .unwrap()
        .unwrap();
    let to = fixture.literal(other.frame_id.as_bytes());
    let of = fixture.literal(planted.victim.digest.as_bytes());
    fixture
        .sql(&format!("UPDATE chunk SET frame_id = {to} WHERE digest = {of}"))
        .await;

    planted.assert_read_fails().await;
    planted.assert_found(false, "chunk_frame").await;
    planted.assert_repaired(1).await;
    let kept = db::frame::find_chunk(fixture.app.db.reader(), &other.digest)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kept.frame_id, other.frame_id, "the other chunk keeps its frame");
}

#[tokio::test]
async fn a_recipe_that_is_a_chunk_short() {
    let fixture = Fixture::new().await;
    let planted = planted(&fixture).await;
    let whole = &described(&files())[3];
    let short = fixture.literal(&recipe::pack(&whole.chunks[1..]));
    let digest = fixture.literal(whole.digest.as_bytes());
    fixture
        .sql(&format!("UPDATE file SET recipe = {short} WHERE digest = {digest}"))
        .await;

    planted.assert_read_fails().await;
    planted.assert_found(false, "recipe_size").await;
    // What the recipe lost is not garbage.
    fixture.collect_all().await;
    planted.assert_found(true, "recipe_size").await;
    planted.assert_repaired(0).await;
}

#[tokio::test]
async fn a_reference_to_a_condemned_frame() {
    let fixture = Fixture::new().await;
    let planted = planted(&fixture).await;
    let id = fixture.literal(planted.victim.frame_id.as_bytes());
    let condemn = format!("UPDATE frame SET state = 'condemned', condemned_at_ms = 1 WHERE id = {id}");
    fixture.sql(&condemn).await;

    planted.assert_found(false, "condemned_needed").await;
    // Its bytes are there still, and are not taken away: the collection sees that it is needed.
    collect::collect(&fixture.app, false).await.unwrap();
    fixture.assert_sound().await;
    // A push that names it revives it too.
    fixture.sql(&condemn).await;
    let digests = vec![planted.victim.digest];
    assert!(
        chunk::missing(&fixture.app, &planted.pusher.caller, digests)
            .await
            .unwrap()
            .is_empty()
    );
    fixture.assert_sound().await;
    // So does one of the very step that holds it.
    fixture.sql(&condemn).await;
    planted.pusher.push(1, &files()).await.unwrap();
    fixture.assert_sound().await;
}

#[tokio::test]
async fn another_runs_push_of_the_same_bytes_repairs_it_too() {
    let fixture = Fixture::new().await;
    let planted = planted(&fixture).await;
    fixture.app.store.delete_frame(planted.victim.frame_id).await.unwrap();
    planted.assert_read_fails().await;
    let stranger = fixture.run("other/run").await;

    stranger.push(1, &files()).await.unwrap();

    fixture.assert_sound().await;
}

#[tokio::test]
async fn a_repair_with_another_cut_is_everybodys_who_has_the_file() {
    // Given a damaged file of two runs, and a third that pushes the same file in other chunks
    let fixture = Fixture::new().await;
    let planted = planted(&fixture).await;
    let second = fixture.run("lab/second").await;
    second.push(1, &files()).await.unwrap();
    fixture.app.store.delete_frame(planted.victim.frame_id).await.unwrap();
    planted.assert_read_fails().await;
    let stranger = fixture.run("other/run").await;
    let cut = |file: TestFile| TestFile {
        chunks: file.bytes().chunks(77).map(Bytes::copy_from_slice).collect(),
        ..file
    };
    let otherwise: Vec<TestFile> = files().into_iter().map(cut).collect();
    stranger.push(1, &otherwise).await.unwrap();
    // When that run is gone, and the grace over
    let options = crate::service::delete::DeleteOptions {
        force: true,
        ..Default::default()
    };
    crate::service::delete::run(&fixture.app, &stranger.caller, &stranger.run, options)
        .await
        .unwrap();
    fixture.collect_all().await;
    fixture.collect_all().await;
    // Then both still have it, and may name what it is cut into.
    fixture.assert_sound().await;
    for pusher in [&planted.pusher, &second] {
        let revision = checkpoint::resolve(&fixture.app, &pusher.caller, &pusher.run, &Reference::Step(1)).await;
        for file in checkpoint::files(&fixture.app, &revision.unwrap(), true).await.unwrap() {
            for piece in file.chunks {
                let frame = chunk::get(&fixture.app, &pusher.caller, piece.digest, true).await;
                frame.unwrap();
            }
        }
    }
}
