//! A registry for tests, and a push by its services.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use fineline_api::error::ErrorCode;
use fineline_api::run::RunAttributes;
use fineline_api::{
    CheckpointFile, ChunkRef, CreatePushSession, CreateToken, GarbageReport, PushSession, PushSessionState, RunName,
    RunPattern, Scope,
};
use fineline_format::{Digest, FileEntry, Manifest, frame};
use metrics_exporter_prometheus::PrometheusBuilder;
use sea_orm::{ConnectionTrait, DbBackend};
use tempfile::TempDir;
use uuid::Uuid;

use super::database::postgres_of;
use crate::app::{App, Options};
use crate::auth::{Caller, authenticate};
use crate::db::run::RunRow;
use crate::db::{self, Db};
use crate::error::ApiResult;
use crate::service::fsck::{self, Problem};
use crate::service::{chunk, collect, commit, push_session, token, verify};
use crate::store::Store;

/// A registry without its background tasks: a test verifies by itself.
pub(super) struct Fixture {
    pub(super) app: App,
    /// Another process that serves the same database and store.
    pub(super) replica: App,
    dir: TempDir,
}

impl Fixture {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let app = open(&dir, Store::in_memory()).await;
        let replica = open(&dir, app.store.clone()).await;
        Self { app, replica, dir }
    }

    /// The process is gone and another one opens what it left; its replica goes on.
    pub(super) async fn restart(&mut self) {
        self.app = open(&self.dir, self.app.store.clone()).await;
        // The claims and leases of the dead run out.
        self.sql("UPDATE revision SET verifier_until_ms = 0").await;
    }

    /// A run, and one who may write to it and to no other.
    pub(super) async fn run(&self, name: &str) -> Pusher<'_> {
        let name: RunName = name.parse().unwrap();
        let txn = db::write_txn(&self.app.db).await.unwrap();
        let run = db::run::insert(&txn, &name, &RunAttributes::default()).await.unwrap();
        txn.commit().await.unwrap();
        let caller = self.caller(Scope::Write, RunPattern::One(name)).await;
        let run = run.unwrap();
        Pusher {
            app: &self.app,
            run,
            caller,
        }
    }

    /// Moves what no call moves: time.
    pub(super) async fn sql(&self, statement: &str) {
        let txn = db::write_txn(&self.app.db).await.unwrap();
        txn.execute_unprepared(statement).await.unwrap();
        txn.commit().await.unwrap();
    }

    /// Bytes or an id as a literal of the engine's SQL.
    pub(super) fn literal(&self, bytes: &[u8]) -> String {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self.app.db.reader().get_database_backend() {
            DbBackend::Postgres if bytes.len() == 16 => format!("'{hex}'"),
            DbBackend::Postgres => format!("'\\x{hex}'"),
            _ => format!("x'{hex}'"),
        }
    }

    /// What `scrub` finds.
    pub(super) async fn problems(&self) -> Vec<Problem> {
        fsck::check(&self.app, true).await.unwrap().problems
    }

    /// Nothing is wrong with what is stored.
    pub(super) async fn assert_sound(&self) {
        let problems = self.problems().await;
        assert!(problems.is_empty(), "{problems:#?}");
    }

    /// Lets time pass: everything that bears a time becomes so much older.
    pub(super) async fn age(&self, time: Duration) {
        let ms = time.as_millis();
        let columns = [
            ("possession", "put_at_ms"),
            ("possession", "released_at_ms"),
            ("mark", "begun_at_ms"),
            ("frame", "created_at_ms"),
            ("frame", "condemned_at_ms"),
            ("push_session", "created_at_ms"),
            ("push_session", "heartbeat_at_ms"),
        ];
        for (table, column) in columns {
            self.sql(&format!("UPDATE {table} SET {column} = {column} - {ms}"))
                .await;
        }
    }

    /// Marks, lets the grace pass, and sweeps.
    pub(super) async fn collect_all(&self) -> GarbageReport {
        collect::collect(&self.app, false).await.unwrap();
        self.age(2 * self.app.options.grace).await;
        collect::collect(&self.app, false).await.unwrap()
    }

    pub(super) async fn caller(&self, scope: Scope, pattern: RunPattern) -> Caller {
        let new = CreateToken {
            name: "test".to_owned(),
            scopes: vec![scope],
            pattern,
            expires_in_s: None,
        };
        let secret = token::create(&self.app.db, new).await.unwrap().secret;
        authenticate(&self.app, Some(&secret)).await.unwrap()
    }
}

/// The database that belongs to a folder, on the engine that the tests run on.
pub(crate) fn database_of(dir: &Path) -> String {
    postgres_of(dir).unwrap_or_else(|| format!("sqlite://{}", dir.join("fineline.db").display()))
}

async fn open(dir: &TempDir, store: Store) -> App {
    let db = Db::open(&database_of(dir.path())).await.unwrap();
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    App::new(db, store, Options::default(), metrics)
}

/// Verifies everything that waits for it.
pub(super) async fn verify_all(app: &App) {
    let verifier = Uuid::now_v7();
    while let Some(revision) = verify::claim(app, verifier).await.unwrap() {
        verify::verify(app, verifier, revision).await;
    }
}

/// A file to push: its path and its bytes, cut where the test wants.
pub(super) struct TestFile {
    pub(super) path: &'static str,
    pub(super) chunks: Vec<Bytes>,
}

pub(super) fn file(path: &'static str, bytes: impl AsRef<[u8]>) -> TestFile {
    let chunks = bytes.as_ref().chunks(1000).map(Bytes::copy_from_slice).collect();
    TestFile { path, chunks }
}

impl TestFile {
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.chunks.concat()
    }

    pub(super) fn described(&self) -> CheckpointFile {
        let chunk = |bytes: &Bytes| ChunkRef {
            digest: Digest::of(bytes),
            size_bytes: bytes.len() as u64,
        };
        CheckpointFile {
            path: self.path.to_owned(),
            size_bytes: self.bytes().len() as u64,
            digest: Digest::of(&self.bytes()),
            chunks: self.chunks.iter().map(chunk).collect(),
        }
    }
}

/// A safetensors file with one F32 tensor `w` of 100 times `value`.
pub(super) fn weights(value: f32) -> Vec<u8> {
    let header = r#"{"w":{"dtype":"F32","shape":[100],"data_offsets":[0,400]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(std::iter::repeat_n(value.to_le_bytes(), 100).flatten());
    bytes
}

/// A model that could be evaluated, all of whose weights are `value`.
pub(super) fn model(value: f32) -> Vec<TestFile> {
    vec![
        file("config.json", r#"{"architectures":["LlamaForCausalLM"]}"#),
        file("model.safetensors", weights(value)),
        file("tokenizer.json", "{}"),
    ]
}

pub(super) fn manifest(files: &[CheckpointFile]) -> Manifest {
    let entry = |file: &CheckpointFile| FileEntry {
        path: file.path.clone(),
        size_bytes: file.size_bytes,
        digest: file.digest,
    };
    Manifest::new(files.iter().map(entry).collect()).unwrap()
}

pub(super) fn described(files: &[TestFile]) -> Vec<CheckpointFile> {
    files.iter().map(TestFile::described).collect()
}

/// One who writes to a run.
pub(super) struct Pusher<'a> {
    pub(super) app: &'a App,
    pub(super) run: RunRow,
    pub(super) caller: Caller,
}

impl Pusher<'_> {
    /// Pushes files as a step, to the end.
    pub(super) async fn push(&self, step: u64, files: &[TestFile]) -> ApiResult<PushSession> {
        let new = CreatePushSession {
            step,
            manifest_digest: Some(manifest(&described(files)).digest()),
            ..CreatePushSession::default()
        };
        self.push_as(new, files).await
    }

    pub(super) async fn push_as(&self, new: CreatePushSession, files: &[TestFile]) -> ApiResult<PushSession> {
        let session = push_session::create(self.app, &self.run, new).await?;
        if session.state != PushSessionState::Open {
            return Ok(session);
        }
        self.send(session.id, files).await?;
        self.commit(session.id, described(files)).await
    }

    pub(super) async fn send(&self, session: Uuid, files: &[TestFile]) -> ApiResult<()> {
        for bytes in files.iter().flat_map(|file| &file.chunks) {
            let body = Bytes::from(frame::encode_raw(bytes));
            chunk::put(self.app, &self.run, session, Digest::of(bytes), body).await?;
        }
        Ok(())
    }

    /// Says the files and commits them, then verifies what was committed.
    pub(super) async fn commit(&self, session: Uuid, files: Vec<CheckpointFile>) -> ApiResult<PushSession> {
        let meant = manifest(&files).digest();
        for file in files {
            push_session::add_file(self.app, &self.run, session, file).await?;
        }
        commit::commit(self.app, &self.caller, &self.run, session, meant).await?;
        verify_all(self.app).await;
        self.session(session).await
    }

    pub(super) async fn session(&self, session: Uuid) -> ApiResult<PushSession> {
        push_session::get(self.app, &self.run, session, std::time::Duration::ZERO).await
    }

    pub(super) async fn open(&self, step: u64) -> PushSession {
        let new = CreatePushSession {
            step,
            ..CreatePushSession::default()
        };
        push_session::create(self.app, &self.run, new).await.unwrap()
    }
}

/// The code of a refusal.
pub(super) fn code<T>(result: ApiResult<T>) -> ErrorCode {
    match result {
        Ok(_) => panic!("a refusal was expected"),
        Err(error) => error.code(),
    }
}
