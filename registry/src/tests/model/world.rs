//! The real service and what is expected of it, side by side.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use fineline_api::error::ErrorCode;
use fineline_api::run::RunAttributes;
use fineline_api::{CreatePushSession, PushSessionState, Reference, Retention, RunName, RunPattern, Scope};
use fineline_format::{Digest, frame};
use uuid::Uuid;

use super::super::fixture::{Fixture, TestFile, described, manifest, verify_all};
use super::{Op, cut_at};
use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::service::delete::{self, DeleteOptions};
use crate::service::{chunk, collect, commit, possession, push_session, retention, sweep};

/// The chunks of each file; they share some.
pub(super) const FILES: [&[usize]; 5] = [&[0, 1], &[1, 2], &[3], &[4, 5, 0], &[6]];
const PATHS: [&str; 5] = ["a.txt", "b.txt", "c.txt", "d.txt", "e.txt"];
const RUNS: [&str; 2] = ["lab/a", "lab/b"];

/// The longest that a session may be silent: a third of the grace of 72 hours.
const SILENCE_HOURS: u64 = 24;

fn raw(chunk: usize) -> Bytes {
    format!("chunk {chunk} ").repeat(20 + chunk).into()
}

fn digest(chunk: usize) -> Digest {
    Digest::of(&raw(chunk))
}

fn files(bits: u8) -> Vec<TestFile> {
    let wanted = (0..FILES.len()).filter(|at| bits & (1 << at) != 0);
    let file = |at: usize| TestFile {
        path: PATHS[at],
        chunks: FILES[at].iter().map(|&chunk| raw(chunk)).collect(),
    };
    wanted.map(file).collect()
}

fn chunks(bits: u8) -> BTreeSet<usize> {
    let wanted = (0..FILES.len()).filter(|at| bits & (1 << at) != 0);
    wanted.flat_map(|at| FILES[at]).copied().collect()
}

/// The revisions of a run's steps as sets of files; the last of a step is its current one.
type Steps = BTreeMap<u64, Vec<u8>>;

#[derive(Debug)]
struct Session {
    id: Uuid,
    run: usize,
    step: u64,
    replace: bool,
    wide: bool,
    /// What it put, or was told is there.
    relied: BTreeSet<usize>,
    silent_hours: u64,
}

pub(super) struct World {
    fixture: Fixture,
    /// Writers of each run alone, and of both.
    callers: [Caller; 3],
    steps: [Steps; 2],
    sessions: Vec<Session>,
    /// What was ever put into, or named for, each run: its writers may know of no more.
    known: [BTreeSet<usize>; 2],
    /// Calls so far: the two processes take turns.
    n_calls: Cell<usize>,
}

impl World {
    pub(super) async fn new() -> Self {
        let fixture = Fixture::new().await;
        let pattern = |text: &str| text.parse::<RunPattern>().unwrap();
        let callers = [
            fixture.caller(Scope::Write, pattern(RUNS[0])).await,
            fixture.caller(Scope::Write, pattern(RUNS[1])).await,
            fixture.caller(Scope::Write, pattern("lab/*")).await,
        ];
        Self {
            fixture,
            callers,
            steps: Default::default(),
            sessions: Vec::new(),
            known: Default::default(),
            n_calls: Cell::new(0),
        }
    }

    /// The process that takes the next call.
    fn app(&self) -> App {
        let n = self.n_calls.replace(self.n_calls.get() + 1);
        let fixture = &self.fixture;
        if n.is_multiple_of(2) {
            &fixture.app
        } else {
            &fixture.replica
        }
        .clone()
    }

    fn caller(&self, run: usize, wide: bool) -> Caller {
        self.callers[if wide { 2 } else { run }].clone()
    }

    /// Does it, and expects what should come of it.
    pub(super) async fn step(&mut self, op: &Op) {
        match op {
            Op::Crash { at, cut } => self.crash(*at, cut).await,
            Op::Push {
                run,
                step,
                files,
                replace,
                wide,
            } => {
                self.known[*run].extend(chunks(*files));
                let pushed = push(&self.app(), &self.caller(*run, *wide), *run, *step, *files, *replace).await;
                self.expect_pushed(*run, *step, *files, *replace, pushed);
            }
            Op::Open {
                run,
                step,
                replace,
                wide,
            } => self.open(*run, *step, *replace, *wide).await,
            Op::Put { session, chunk } => self.put(*session, *chunk).await,
            Op::Missing { session, chunks } => self.missing(*session, *chunks).await,
            Op::Commit { session, files } => self.commit(*session, *files).await,
            Op::Delete { run, step } => {
                let deleted = delete_step(&self.app(), &self.caller(*run, false), *run, *step).await;
                assert_eq!(deleted.is_ok(), self.steps[*run].remove(step).is_some());
            }
            Op::DeleteRun { run } => {
                delete_run(&self.app(), &self.caller(*run, false), *run).await.unwrap();
                self.forget_run(*run);
            }
            Op::KeepLast { run } => {
                keep_last(&self.app(), &self.caller(*run, false), *run).await.unwrap();
                self.keep_newest(*run);
            }
            Op::Collect => drop(collect::collect(&self.app(), false).await.unwrap()),
            Op::Pass { hours } => self.pass(*hours).await,
        }
    }

    fn expect_pushed(&mut self, run: usize, step: u64, files: u8, replace: bool, pushed: ApiResult<()>) {
        let revisions = self.steps[run].entry(step).or_default();
        match revisions.last() {
            Some(&current) if current == files => pushed.unwrap(),
            Some(_) if !replace => assert_eq!(pushed.unwrap_err().code(), ErrorCode::StepExists),
            _ => {
                pushed.unwrap();
                revisions.push(files);
            }
        }
    }

    async fn open(&mut self, run: usize, step: u64, replace: bool, wide: bool) {
        let (row, app) = (run_row(&self.app(), run).await, self.app());
        let new = CreatePushSession {
            step,
            replace,
            ..CreatePushSession::default()
        };
        let id = push_session::create(&app, &row, new).await.unwrap().id;
        self.sessions.push(Session {
            id,
            run,
            step,
            replace,
            wide,
            relied: BTreeSet::new(),
            silent_hours: 0,
        });
    }

    async fn put(&mut self, session: usize, chunk: usize) {
        let app = self.app();
        let Some(session) = self.sessions.get_mut(session) else {
            return;
        };
        let row = run_row(&app, session.run).await;
        self.known[session.run].insert(chunk);
        let body = frame::encode_raw(&raw(chunk)).into();
        chunk::put(&app, &row, session.id, digest(chunk), body).await.unwrap();
        session.relied.insert(chunk);
        session.silent_hours = 0;
    }

    async fn missing(&mut self, session: usize, bits: u8) {
        let app = self.app();
        let Some((run, wide)) = self.sessions.get(session).map(|session| (session.run, session.wide)) else {
            return;
        };
        let asked: Vec<usize> = (0..7).filter(|chunk| bits & (1 << chunk) != 0).collect();
        let digests = asked.iter().map(|&chunk| digest(chunk)).collect();
        let missing = chunk::missing(&app, &self.caller(run, wide), digests).await.unwrap();
        let held = asked.into_iter().filter(|&chunk| !missing.contains(&digest(chunk)));
        self.sessions[session].relied.extend(held);
    }

    async fn commit(&mut self, session: usize, files: u8) {
        if session >= self.sessions.len() {
            return;
        }
        let session = self.sessions.remove(session);
        self.known[session.run].extend(chunks(files));
        let caller = self.caller(session.run, session.wide);
        let committed = fill_and_commit(&self.app(), &caller, session.run, session.id, files).await;
        let relied = chunks(files).is_subset(&session.relied);
        match committed {
            Err(error) if !relied => {
                let code = error.code();
                assert!(
                    [ErrorCode::Unprocessable, ErrorCode::StepExists].contains(&code),
                    "{code}"
                );
            }
            committed => self.expect_pushed(session.run, session.step, files, session.replace, committed),
        }
    }

    fn forget_run(&mut self, run: usize) {
        self.steps[run].clear();
        self.sessions.retain(|session| session.run != run);
    }

    fn keep_newest(&mut self, run: usize) {
        let newest = self.steps[run].iter().rfind(|(_, revisions)| !revisions.is_empty());
        let newest = newest.map(|(step, _)| *step);
        self.steps[run].retain(|step, _| Some(*step) == newest);
    }

    async fn pass(&mut self, hours: u64) {
        self.fixture.age(Duration::from_secs(hours * 3600)).await;
        for session in &mut self.sessions {
            session.silent_hours += hours;
        }
        sweep::sweep(&self.fixture.app).await.unwrap();
        let mut alive = Vec::new();
        for session in std::mem::take(&mut self.sessions) {
            let row = run_row(&self.app(), session.run).await;
            let state = push_session::find(&self.fixture.app, &row, session.id)
                .await
                .unwrap()
                .state;
            // The clock ran on meanwhile, so a silence of just that long has passed it.
            assert!(state == PushSessionState::Open || session.silent_hours >= SILENCE_HOURS);
            if state == PushSessionState::Open {
                alive.push(session);
            }
        }
        self.sessions = alive;
    }

    /// Cuts the operation and starts anew. Whether it was done is up to the moment: the model takes what is there, which
    /// must be the state before or after.
    async fn crash(&mut self, at: usize, op: &Op) {
        let (before, app) = (self.steps.clone(), self.app());
        match op {
            Op::Push {
                run,
                step,
                files,
                replace,
                wide,
            } => {
                self.known[*run].extend(chunks(*files));
                let caller = self.caller(*run, *wide);
                drop(cut_at(at, push(&app, &caller, *run, *step, *files, *replace)).await);
                let revisions = self.steps[*run].entry(*step).or_default();
                if revisions.last().is_none_or(|current| *replace && current != files) {
                    revisions.push(*files);
                }
            }
            Op::Delete { run, step } => {
                drop(cut_at(at, delete_step(&app, &self.caller(*run, false), *run, *step)).await);
                self.steps[*run].remove(step);
            }
            Op::KeepLast { run } => {
                drop(cut_at(at, keep_last(&app, &self.caller(*run, false), *run)).await);
                self.keep_newest(*run);
            }
            Op::Collect => drop(cut_at(at, collect::collect(&app, false)).await),
            Op::Put { session, chunk } if *session < self.sessions.len() => {
                self.known[self.sessions[*session].run].insert(*chunk);
                let _ = cut_at(at, self.put(*session, *chunk)).await;
            }
            Op::Commit { session, files } if *session < self.sessions.len() => {
                let session = self.sessions.remove(*session);
                self.known[session.run].extend(chunks(*files));
                let caller = self.caller(session.run, session.wide);
                drop(cut_at(at, fill_and_commit(&app, &caller, session.run, session.id, *files)).await);
                let revisions = self.steps[session.run].entry(session.step).or_default();
                if revisions
                    .last()
                    .is_none_or(|current| session.replace && current != files)
                {
                    revisions.push(*files);
                }
            }
            calm => Box::pin(self.step(calm)).await,
        }
        drop(app);
        self.fixture.restart().await;
        verify_all(&self.fixture.app).await;
        for run in 0..2 {
            // A rule that was set and not yet applied would be by the next sweep; here it is set for a moment only.
            let row = run_row(&self.fixture.app, run).await;
            retention::unset(&self.fixture.app, &row).await.unwrap();
        }
        let found = self.found().await;
        if found != comparable(&self.steps) {
            assert_eq!(found, comparable(&before), "neither before nor after {op:?}");
            self.steps = before;
        }
    }

    /// Steps with their revisions as the database has them.
    async fn found(&self) -> [Steps; 2] {
        let mut by_digest = BTreeMap::new();
        for bits in 1..32 {
            by_digest.insert(manifest(&described(&files(bits))).digest(), bits);
        }
        let mut found = [Steps::new(), Steps::new()];
        for (run, steps) in found.iter_mut().enumerate() {
            let row = run_row(&self.fixture.app, run).await;
            let filter = db::revision::RevisionFilter {
                state: Some(fineline_api::CheckpointState::Ready),
                all_revisions: true,
                ..Default::default()
            };
            let mut rows = db::revision::list(self.fixture.app.db.reader(), row.id, filter, None, 1000)
                .await
                .unwrap();
            rows.sort_by_key(|row| (row.step, row.current, row.id));
            for row in rows {
                steps
                    .entry(row.step)
                    .or_default()
                    .push(by_digest[&row.checkpoint.unwrap()]);
            }
        }
        found
    }

    /// What must be so after each step.
    pub(super) async fn check(&self, op: &Op) {
        let problems = self.fixture.problems().await;
        assert!(problems.is_empty(), "{problems:#?} after {op:?}");
        assert_eq!(self.found().await, comparable(&self.steps), "after {op:?}");
        let all: Vec<Digest> = (0..7).map(digest).collect();
        for session in &self.sessions {
            let caller = self.caller(session.run, session.wide);
            let held = possession::held_chunks(&self.fixture.app, &caller, &all).await.unwrap();
            let lost: Vec<_> = session
                .relied
                .iter()
                .filter(|&&chunk| !held.contains_key(&digest(chunk)))
                .collect();
            assert!(lost.is_empty(), "{session:?} lost {lost:?} after {op:?}");
        }
        for (run, known) in self.known.iter().enumerate() {
            let held = possession::held_chunks(&self.fixture.app, &self.caller(run, false), &all)
                .await
                .unwrap();
            let told: Vec<_> = (0..7)
                .filter(|chunk| held.contains_key(&digest(*chunk)) && !known.contains(chunk))
                .collect();
            assert!(told.is_empty(), "{} is told of {told:?} after {op:?}", RUNS[run]);
        }
    }

    /// All is deleted, the grace passes: nothing is left.
    pub(super) async fn end(mut self) {
        for run in 0..2 {
            delete_run(&self.app(), &self.caller(run, false), run).await.unwrap();
            self.forget_run(run);
        }
        for _ in 0..2 {
            self.fixture.age(Duration::from_secs(100 * 3600)).await;
            sweep::sweep(&self.fixture.app).await.unwrap();
            self.fixture.collect_all().await;
        }
        for state in ["intended", "live", "condemned", "deleting"] {
            let left = db::frame::count(self.fixture.app.db.reader(), state).await.unwrap();
            assert_eq!(left, 0, "frames in state {state} are left");
        }
        assert_eq!(self.fixture.app.store.count_objects().await, 0, "objects are left");
    }
}

/// Steps without those that have nothing; the order of replaced revisions is no part of it.
fn comparable(steps: &[Steps; 2]) -> [Steps; 2] {
    let mut steps = steps.clone();
    for steps in &mut steps {
        steps.retain(|_, revisions| !revisions.is_empty());
    }
    steps
}

/// The run, made where it is not there.
async fn run_row(app: &App, run: usize) -> RunRow {
    let name: RunName = RUNS[run].parse().unwrap();
    let txn = db::write_txn(&app.db).await.unwrap();
    let row = match db::run::find(&txn, &name).await.unwrap() {
        Some(row) => row,
        None => db::run::insert(&txn, &name, &RunAttributes::default())
            .await
            .unwrap()
            .unwrap(),
    };
    txn.commit().await.unwrap();
    row
}

async fn push(app: &App, caller: &Caller, run: usize, step: u64, bits: u8, replace: bool) -> ApiResult<()> {
    let row = run_row(app, run).await;
    let new = CreatePushSession {
        step,
        replace,
        manifest_digest: Some(manifest(&described(&files(bits))).digest()),
        ..CreatePushSession::default()
    };
    let session = push_session::create(app, &row, new).await?;
    if session.state != PushSessionState::Open {
        return Ok(());
    }
    let needed: Vec<usize> = chunks(bits).into_iter().collect();
    let digests = needed.iter().map(|&chunk| digest(chunk)).collect();
    let missing = chunk::missing(app, caller, digests).await?;
    for chunk in needed.into_iter().filter(|&chunk| missing.contains(&digest(chunk))) {
        let body = frame::encode_raw(&raw(chunk)).into();
        chunk::put(app, &row, session.id, digest(chunk), body).await?;
    }
    fill_and_commit(app, caller, run, session.id, bits).await
}

async fn fill_and_commit(app: &App, caller: &Caller, run: usize, session: Uuid, bits: u8) -> ApiResult<()> {
    let (row, said) = (run_row(app, run).await, described(&files(bits)));
    let meant = manifest(&said).digest();
    for file in said {
        push_session::add_file(app, &row, session, file).await?;
    }
    let committed = commit::commit(app, caller, &row, session, meant).await;
    if let Err(error) = committed {
        let open = push_session::find(app, &row, session).await?;
        push_session::abandon(app, &open, PushSessionState::Aborted).await?;
        return Err(error);
    }
    verify_all(app).await;
    let ended = push_session::get(app, &row, session, Duration::ZERO).await?;
    match ended.failure {
        None => {
            assert_eq!(ended.state, PushSessionState::Committed);
            Ok(())
        }
        Some(failure) => Err(ApiError::new(failure.code, failure.message)),
    }
}

const FORCE: DeleteOptions = DeleteOptions {
    force: true,
    scores: false,
    dry_run: false,
};

async fn delete_step(app: &App, caller: &Caller, run: usize, step: u64) -> ApiResult<()> {
    let row = run_row(app, run).await;
    delete::checkpoint(app, caller, &row, &Reference::Step(step), FORCE)
        .await
        .map(|_| ())
}

async fn delete_run(app: &App, caller: &Caller, run: usize) -> ApiResult<()> {
    let row = run_row(app, run).await;
    delete::run(app, caller, &row, FORCE).await.map(|_| ())
}

async fn keep_last(app: &App, caller: &Caller, run: usize) -> ApiResult<()> {
    let row = run_row(app, run).await;
    let rule = Retention {
        keep_last: 1,
        keep_every: None,
    };
    retention::set(app, caller, &row, rule, false).await?;
    retention::unset(app, &row).await
}
