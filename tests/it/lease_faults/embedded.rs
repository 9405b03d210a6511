//! The embedded worker is a child process: when it is killed the server starts another one, and what it held is free at
//! once.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use fineline_api::EvaluationState;
use fineline_client::Client;
use harness::{HOLD_AT, KILL_AT};
use rustix::process::Signal;

use super::{Process, SHORT, Stage, until};

/// A registry with an embedded worker, as a process. No lease of its runs out within a test.
async fn serve(stage: &mut Stage, data: &Path, environment: Option<(&str, &str)>) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry-under-test"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--evaluator", "cpu"]);
    command
        .args(["--lease-ttl", "86400", "--data"])
        .arg(data)
        .envs(harness::environment(data))
        .envs(environment);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Process(command.spawn().unwrap());
    let mut line = String::new();
    let mut out = BufReader::new(server.0.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").unwrap();
    let token = std::fs::read_to_string(data.join("admin.token")).unwrap();
    stage.server.admin = Client::new(url, Some(token.trim())).unwrap();
    server
}

/// The first child of a process, by the kernel's word.
fn child_of(id: u32) -> Option<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).ok()?;
    let mut children = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    children.find_map(|ids| ids.split_whitespace().next()?.parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_worker_that_is_killed_is_started_again_and_goes_on() {
    let mut stage = Stage::new(SHORT).await;
    let calm = stage.undisturbed().await;
    let dir = tempfile::tempdir().unwrap();
    // Each child is killed at its third task; five tasks are what three children do together.
    let server = serve(&mut stage, dir.path(), Some((KILL_AT, "worker.measured:3"))).await;
    let first = until(async || child_of(server.0.id())).await;
    stage.bind().await;

    let run = stage.queue("embedded").await;
    let done = stage.until(&run, |now| now.state == EvaluationState::Done).await;

    assert_eq!((done.n_expiries, done.n_failures), (2, 0), "{done:?}");
    assert_eq!(stage.outcome(&run).await, calm);
    assert_ne!(until(async || child_of(server.0.id())).await, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stopped_server_was_at_is_done_by_the_next_and_counts_for_nothing() {
    let mut stage = Stage::new(SHORT).await;
    let calm = stage.undisturbed().await;
    let dir = tempfile::tempdir().unwrap();
    let mut server = serve(&mut stage, dir.path(), Some((HOLD_AT, "worker.measuring:2"))).await;
    stage.bind().await;
    let run = stage.queue("embedded").await;
    until(async || (stage.outcome(&run).await.logs.len() == 1).then_some(())).await;
    let held = stage.evaluation(&run).await;
    assert_eq!(held.state, EvaluationState::Leased);
    server.signal(Signal::TERM);
    assert!(server.ended().await.success());

    let _server = serve(&mut stage, dir.path(), None).await;

    let done = stage.until(&run, |now| now.state == EvaluationState::Done).await;
    assert_eq!((done.id, done.n_expiries, done.n_failures), (held.id, 0, 0));
    assert_eq!(stage.outcome(&run).await, calm);
}
