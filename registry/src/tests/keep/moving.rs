//! Moves: the other place has every row and byte, and the old one takes no writes.

use fineline_api::error::ErrorCode;

use super::super::fixture::{Fixture, code, database_of, described, model};
use super::{Elsewhere, app, assert_sound, contents, furnish, here, quiet, refusal, sqlite_in};
use crate::db::{self, Db};
use crate::service::chunk;
use crate::service::fsck;
use crate::service::keep::relocate::{relocate, take_back};

/// From the engine that the tests run on to SQLite and back.
#[tokio::test]
async fn the_engines_have_the_same_tables_and_each_has_the_others_rows() {
    let sorted = async |db: &Db| {
        let txn = db::read_txn(db).await.unwrap();
        let mut tables = db::dump::tables(&txn).await.unwrap();
        for table in &mut tables {
            table.columns.sort_by(|a, b| a.name.cmp(&b.name));
        }
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        tables
    };
    let fixture = Fixture::new().await;
    furnish(&fixture).await;
    let (middle, end) = (Elsewhere::new(), Elsewhere::new());
    let sqlite = middle.place(&sqlite_in(&middle.dir)).await;
    assert_eq!(sorted(&fixture.app.db).await, sorted(&sqlite.db).await);
    let before = contents(&fixture.app.db).await;

    relocate(&here(&fixture), &sqlite, false, &quiet).await.unwrap();
    assert_eq!(contents(&sqlite.db).await, before);
    let postgres = end.place(&database_of(end.dir.path())).await;
    relocate(&sqlite, &postgres, false, &quiet).await.unwrap();

    assert_eq!(contents(&postgres.db).await, before);
    assert_sound(&app(postgres.db, &end.store)).await;
}

#[tokio::test]
async fn after_a_move_the_old_place_takes_no_writes_and_the_same_command_changes_nothing() {
    let fixture = Fixture::new().await;
    furnish(&fixture).await;
    let (from, elsewhere) = (here(&fixture), Elsewhere::new());
    let to = elsewhere.place(&database_of(elsewhere.dir.path())).await;
    let before = contents(&from.db).await;

    let moved = relocate(&from, &to, false, &quiet).await.unwrap();
    assert!(
        moved.tables.iter().all(|table| table.n_rows_from == table.n_rows_to),
        "{moved:?}"
    );
    assert_eq!(contents(&to.db).await, before);
    let body = fineline_format::frame::encode_raw(b"late").into();
    let late = chunk::keep(
        &fixture.app,
        fineline_api::ChunkRef {
            digest: fineline_format::Digest::of(b"late"),
            size_bytes: 4,
        },
        body,
    );
    assert_eq!(code(late.await), ErrorCode::Unavailable);

    // The new place is in use by now.
    let app = elsewhere.app().await;
    let txn = db::write_txn(&app.db).await.unwrap();
    db::run::insert(&txn, &"lab/new".parse().unwrap(), &Default::default())
        .await
        .unwrap();
    txn.commit().await.unwrap();
    relocate(&from, &to, false, &quiet).await.unwrap();
    let other = Elsewhere::new();
    let elsewhere_again = other.place(&sqlite_in(&other.dir)).await;
    assert!(refusal(relocate(&from, &elsewhere_again, false, &quiet).await).contains("moved to database"));
    assert!(refusal(take_back(&from.db).await).contains("has ended"));
    assert_sound(&app).await;
}

#[tokio::test]
async fn a_move_is_refused_onto_something_and_with_damage_and_is_taken_back() {
    let fixture = Fixture::new().await;
    furnish(&fixture).await;
    let (from, elsewhere) = (here(&fixture), Elsewhere::new());
    let to = elsewhere.place(&database_of(elsewhere.dir.path())).await;
    assert!(refusal(take_back(&from.db).await).contains("no move is under way"));
    let victim = described(&model(2.0))[1].chunks[0].digest;
    let row = db::frame::find_chunk(from.db.reader(), &victim).await.unwrap().unwrap();
    from.store.delete_frame(row.frame_id).await.unwrap();
    assert!(refusal(relocate(&from, &to, false, &quiet).await).contains("1 frames are damaged"));

    // It did not depart: here is written on, and there is nothing.
    drop(db::write_txn(&from.db).await.unwrap());
    let txn = db::write_txn(&from.db).await.unwrap();
    let departure = db::departure::Departure {
        id: uuid::Uuid::now_v7(),
        database: to.database_url.clone(),
        store: to.store_url.clone(),
        ended: false,
    };
    db::departure::begin(&txn, &departure).await.unwrap();
    txn.commit().await.unwrap();
    assert!(db::write_txn(&from.db).await.is_err());
    take_back(&from.db).await.unwrap();
    drop(db::write_txn(&from.db).await.unwrap());

    let moved = relocate(&from, &to, true, &quiet).await.unwrap();
    assert_eq!(moved.frames.bad_frames.len(), 1);
    let problems = fsck::check(&elsewhere.app().await, true).await.unwrap().problems;
    assert_eq!(problems.len(), 1, "{problems:#?}");
}
