//! Taking steps and runs away: what goes, what stays, and when the bytes are back.

use std::time::Duration;

use fineline_api::error::ErrorCode;
use fineline_api::{CheckpointFile, CreatePushSession, Deletion, Reference, Retention};
use fineline_format::Digest;

use super::fixture::{Fixture, Pusher, TestFile, code, described, file, manifest, model};
use crate::db;
use crate::error::ApiResult;
use crate::service::delete::{self, DeleteOptions};
use crate::service::{checkpoint, chunk, collect, retention, tag};

const FORCE: DeleteOptions = DeleteOptions {
    force: true,
    scores: false,
    dry_run: false,
};

impl Pusher<'_> {
    async fn delete(&self, step: u64, options: DeleteOptions) -> ApiResult<Deletion> {
        delete::checkpoint(self.app, &self.caller, &self.run, &Reference::Step(step), options).await
    }

    async fn steps(&self) -> Vec<u64> {
        let filter = db::revision::RevisionFilter::default();
        let rows = db::revision::list(self.app.db.reader(), self.run.id, filter, None, 100).await;
        rows.unwrap().iter().map(|row| row.step).collect()
    }
}

fn chunks_of(files: &[TestFile]) -> Vec<Digest> {
    let files = described(files);
    let chunks = files.iter().flat_map(|file| &file.chunks);
    chunks.map(|chunk| chunk.digest).collect()
}

async fn n_frames(fixture: &Fixture) -> usize {
    db::frame::list_chunks(fixture.app.db.reader(), None, 1000)
        .await
        .unwrap()
        .len()
}

#[tokio::test]
async fn a_deleted_step_is_gone_at_once_and_its_bytes_after_the_grace() {
    // Given two steps that share their tokenizer and config
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    for step in [1, 2] {
        pusher.push(step, &model(step as f32)).await.unwrap();
    }
    let n_before = n_frames(&fixture).await;
    // When one is deleted, after a look at what would go
    let dry = DeleteOptions {
        dry_run: true,
        ..DeleteOptions::default()
    };
    let would = pusher.delete(1, dry).await.unwrap();
    assert_eq!(pusher.steps().await, [1, 2]);
    let did = pusher.delete(1, DeleteOptions::default()).await.unwrap();
    // Then it is gone, its bytes are not
    assert_eq!((would.checkpoints.len(), would.freed_bytes), (1, did.freed_bytes));
    assert_eq!(pusher.steps().await, [2]);
    assert_eq!(code(pusher.delete(1, FORCE).await), ErrorCode::NotFound);
    let first = collect::collect(&fixture.app, false).await.unwrap();
    assert_eq!((first.condemned.stored_bytes, first.deleted.n), (did.freed_bytes, 0));
    assert_eq!(n_frames(&fixture).await, n_before);
    // Until the grace is over
    let freed = fixture.collect_all().await;
    assert_eq!(freed.deleted.stored_bytes, did.freed_bytes);
    assert_eq!(n_frames(&fixture).await, n_before - freed.deleted.n as usize);
    fixture.assert_sound().await;
}

#[tokio::test]
async fn named_steps_go_only_by_force_and_their_names_with_them() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    for step in [1, 2] {
        pusher.push(step, &model(step as f32)).await.unwrap();
    }
    tag::set(&fixture.app, &pusher.caller, &pusher.run, "good", &Reference::Step(1))
        .await
        .unwrap();
    let new = fineline_api::CreateRelease {
        release: "v1".to_owned(),
        reference: Reference::Step(2),
        notes: String::new(),
    };
    tag::release(&fixture.app, &pusher.caller, &pusher.run, new)
        .await
        .unwrap();

    for step in [1, 2] {
        let refused = pusher.delete(step, DeleteOptions::default()).await;
        assert_eq!(code(refused), ErrorCode::Conflict);
    }
    assert_eq!(
        code(delete::run(&fixture.app, &pusher.caller, &pusher.run, DeleteOptions::default()).await),
        ErrorCode::Conflict
    );
    assert_eq!(pusher.delete(1, FORCE).await.unwrap().checkpoints[0].names, ["good"]);
    assert_eq!(pusher.delete(2, FORCE).await.unwrap().checkpoints[0].names, ["v1"]);

    assert!(pusher.steps().await.is_empty());
    assert!(!db::tag::any(fixture.app.db.reader(), pusher.run.id).await.unwrap());
}

#[tokio::test]
async fn a_deleted_step_can_be_pushed_again_within_the_grace_and_after_it() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    let files = model(1.0);
    let chunks = chunks_of(&files);
    pusher.push(1, &files).await.unwrap();
    pusher.delete(1, FORCE).await.unwrap();
    collect::collect(&fixture.app, false).await.unwrap();
    // Within the grace everything is held still
    assert!(
        chunk::missing(&fixture.app, &pusher.caller, chunks.clone())
            .await
            .unwrap()
            .is_empty()
    );
    pusher.push(1, &files).await.unwrap();
    fixture.collect_all().await;
    fixture.assert_sound().await;
    assert_eq!(pusher.steps().await, [1]);
    // After it nothing is, and nobody is told otherwise
    pusher.delete(1, FORCE).await.unwrap();
    fixture.collect_all().await;
    assert_eq!(n_frames(&fixture).await, 0);
    let missing = chunk::missing(&fixture.app, &pusher.caller, chunks.clone())
        .await
        .unwrap();
    assert_eq!(missing.len(), chunks.len());
    pusher.push(1, &files).await.unwrap();
    fixture.assert_sound().await;
}

#[tokio::test]
async fn what_missing_said_is_there_stays_until_the_commit() {
    // Given a step that was deleted, and whose grace is nearly over
    let fixture = Fixture::new().await;
    let (a, mut b) = (fixture.run("lab/a").await, fixture.run("lab/b").await);
    let files = model(1.0);
    a.push(1, &files).await.unwrap();
    a.delete(1, FORCE).await.unwrap();
    collect::collect(&fixture.app, false).await.unwrap();
    fixture.age(Duration::from_secs(70 * 3600)).await;
    // When a push of another run is told that its chunks are there, and the grace ends before it commits
    b.caller = fixture
        .caller(fineline_api::Scope::Write, "lab/*".parse().unwrap())
        .await;
    let session = b.open(5).await;
    let chunks = chunks_of(&files);
    assert!(
        chunk::missing(&fixture.app, &b.caller, chunks)
            .await
            .unwrap()
            .is_empty()
    );
    for _ in 0..2 {
        fixture.age(Duration::from_secs(10 * 3600)).await;
        collect::collect(&fixture.app, false).await.unwrap();
    }
    // Then the push commits without sending a byte
    let session = b.commit(session.id, described(&files)).await.unwrap();
    assert_eq!(session.state, fineline_api::PushSessionState::Committed);
    fixture.collect_all().await;
    fixture.assert_sound().await;
}

#[tokio::test]
async fn what_missing_said_is_there_stays_when_only_the_asker_had_let_go_of_it() {
    // Given two runs with the same step, of which one deleted its own; the frames live on for the other
    let fixture = Fixture::new().await;
    let (a, b) = (fixture.run("lab/a").await, fixture.run("lab/b").await);
    let files = model(1.0);
    for pusher in [&a, &b] {
        pusher.push(1, &files).await.unwrap();
    }
    a.delete(1, FORCE).await.unwrap();
    collect::collect(&fixture.app, false).await.unwrap();
    fixture.age(Duration::from_secs(70 * 3600)).await;
    // When it pushes again, is told that the chunks are there, and the grace of what it let go of ends before it commits
    let writer = fixture
        .caller(fineline_api::Scope::Write, "lab/a".parse().unwrap())
        .await;
    let a = Pusher { caller: writer, ..a };
    let session = a.open(2).await;
    let missing = chunk::missing(&fixture.app, &a.caller, chunks_of(&files)).await;
    assert_eq!(missing.unwrap(), []);
    fixture.age(Duration::from_secs(10 * 3600)).await;
    collect::collect(&fixture.app, false).await.unwrap();
    // Then it may still name them, and commits without sending a byte
    let session = a.commit(session.id, described(&files)).await.unwrap();
    assert_eq!(session.state, fineline_api::PushSessionState::Committed);
    fixture.collect_all().await;
    fixture.assert_sound().await;
}

#[tokio::test]
async fn a_deleted_run_frees_its_name_at_once_and_is_forgotten_after_the_grace() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    pusher.push(1, &model(1.0)).await.unwrap();

    delete::run(&fixture.app, &pusher.caller, &pusher.run, FORCE)
        .await
        .unwrap();

    let gone = db::run::find(fixture.app.db.reader(), &pusher.run.name).await.unwrap();
    assert!(gone.is_none());
    let again = fixture.run("lab/run").await;
    again.push(1, &model(2.0)).await.unwrap();
    fixture.collect_all().await;
    fixture.assert_sound().await;
    assert_eq!(again.steps().await, [1]);
    assert!(
        db::run::ids(fixture.app.db.reader(), true, 0, 10)
            .await
            .unwrap()
            .is_empty(),
        "the old one is forgotten"
    );
    delete::run(&fixture.app, &again.caller, &again.run, FORCE)
        .await
        .unwrap();
    fixture.collect_all().await;
    assert_eq!(n_frames(&fixture).await, 0);
}

#[tokio::test]
async fn a_rule_of_retention_keeps_the_newest_every_kth_and_the_named() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    for step in 1..=10 {
        // A file of its own alone: nothing here waits for an evaluation.
        pusher
            .push(step, &[file("note.txt", format!("step {step}"))])
            .await
            .unwrap();
    }
    tag::set(&fixture.app, &pusher.caller, &pusher.run, "good", &Reference::Step(3))
        .await
        .unwrap();
    let rule = Retention {
        keep_last: 2,
        keep_every: Some(4),
    };

    let would = retention::set(&fixture.app, &pusher.caller, &pusher.run, rule, true)
        .await
        .unwrap();
    assert_eq!(pusher.steps().await.len(), 10);
    retention::set(&fixture.app, &pusher.caller, &pusher.run, rule, false)
        .await
        .unwrap();

    let steps: Vec<u64> = would.checkpoints.iter().map(|gone| gone.step).collect();
    assert_eq!(steps, [1, 2, 5, 6, 7]);
    assert_eq!(pusher.steps().await, [3, 4, 8, 9, 10]);
    // And from now on by itself
    for step in 11..=13 {
        pusher
            .push(step, &[file("note.txt", format!("step {step}"))])
            .await
            .unwrap();
    }
    retention::apply_all(&fixture.app).await.unwrap();
    assert_eq!(pusher.steps().await, [3, 4, 8, 12, 13]);
    let freed = fixture.collect_all().await;
    assert_eq!(freed.deleted.n, 8);
    for rule in [
        Retention::default(),
        Retention {
            keep_last: 1,
            keep_every: Some(0),
        },
    ] {
        assert_eq!(
            code(retention::set(&fixture.app, &pusher.caller, &pusher.run, rule, true).await),
            ErrorCode::InvalidRequest
        );
    }
}

#[tokio::test]
async fn a_replaced_revision_is_read_by_digest_and_deleted_by_it_alone() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    let (old, new) = (model(1.0), model(2.0));
    pusher.push(1, &old).await.unwrap();
    let replace = |files: &[TestFile]| CreatePushSession {
        step: 1,
        replace: true,
        manifest_digest: Some(manifest(&described(files)).digest()),
        ..CreatePushSession::default()
    };
    pusher.push_as(replace(&new), &new).await.unwrap();
    let digest = |files: &[TestFile]| manifest(&described(files)).digest();
    let resolve = async |reference| checkpoint::resolve(&fixture.app, &pusher.caller, &pusher.run, &reference).await;
    assert!(resolve(Reference::Digest(digest(&old))).await.is_ok());
    fixture.collect_all().await;
    fixture.assert_sound().await;

    let by_digest = Reference::Digest(digest(&old));
    delete::checkpoint(&fixture.app, &pusher.caller, &pusher.run, &by_digest, FORCE)
        .await
        .unwrap();

    assert_eq!(
        resolve(Reference::Step(1)).await.unwrap().checkpoint,
        Some(digest(&new))
    );
    assert_eq!(code(resolve(by_digest).await), ErrorCode::NotFound);
    fixture.collect_all().await;
    fixture.assert_sound().await;
}

#[tokio::test]
async fn deleting_the_current_revision_by_digest_brings_the_one_before_back() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    let (old, new) = (model(1.0), model(2.0));
    let digest = |files: &[TestFile]| manifest(&described(files)).digest();
    pusher.push(1, &old).await.unwrap();
    let replace = CreatePushSession {
        step: 1,
        replace: true,
        manifest_digest: Some(digest(&new)),
        ..CreatePushSession::default()
    };
    pusher.push_as(replace, &new).await.unwrap();

    let by_digest = Reference::Digest(digest(&new));
    delete::checkpoint(&fixture.app, &pusher.caller, &pusher.run, &by_digest, FORCE)
        .await
        .unwrap();

    let now = checkpoint::resolve(&fixture.app, &pusher.caller, &pusher.run, &Reference::Step(1)).await;
    assert_eq!(now.unwrap().checkpoint, Some(digest(&old)));
    fixture.collect_all().await;
    fixture.assert_sound().await;
}

#[tokio::test]
async fn who_comes_to_a_deleted_runs_name_later_knows_nothing_of_it() {
    // Given a run that was deleted, and another one of its name with people of its own
    let fixture = Fixture::new().await;
    let before = fixture.run("lab/run").await;
    let files = model(1.0);
    before.push(1, &files).await.unwrap();
    delete::run(&fixture.app, &before.caller, &before.run, FORCE)
        .await
        .unwrap();
    let after = fixture.run("lab/run").await;
    // When they name what it held, by chunk or by file
    let chunks = chunks_of(&files);
    for chunk in &chunks {
        assert_eq!(
            code(chunk::get(&fixture.app, &after.caller, *chunk, false).await),
            ErrorCode::NotFound
        );
    }
    assert_eq!(
        chunk::missing(&fixture.app, &after.caller, chunks.clone())
            .await
            .unwrap()
            .len(),
        chunks.len()
    );
    let session = after.open(1).await;
    let whole = files[1].described();
    let forged = file("model.safetensors", vec![7; usize::try_from(whole.size_bytes).unwrap()]);
    after.send(session.id, std::slice::from_ref(&forged)).await.unwrap();
    let said = CheckpointFile {
        digest: whole.digest,
        ..forged.described()
    };
    let session = after.commit(session.id, vec![said]).await.unwrap();
    // Then it is unknown to them; to those who were there before it is not, for the grace.
    assert_eq!(session.state, fineline_api::PushSessionState::Failed);
    assert!(
        chunk::missing(&fixture.app, &before.caller, chunks)
            .await
            .unwrap()
            .is_empty()
    );
}
