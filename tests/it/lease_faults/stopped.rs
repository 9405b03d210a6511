//! A worker that is told to end: by a signal, and by two.

use std::net::TcpListener;

use fineline_api::EvaluationState;
use fineline_registry::serve::LeaseOptions;
use harness::HOLD_AT;
use rustix::process::Signal;

use super::{Process, Stage, until};

/// A lease that outlives the test: what is free again was given back.
const LONG: LeaseOptions = LeaseOptions {
    ttl_s: 600,
    back_off_s: 600,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stopped_worker_was_at_is_free_at_once_and_counts_for_nothing() {
    let stage = Stage::new(LONG).await;
    let calm = stage.undisturbed().await;
    let run = stage.queue("stopped").await;
    // Its engine hangs in the second task, longer than it may.
    let mut command = stage.worker(&stage.server.server.url, &run).await;
    command
        .args(["--drain-timeout", "1"])
        .env(HOLD_AT, "worker.measuring:2");
    let mut worker = Process(command.spawn().unwrap());
    until(async || (stage.outcome(&run).await.logs.len() == 1).then_some(())).await;

    worker.signal(Signal::TERM);

    assert!(worker.ended().await.success());
    let waits = stage.evaluation(&run).await;
    assert_eq!(waits.state, EvaluationState::Queued);
    assert_eq!((waits.n_failures, waits.n_expiries), (0, 0));
    assert_eq!(stage.finish(&run).await, calm);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    let stage = Stage::new(LONG).await;
    let run = stage.queue("twice").await;
    let log = stage.server.dir.path().join("worker.log");
    let metrics = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let mut command = stage.worker(&stage.server.server.url, &run).await;
    command
        .args(["--drain-timeout", "600", "--metrics", &metrics])
        .env(HOLD_AT, "worker.measuring");
    command.stderr(std::fs::File::create(&log).unwrap());
    let mut worker = Process(command.spawn().unwrap());
    let computes = async || {
        let text = reqwest::get(format!("http://{metrics}/metrics"))
            .await
            .ok()?
            .text()
            .await
            .ok()?;
        let zero = "fineline_worker_seconds_total{activity=\"computing\"} 0";
        (text.contains("fineline_worker_at_work 1") && !text.contains(zero)).then_some(())
    };
    until(computes).await;

    worker.signal(Signal::TERM);
    let has_heard = || std::fs::read_to_string(&log).unwrap().contains("told to end");
    until(async || has_heard().then_some(())).await;
    assert_eq!(stage.evaluation(&run).await.state, EvaluationState::Leased);
    assert!(worker.0.try_wait().unwrap().is_none(), "the task at hand goes on");
    worker.signal(Signal::INT);

    assert!(worker.ended().await.success());
    assert_eq!(stage.evaluation(&run).await.state, EvaluationState::Leased);
}
