//! Bad input at every route that takes a body, a part of its path or a query, over real connections to the real program: a
//! clear refusal, soon, in bounded memory; and behind the whole table nothing is half-done.

mod connection;
mod deletions;
mod direct;
mod later;
mod messages;
mod names;
mod push_sessions;
mod pushes;
mod runs;
mod sources;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fineline_api::{ClaimEvaluation, CreatePushSession, Reference, RunName};
use fineline_client::{Client, PushOptions, apply_suite, push};
use harness::{checkpoint, claim, environment, suite};
use serde_json::Value;

use connection::{Answer, Body, Connection};

/// The longest that an answer may take: a guard against loops, not a measurement.
const MAX_TIME: Duration = Duration::from_secs(20);

/// The most that the server's memory may grow by over the whole table, whose largest body has 17 MB.
const MAX_GROWTH_KB: u64 = 768 << 10;

const PROGRAM: &str = env!("CARGO_BIN_EXE_registry-under-test");

/// A request that is wrong.
struct Case {
    operation: &'static str,
    name: &'static str,
    method: &'static str,
    /// Below `/api/v1`; `SESSION`, `EVALUATION`, `CHUNK` and `SUITE` stand for what the server has.
    path: String,
    body: Body,
    status: u16,
    /// Words that the refusal must hold.
    expected: &'static str,
}

fn case(
    operation: &'static str,
    name: &'static str,
    request: (&'static str, impl Into<String>),
    body: Body,
    (status, expected): (u16, &'static str),
) -> Case {
    Case {
        operation,
        name,
        method: request.0,
        path: request.1.into(),
        body,
        status,
        expected,
    }
}

/// The program, and things in it that an honest user put there.
struct Server {
    process: Child,
    dir: tempfile::TempDir,
    connection: Connection,
    names: Vec<(&'static str, String)>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let mut process = Command::new(PROGRAM)
            .args(["serve", "--listen", "127.0.0.1:0", "--evaluator", "off"])
            // On a busy machine all that is wrong takes longer than a lease usually lives, and its end is a change.
            .args(["--lease-ttl", "3600", "--data"])
            .arg(&data)
            .envs(environment(&data))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
        let token = std::fs::read_to_string(dir.path().join("data/admin.token")).unwrap();
        let connection = Connection {
            address,
            token: token.trim().to_owned(),
            lease: String::new(),
        };
        Self {
            process,
            dir,
            connection,
            names: Vec::new(),
        }
    }

    /// A run with a step and a bound suite, an open session and a claimed evaluation.
    fn fill(&mut self) {
        let url = format!("http://{}", self.connection.address);
        let admin = Client::new(&url, Some(&self.connection.token)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (names, lease) = runtime.block_on(fill(&admin, self.dir.path()));
        self.names = names;
        self.connection.lease = lease;
    }

    fn peak_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn ask(&self, case: &Case) -> Answer {
        let named = |path: String, (name, value): &(&str, String)| path.replace(name, value);
        let path = self.names.iter().fold(case.path.clone(), named);
        self.connection.ask(case.method, &path, &case.body)
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.connection.ask("GET", path, &Body::None);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        serde_json::from_str(&answer.text).unwrap()
    }

    /// What a reader sees: all of it was put there by the honest user.
    fn seen(&self) -> BTreeMap<&'static str, Value> {
        let run = "/runs/lab/run";
        let mut seen = BTreeMap::from([
            ("runs", self.get("/runs")),
            ("checkpoints", self.get(&format!("{run}/checkpoints"))),
            ("tags", self.get(&format!("{run}/tags"))),
            ("releases", self.get(&format!("{run}/releases"))),
            ("scores", self.get(&format!("{run}/scores"))),
            ("suites", self.get("/suites")),
            ("bindings", self.get("/bindings")),
            ("evaluations", self.get("/evaluations")),
            ("tokens", self.get("/tokens")),
            ("sources", self.get("/sources")),
        ]);
        // A lease grows older, a token is used, and both are told; all else stays.
        seen.get_mut("evaluations").unwrap()["items"][0]["lease_expires_at"].take();
        for token in seen.get_mut("tokens").unwrap().as_array_mut().unwrap() {
            token["last_used_at"].take();
        }
        seen
    }
}

async fn fill(admin: &Client, dir: &Path) -> (Vec<(&'static str, String)>, String) {
    let run: RunName = "lab/run".parse().unwrap();
    admin.create_run(&run, &Default::default()).await.unwrap();
    let binding = apply_suite(admin, &suite(dir), &"lab/run".parse().unwrap(), false)
        .await
        .unwrap();
    let step = checkpoint(dir, "step", 40_000, 1);
    push(admin, &run, 1, &step, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let session = CreatePushSession {
        step: 1000,
        ..CreatePushSession::default()
    };
    let session = admin.create_push_session(&run, &session).await.unwrap();
    let claim = ClaimEvaluation { wait_s: 10, ..claim() };
    let lease = admin.claim_evaluation(&claim).await.unwrap().unwrap();
    let files = admin.list_files(&run, &Reference::Step(1), true).await.unwrap();
    let names = vec![
        ("SESSION", session.id.to_string()),
        ("EVALUATION", lease.evaluation.id.to_string()),
        ("CHUNK", files[0].chunks[0].digest.to_string()),
        ("SUITE", binding.suite_digest.to_string()),
    ];
    (names, lease.token)
}

/// What is wrong with an answer, if anything is.
fn fault(case: &Case, answer: &Answer, took: Duration) -> Option<String> {
    let what = if answer.status != case.status {
        format!("{} and not {}: {}", answer.status, case.status, answer.text)
    } else if !answer.message().contains(case.expected) {
        format!("not `{}`: {}", case.expected, answer.text)
    } else if answer.text.len() > 8000 {
        format!("an answer of {} bytes", answer.text.len())
    } else if took > MAX_TIME {
        format!("it took {took:?}")
    } else {
        return None;
    };
    Some(format!("{}: {}: {what}", case.operation, case.name))
}

/// Operations that take something of a caller's.
fn operations_that_take() -> BTreeSet<String> {
    let document = serde_json::to_value(fineline_registry::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|path| path.as_object().unwrap().values());
    operations
        .filter(|operation| operation.get("requestBody").is_some() || operation.get("parameters").is_some())
        .map(|operation| operation["operationId"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_is_wrong_is_refused_at_every_route_and_nothing_is_left_half_done() {
    let mut server = Server::start();
    server.fill();
    let (before, seen_before) = (server.peak_kb(), server.seen());
    let groups = [
        runs::cases(),
        deletions::cases(),
        direct::cases(),
        later::cases(),
        push_sessions::cases(),
        names::cases(),
        sources::cases(),
        work::cases(),
    ];
    let cases: Vec<Case> = groups.into_iter().flatten().collect();
    let tested: BTreeSet<String> = cases.iter().map(|case| case.operation.to_owned()).collect();
    let missing: Vec<_> = operations_that_take().difference(&tested).cloned().collect();
    assert!(missing.is_empty(), "no bad input for {missing:?}");

    let (mut faults, mut n_by_group) = (Vec::new(), BTreeMap::<&str, usize>::new());
    for case in &cases {
        let begun = Instant::now();
        let answer = server.ask(case);
        faults.extend(fault(case, &answer, begun.elapsed()));
        *n_by_group.entry(group(case)).or_default() += 1;
    }
    for (group, (n, found)) in [
        ("message", messages::send_all(&server.connection)),
        ("push", pushes::push_all(&server.connection)),
    ] {
        n_by_group.insert(group, n);
        faults.extend(found);
    }
    let growth = server.peak_kb() - before;
    let n: usize = n_by_group.values().sum();
    println!("bad input: {n} cases: {n_by_group:?}, memory grew by {growth} kB");

    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(server.seen(), seen_before, "something is there that nobody put there");
    assert!(growth < MAX_GROWTH_KB, "memory grew by {growth} kB");
    let data = server.dir.path().join("data");
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    let fsck = Command::new(PROGRAM)
        .args(["scrub", "--json", "--data"])
        .arg(&data)
        .envs(environment(&data))
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&fsck.stdout).unwrap();
    assert_eq!(report["problems"], serde_json::json!([]));
    assert_eq!(report["n_checkpoints"], 1);
}

/// The resource that a case asks about.
fn group(case: &Case) -> &'static str {
    let word = |resource: &&&str| case.operation.contains(**resource);
    const RESOURCES: [&str; 14] = [
        "push_session",
        "token",
        "suite",
        "binding",
        "chunk",
        "tag",
        "release",
        "score",
        "evaluation",
        "samples",
        "retention",
        "garbage",
        "source",
        "run",
    ];
    RESOURCES.iter().find(word).copied().unwrap_or("checkpoint")
}
