//! What is tried in vain each time is given up, and says why.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use fineline_api::EvaluationState;
use fineline_registry::serve::LeaseOptions;
use harness::KILL_AT;

use super::{Process, Stage};

const HASTY: LeaseOptions = LeaseOptions {
    ttl_s: 1,
    back_off_s: 0,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluation_that_kills_its_worker_each_time_is_parked_and_can_be_brought_back() {
    let stage = Stage::new(HASTY).await;
    let calm = stage.undisturbed().await;
    let run = stage.queue("deadly").await;
    for _ in 0..5 {
        let killed = stage.start(&run, &[(KILL_AT, "worker.loaded")]).await.ended().await;
        assert_eq!(killed.signal(), Some(9));
    }
    let bystander = stage.start(&run, &[]).await;
    let parked = stage.until(&run, |now| now.state == EvaluationState::Parked).await;
    drop(bystander);
    assert_eq!((parked.n_expiries, parked.n_failures), (5, 0));
    let reason = parked.reason.unwrap();
    let advice = format!("fineline eval retry {}", parked.id);
    assert!(
        reason.contains("5 leases") && reason.contains("worker `w`") && reason.contains(&advice),
        "{reason}"
    );

    let (url, token) = (&stage.server.server.url, &stage.server.server.admin_token);
    let mut retry = Command::new(env!("CARGO_BIN_EXE_client-under-test"));
    retry
        .args(["eval", "retry", &parked.id.to_string()])
        .stdout(Stdio::null());
    assert!(
        retry
            .env("FINELINE_URL", url)
            .env("FINELINE_TOKEN", token)
            .status()
            .unwrap()
            .success()
    );

    let mut outcome = stage.finish(&run).await;
    assert_eq!(outcome.n_ends, 2, "the parking and the end");
    outcome.n_ends = 1;
    assert_eq!(outcome, calm);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluation_that_fails_in_passing_each_time_is_parked_with_the_last_reason() {
    let stage = Stage::new(HASTY).await;
    let run = stage.queue("failing").await;
    let mut worker = stage.worker(&stage.server.server.url, &run).await;
    worker.args(["--once", "--scratch", "/nowhere/at/all"]);
    assert!(Process(worker.spawn().unwrap()).ended().await.success());
    let parked = stage.evaluation(&run).await;
    assert_eq!(parked.state, EvaluationState::Parked);
    assert_eq!((parked.n_failures, parked.n_expiries), (3, 0));
    assert!(parked.reason.unwrap().contains("/nowhere/at/all"));
}
