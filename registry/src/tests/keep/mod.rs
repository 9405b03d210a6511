//! Backups, restores and moves by their services: one moment whatever happens beside it, row by row and byte by byte.

mod moving;

use std::sync::mpsc;

use fineline_api::{Reference, RunPattern, Scope};
use metrics_exporter_prometheus::PrometheusBuilder;
use tempfile::TempDir;

use super::fixture::{Fixture, Pusher, database_of, described, file, manifest, model};
use crate::app::{App, Options};
use crate::auth::authenticate;
use crate::db::{self, Db};
use crate::service::collect;
use crate::service::delete::{self, DeleteOptions};
use crate::service::fsck::{self, ProblemKind};
use crate::service::keep::backup::{BackupOptions, Made, backup};
use crate::service::keep::relocate::Place;
use crate::service::keep::restore::{Restored, restore};
use crate::service::keep::{KeepError, place};
use crate::store::Store;

fn quiet(_: &str) {}

/// A run with two steps, a score and a login, with what an engine could round or reorder.
async fn furnish(fixture: &Fixture) {
    let pusher = fixture.run("lab/run").await;
    pusher.push(1, &model(1.0)).await.unwrap();
    let mut second = model(2.0);
    second.push(file("vocab.txt", vec![7; 2500]));
    pusher.push(2, &second).await.unwrap();
    let score = "INSERT INTO score (revision_id, task, metric, filter, value, stderr, n, n_shot, higher_is_better, harness, \
        provenance, created_at_ms) VALUES ((SELECT MIN(id) FROM revision), 't', 'm', 'f', 0.30000000000000004, 5e-324, 3, 0, \
        TRUE, 'h', '{\"b\": 1.50e2,  \"a\": 12345678901234567890123}', 5)";
    fixture.sql(score).await;
    let login = "INSERT INTO web_session (secret_sha256, token_id, created_at_ms, expires_at_ms) \
        SELECT secret_sha256, id, 1, 9000000000000000 FROM token LIMIT 1";
    fixture.sql(login).await;
    let suite = "INSERT INTO suite (digest, name, definition, size_bytes, created_at_ms) \
        SELECT secret_sha256, 's', '{}', 1, 1 FROM token LIMIT 1";
    fixture.sql(suite).await;
    let leased = "INSERT INTO evaluation (id, namespace, run_id, revision_id, model_digest, suite_digest, dtype, state, \
        n_failures, n_expiries, not_before_ms, token_id, lease_sha256, lease_expires_at_ms, created_at_ms) \
        SELECT t.id, 'lab', r.run_id, r.id, s.digest, s.digest, 'float32', 'leased', 0, 0, 0, t.id, s.digest, \
        9000000000000000, 1 FROM token t, revision r, suite s LIMIT 1";
    fixture.sql(leased).await;
}

/// An empty place of the engine that the tests run on.
struct Elsewhere {
    dir: TempDir,
    store: Store,
}

impl Elsewhere {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            store: Store::in_memory(),
        }
    }

    async fn restore(&self, from: &Store) -> Result<Restored, KeepError> {
        let db = Db::connect(&database_of(self.dir.path())).await.unwrap();
        restore(from, None, &db, &self.store, &quiet).await
    }

    async fn place(&self, database_url: &str) -> Place {
        Place {
            db: Db::open(database_url).await.unwrap(),
            store: self.store.clone(),
            database_url: database_url.to_owned(),
            store_url: "memory:".to_owned(),
        }
    }

    async fn app(&self) -> App {
        app(Db::open(&database_of(self.dir.path())).await.unwrap(), &self.store)
    }
}

fn app(db: Db, store: &Store) -> App {
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    App::new(db, store.clone(), Options::default(), metrics)
}

fn sqlite_in(dir: &TempDir) -> String {
    format!("sqlite://{}", dir.path().join("other.db").display())
}

fn here(fixture: &Fixture) -> Place {
    Place {
        db: fixture.app.db.clone(),
        store: fixture.app.store.clone(),
        database_url: "here".to_owned(),
        store_url: "memory:".to_owned(),
    }
}

async fn back_up(app: &App, to: &Store) -> Made {
    backup(&app.db, &app.store, to, BackupOptions::default(), &quiet)
        .await
        .unwrap()
}

/// Every table with its rows and their digest.
async fn contents(db: &Db) -> Vec<(String, (u64, fineline_format::Digest))> {
    let txn = db::read_txn(db).await.unwrap();
    let tables = db::dump::tables(&txn).await.unwrap();
    let mut contents = Vec::new();
    for mut table in tables {
        // The engines may have them in another order.
        table.columns.sort_by(|a, b| a.name.cmp(&b.name));
        contents.push((table.name.clone(), db::dump::digest(&txn, &table).await.unwrap()));
    }
    contents
}

async fn delete_step(pusher: &Pusher<'_>, step: u64) {
    let options = DeleteOptions {
        force: true,
        ..DeleteOptions::default()
    };
    let step = Reference::Step(step);
    delete::checkpoint(pusher.app, &pusher.caller, &pusher.run, &step, options)
        .await
        .unwrap();
}

fn refusal<T>(result: Result<T, KeepError>) -> String {
    match result {
        Err(KeepError::Refused { message, .. }) => message,
        Err(other) => panic!("it failed otherwise: {other}"),
        Ok(_) => panic!("a refusal was expected"),
    }
}

/// A backup that waits behind its snapshot.
struct Paused {
    backing_up: tokio::task::JoinHandle<Result<Made, KeepError>>,
    go_on: mpsc::Sender<()>,
}

impl Paused {
    fn behind_the_snapshot(app: &App, to: &Store) -> Self {
        let (reached, is_reached) = mpsc::channel();
        let (go_on, told) = mpsc::channel();
        let told = std::sync::Mutex::new(told);
        let (app, to) = (app.clone(), to.clone());
        let backing_up = tokio::spawn(async move {
            let wait = |text: &str| {
                if text.contains("tables were read") {
                    reached.send(()).unwrap();
                    tokio::task::block_in_place(|| told.lock().unwrap().recv().unwrap());
                }
            };
            backup(&app.db, &app.store, &to, BackupOptions::default(), &wait).await
        });
        tokio::task::block_in_place(|| is_reached.recv().unwrap());
        Self { backing_up, go_on }
    }

    async fn go_on(self) -> Result<Made, KeepError> {
        self.go_on.send(()).unwrap();
        self.backing_up.await.unwrap()
    }
}

async fn assert_sound(app: &App) {
    let problems = fsck::check(app, true).await.unwrap().problems;
    assert!(problems.is_empty(), "{problems:#?}");
}

#[tokio::test]
async fn a_backup_comes_back_row_by_row_and_byte_by_byte() {
    let fixture = Fixture::new().await;
    furnish(&fixture).await;
    let secret = "fl_secret";
    let token = format!(
        "UPDATE token SET secret_sha256 = {}",
        fixture.literal(fineline_format::Digest::of(secret.as_bytes()).as_bytes())
    );
    fixture.sql(&token).await;
    let (to, elsewhere) = (Store::in_memory(), Elsewhere::new());

    let made = back_up(&fixture.app, &to).await;
    let restored = elsewhere.restore(&to).await.unwrap();

    assert_eq!((restored.id, restored.n_rows), (made.id, made.n_rows));
    let app = elsewhere.app().await;
    let differ: Vec<String> = contents(&app.db)
        .await
        .into_iter()
        .zip(contents(&fixture.app.db).await)
        .filter(|(restored, kept)| restored != kept)
        .map(|(restored, _)| restored.0)
        .collect();
    // A worker of the other server has no lease here, and browsers log in again.
    assert_eq!(differ, ["evaluation", "web_session"]);
    assert!(!db::lease::any_leased(app.db.reader()).await.unwrap());
    assert!(db::lease::any_leased(fixture.app.db.reader()).await.unwrap());
    assert_sound(&app).await;
    authenticate(&app, Some(secret)).await.unwrap();
    // What is counted is counted on.
    let txn = db::write_txn(&app.db).await.unwrap();
    let run = db::run::insert(&txn, &"lab/new".parse().unwrap(), &Default::default())
        .await
        .unwrap()
        .unwrap();
    assert!(run.id > 1);
    txn.commit().await.unwrap();
    // A second restore would mix two registries.
    assert!(refusal(elsewhere.restore(&to).await).contains("is not empty"));
}

#[tokio::test]
async fn ids_that_were_given_are_not_given_again() {
    let fixture = Fixture::new().await;
    furnish(&fixture).await;
    fixture.sql("DELETE FROM event").await;
    let (to, elsewhere) = (Store::in_memory(), Elsewhere::new());
    back_up(&fixture.app, &to).await;
    elsewhere.restore(&to).await.unwrap();
    let mut last = Vec::new();
    for db in [&fixture.app.db, &elsewhere.app().await.db] {
        let txn = db::read_txn(db).await.unwrap();
        let tables = db::dump::tables(&txn).await.unwrap();
        let event = tables.iter().find(|table| table.name == "event").unwrap();
        last.push(db::dump::last_id(&txn, event).await.unwrap());
    }
    assert_eq!(last[0], last[1]);
    assert!(last[0] > Some(0), "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_snapshot_names_is_there_when_it_is_copied_whatever_is_collected() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    pusher.push(1, &model(1.0)).await.unwrap();
    pusher.push(2, &model(2.0)).await.unwrap();
    // Step 1 is on its way out already when the backup begins.
    delete_step(&pusher, 1).await;
    collect::collect(&fixture.app, false).await.unwrap();
    let to = Store::in_memory();
    let paused = Paused::behind_the_snapshot(&fixture.app, &to);

    // Between snapshot and copy the other step goes too, twice the grace passes, and all is collected.
    delete_step(&pusher, 2).await;
    let n_objects = fixture.app.store.count_objects().await;
    let report = fixture.collect_all().await;
    assert_eq!((report.deleted.n, report.waiting.n > 0), (0, true), "{report:?}");
    assert_eq!(fixture.app.store.count_objects().await, n_objects);
    let made = paused.go_on().await.unwrap();
    assert!(made.frames.bad_frames.is_empty(), "{made:?}");
    let elsewhere = Elsewhere::new();
    elsewhere.restore(&to).await.unwrap();
    assert_sound(&elsewhere.app().await).await;
    // With the hold given back, it goes.
    fixture.collect_all().await;
    assert_eq!(fixture.app.store.count_objects().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_whose_hold_ran_out_is_none() {
    let fixture = Fixture::new().await;
    furnish(&fixture).await;
    let to = Store::in_memory();
    let paused = Paused::behind_the_snapshot(&fixture.app, &to);
    // Its process stood still for a minute, as far as the database can tell.
    fixture.sql("UPDATE hold SET until_ms = 0").await;
    assert!(refusal(paused.go_on().await).contains("stood still"));
    assert_eq!(place::list(&to).await.unwrap(), Vec::<String>::new());
    back_up(&fixture.app, &to).await;
}

#[tokio::test]
async fn one_at_a_time() {
    let fixture = Fixture::new().await;
    let txn = db::write_txn(&fixture.app.db).await.unwrap();
    let other = uuid::Uuid::now_v7();
    assert_eq!(db::hold::begin(&txn, other, "move", 60_000).await.unwrap(), None);
    txn.commit().await.unwrap();
    let to = Store::in_memory();
    let refused = backup(
        &fixture.app.db,
        &fixture.app.store,
        &to,
        BackupOptions::default(),
        &quiet,
    )
    .await;
    assert_eq!(refusal(refused), "a move of this registry is under way");
}

#[tokio::test]
async fn what_is_damaged_is_named_and_the_rest_is_kept() {
    let fixture = Fixture::new().await;
    furnish(&fixture).await;
    let victim = described(&model(2.0))[1].chunks[0].digest;
    let row = db::frame::find_chunk(fixture.app.db.reader(), &victim)
        .await
        .unwrap()
        .unwrap();
    fixture.app.store.delete_frame(row.frame_id).await.unwrap();
    let (to, elsewhere) = (Store::in_memory(), Elsewhere::new());

    let made = back_up(&fixture.app, &to).await;
    let [bad] = &*made.frames.bad_frames else {
        panic!("{made:?}")
    };
    assert_eq!((bad.chunk, bad.frame), (victim, row.frame_id));
    // Known here and there: the next push that has it sends it again.
    let restored = elsewhere.restore(&to).await.unwrap();
    assert_eq!(restored.frames.bad_frames.len(), 1);
    for app in [&fixture.app, &elsewhere.app().await] {
        let row = db::frame::find_chunk(app.db.reader(), &victim).await.unwrap().unwrap();
        assert!(row.damaged);
        let problems = fsck::check(app, true).await.unwrap().problems;
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert_eq!(problems[0].kind, ProblemKind::ObjectMissing);
    }
    // Repaired and kept again, it is whole.
    let pusher_files = described(&model(2.0));
    let session = fineline_api::CreatePushSession {
        step: 3,
        manifest_digest: Some(manifest(&pusher_files).digest()),
        ..Default::default()
    };
    let caller = fixture.caller(Scope::Write, RunPattern::All).await;
    let run = db::run::find(fixture.app.db.reader(), &"lab/run".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    let pusher = Pusher {
        app: &fixture.app,
        run,
        caller,
    };
    pusher.push_as(session, &model(2.0)).await.unwrap();
    assert!(back_up(&fixture.app, &to).await.frames.bad_frames.is_empty());
    let again = Elsewhere::new();
    again.restore(&to).await.unwrap();
    assert_sound(&again.app().await).await;
}

#[tokio::test]
async fn a_second_backup_brings_what_is_new_and_takes_away_what_no_other_names() {
    let fixture = Fixture::new().await;
    let pusher = fixture.run("lab/run").await;
    pusher.push(1, &model(1.0)).await.unwrap();
    let to = Store::in_memory();
    let first = back_up(&fixture.app, &to).await;
    assert_eq!((first.frames.n_copied, first.frames.n_held), (3, 0));

    pusher.push(2, &model(2.0)).await.unwrap();
    let second = back_up(&fixture.app, &to).await;
    // Config and tokenizer are the same.
    assert_eq!((second.frames.n_copied, second.frames.n_held), (1, 3));

    delete_step(&pusher, 1).await;
    fixture.collect_all().await;
    let keep = BackupOptions {
        verify: true,
        keep_last: Some(1),
    };
    let third = backup(&fixture.app.db, &fixture.app.store, &to, keep, &quiet)
        .await
        .unwrap();
    assert_eq!((third.n_pruned, third.n_pruned_frames), (2, 1));
    assert_eq!(place::list(&to).await.unwrap(), [third.id]);
    assert_eq!(to.list_frames().await.unwrap().len(), 3);
    let elsewhere = Elsewhere::new();
    elsewhere.restore(&to).await.unwrap();
    assert_sound(&elsewhere.app().await).await;
}

#[tokio::test]
async fn a_damaged_place_is_told_and_never_believed() {
    let fixture = Fixture::new().await;
    furnish(&fixture).await;
    let to = Store::in_memory();
    let made = back_up(&fixture.app, &to).await;
    for name in to.list_named("backups").await.unwrap() {
        let whole = to.get_named(&name).await.unwrap();
        let mut flipped = whole.to_vec();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        to.put_named(&name, flipped.into()).await.unwrap();
        let elsewhere = Elsewhere::new();
        let refused = elsewhere.restore(&to).await;
        assert!(matches!(refused, Err(KeepError::Damaged(_))), "{name}: {refused:?}");
        to.put_named(&name, whole).await.unwrap();
    }
    // A frame of it is damaged: the rest comes back, and the backup after it brings the frame anew.
    let frame = to.list_frames().await.unwrap()[0];
    let mut flipped = to.get_frame(frame).await.unwrap().to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    to.put_frame(frame, flipped.into()).await.unwrap();
    let elsewhere = Elsewhere::new();
    let restored = elsewhere.restore(&to).await.unwrap();
    assert_eq!((restored.id, restored.frames.bad_frames.len()), (made.id, 1));
    let verify = BackupOptions {
        verify: true,
        keep_last: None,
    };
    backup(&fixture.app.db, &fixture.app.store, &to, verify, &quiet)
        .await
        .unwrap();
    let elsewhere = Elsewhere::new();
    assert!(elsewhere.restore(&to).await.unwrap().frames.bad_frames.is_empty());
    assert_sound(&elsewhere.app().await).await;
}
