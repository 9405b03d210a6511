//! A default tokenizer that was set and not yet lent to every step, as a crash leaves it; and one whose checkpoint goes.

use fineline_api::{Reference, Scope, SetTokenizer};
use fineline_format::Digest;

use super::fixture::{Fixture, file, model};
use crate::db;
use crate::service::delete::{self, DeleteOptions};
use crate::service::{content, tokenizer};

#[tokio::test]
async fn the_sweep_lends_what_a_crash_left() {
    // Given a step without a tokenizer, and a default that was set and lent to none
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    let mut bare = model(1.0);
    bare.pop();
    pusher.push(1, &bare).await.unwrap();
    pusher.push(2, &[file("tokenizer.json", "{}")]).await.unwrap();
    let set = SetTokenizer {
        run: pusher.run.name.clone(),
        reference: "2".parse().unwrap(),
        backfill: false,
    };
    let admin = fixture.caller(Scope::Admin, "*".parse().unwrap()).await;
    let told = tokenizer::set(&fixture.app, &admin, &pusher.run, set).await.unwrap();
    assert_eq!(told.n_evaluable, 1);
    let current = async || {
        let row = db::revision::current(fixture.app.db.reader(), pusher.run.id, 1).await;
        row.unwrap().unwrap().model_digest
    };
    let lent = current().await;
    fixture
        .sql("UPDATE revision SET model_digest = NULL, tokenizer_digest = NULL")
        .await;
    assert_eq!(current().await, None);
    // When the sweep looks after it
    tokenizer::catch_up(&fixture.app).await.unwrap();
    // Then the step is the same model.
    assert!(lent.is_some());
    assert_eq!(current().await, lent);
}

#[tokio::test]
async fn a_lent_tokenizer_outlives_the_checkpoint_that_it_came_from() {
    // Given a step that was lent the tokenizer of another
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    let mut bare = model(1.0);
    bare.pop();
    pusher.push(1, &bare).await.unwrap();
    let lent = file("tokenizer.json", "lent alone");
    pusher.push(2, std::slice::from_ref(&lent)).await.unwrap();
    let set = SetTokenizer {
        run: pusher.run.name.clone(),
        reference: Reference::Step(2),
        backfill: false,
    };
    tokenizer::set(&fixture.app, &pusher.caller, &pusher.run, set)
        .await
        .unwrap();
    // When that one is deleted and collected
    let step = Reference::Step(2);
    delete::checkpoint(
        &fixture.app,
        &pusher.caller,
        &pusher.run,
        &step,
        DeleteOptions::default(),
    )
    .await
    .unwrap();
    fixture.collect_all().await;
    // Then the file can still be read.
    let bytes = content::read_content(&fixture.app, &Digest::of(&lent.bytes())).await;
    assert_eq!(bytes.unwrap().as_ref(), lent.bytes());
    fixture.assert_sound().await;
}
