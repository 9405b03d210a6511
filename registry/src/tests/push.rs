//! Steps that become ready.

use fineline_api::error::ErrorCode;
use fineline_api::{CheckpointState, CreatePushSession, EventKind, PushSessionState, Reference};
use uuid::Uuid;

use super::fixture::{Fixture, code, described, file, manifest, model};
use crate::db;
use crate::service::examine::examine;
use crate::service::{checkpoint, fsck, push_session, ready, verify};

#[tokio::test]
async fn a_pushed_step_is_ready_with_its_digests_and_an_event() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    let files = model(1.0);

    let session = pusher.push(7, &files).await.unwrap();

    assert_eq!(session.state, PushSessionState::Committed);
    let revision = checkpoint::resolve(&fixture.app, &pusher.caller, &pusher.run, &Reference::Step(7)).await;
    let shown = checkpoint::describe(&fixture.app, &pusher.run, vec![revision.unwrap()]).await;
    let shown = shown.unwrap().pop().unwrap();
    assert_eq!(shown.digest, Some(manifest(&described(&files)).digest()));
    assert_eq!(shown.architecture.as_deref(), Some("LlamaForCausalLM"));
    assert!(shown.evaluable && shown.weights_digest.is_some());
    assert_eq!((shown.n_files, shown.warnings.len()), (3, 0));
    let events = db::event::list(fixture.app.db.reader(), &pusher.run, 0, 10)
        .await
        .unwrap();
    assert_eq!(events[0].kind, EventKind::CheckpointReady);
    let report = fsck::check(&fixture.app, true).await.unwrap();
    assert!(report.problems.is_empty());
    assert_eq!((report.n_files, report.n_checkpoints), (3, 1));
}

#[tokio::test]
async fn the_same_bytes_again_change_nothing_and_others_are_refused_until_replace_is_said() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    let first = pusher.push(1, &model(1.0)).await.unwrap();

    assert!(pusher.push(1, &model(1.0)).await.unwrap().unchanged);
    assert_eq!(code(pusher.push(1, &model(2.0)).await), ErrorCode::StepExists);
    let replace = CreatePushSession {
        step: 1,
        replace: true,
        ..CreatePushSession::default()
    };
    let second = pusher.push_as(replace, &model(2.0)).await.unwrap();

    assert_ne!(first.digest, second.digest);
    let resolve = |reference| checkpoint::resolve(&fixture.app, &pusher.caller, &pusher.run, reference);
    let current = resolve(&Reference::Step(1)).await.unwrap();
    assert_eq!(current.checkpoint, second.digest);
    let old = resolve(&Reference::Digest(first.digest.unwrap())).await.unwrap();
    assert!(!old.current && old.state == CheckpointState::Ready);
}

#[tokio::test]
async fn a_push_that_was_interrupted_goes_on_in_its_session_and_its_last_word_counts() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    let files = model(1.0);
    let new = |tag: &str| CreatePushSession {
        step: 1,
        tags: vec![tag.to_owned()],
        manifest_digest: Some(manifest(&described(&files)).digest()),
        ..CreatePushSession::default()
    };
    let first = push_session::create(&fixture.app, &pusher.run, new("old"))
        .await
        .unwrap();

    let second = pusher.push_as(new("best"), &files).await.unwrap();

    assert_eq!(second.id, first.id);
    let tags = db::tag::list(fixture.app.db.reader(), pusher.run.id).await.unwrap();
    let names: Vec<_> = tags.iter().map(|tag| tag.tag.as_str()).collect();
    assert_eq!(names, ["best"]);
}

#[tokio::test]
async fn who_lost_the_claim_on_a_revision_changes_nothing() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    let files = model(1.0);
    let session = pusher.open(1).await;
    pusher.send(session.id, &files).await.unwrap();
    for file in described(&files) {
        push_session::add_file(&fixture.app, &pusher.run, session.id, file)
            .await
            .unwrap();
    }
    let meant = manifest(&described(&files)).digest();
    let committed = crate::service::commit::commit(&fixture.app, &pusher.caller, &pusher.run, session.id, meant).await;
    committed.unwrap();
    let (slow, fast) = (Uuid::now_v7(), Uuid::now_v7());
    let txn = db::write_txn(&fixture.app.db).await.unwrap();
    let claimed = db::verification::claim(&txn, slow, -1).await.unwrap().unwrap();
    txn.commit().await.unwrap();
    let row = db::push_session::find(fixture.app.db.reader(), pusher.run.id, session.id).await;
    let row = row.unwrap().unwrap();
    let examined = examine(&fixture.app, &pusher.run, &row).await.unwrap();
    let taken_over = verify::claim(&fixture.app, fast).await.unwrap().unwrap();
    verify::verify(&fixture.app, fast, taken_over).await;

    ready::publish(&fixture.app, &pusher.run, &row, slow, claimed, examined)
        .await
        .unwrap();

    let current = db::revision::current(fixture.app.db.reader(), pusher.run.id, 1)
        .await
        .unwrap();
    assert_eq!(current.unwrap().checkpoint, Some(meant));
    assert!(!pusher.session(session.id).await.unwrap().unchanged);
}

#[tokio::test]
async fn what_looks_wrong_is_said_and_does_not_block() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    pusher.push(1, &model(1.0)).await.unwrap();
    let mut files = model(1.0);
    files[2] = file("tokenizer.json", r#"{"other":1}"#);

    let warnings = pusher.push(2, &files).await.unwrap().warnings;

    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("step 1"), "{warnings:?}");
    assert!(warnings[1].contains("`tokenizer.json`"), "{warnings:?}");
}

#[tokio::test]
async fn a_label_names_one_step() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    let labelled = |step, label: &str| CreatePushSession {
        step,
        label: Some(label.to_owned()),
        ..CreatePushSession::default()
    };
    pusher.push_as(labelled(100, "ckpt_1"), &model(1.0)).await.unwrap();
    let create = |new| push_session::create(&fixture.app, &pusher.run, new);

    assert_eq!(code(create(labelled(200, "ckpt_1")).await), ErrorCode::Conflict);
    for bad in ["step-100", "latest", "a//b"] {
        assert_eq!(
            code(create(labelled(200, bad)).await),
            ErrorCode::InvalidRequest,
            "{bad}"
        );
    }
    assert!(create(labelled(200, "000200")).await.is_ok());
    let named = Reference::Name("ckpt_1".to_owned());
    let found = checkpoint::resolve(&fixture.app, &pusher.caller, &pusher.run, &named).await;
    assert_eq!(found.unwrap().step, 100);
}
