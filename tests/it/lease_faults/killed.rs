//! A worker is killed at every point of its protocol.

use std::os::unix::process::ExitStatusExt;

use fineline_api::{Evaluation, EvaluationState, Progress};
use harness::{HOLD_AT, KILL_AT, Proxy};

use super::{Process, SHORT, Stage};

/// Every fail point of a worker that succeeds. The counts say before or in which task.
const POINTS: &[&str] = &[
    "worker.claimed",
    "worker.prepared",
    "worker.pulled",
    "worker.loaded",
    "worker.measuring",
    "worker.measured",
    "worker.measured:3",
    "worker.samples_put",
    "worker.samples_put:5",
    "worker.scores_posted",
    "worker.scores_posted:4",
    "worker.scores_posted:5",
    "worker.completing",
    "worker.completed",
];

/// How many are walked at once.
const AT_ONCE: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_anywhere_leaves_the_result_of_an_undisturbed_one() {
    let stage = &Stage::new(SHORT).await;
    let calm = &stage.undisturbed().await;
    let walk = async |points: Vec<&'static str>| {
        for point in points {
            let run = stage.queue(&point.replace([':', '.'], "-")).await;
            let killed = stage.start(&run, &[(KILL_AT, point)]).await.ended().await;
            assert_eq!(killed.signal(), Some(9), "it died at {point}");

            let outcome = stage.finish(&run).await;

            assert_eq!(&outcome, calm, "killed at {point}");
            let expired = stage.evaluation(&run).await.n_expiries;
            assert_eq!(expired >= 1, point != "worker.completed", "{expired} at {point}");
        }
    };
    let turn = |n: usize| POINTS.iter().skip(n).step_by(AT_ONCE).copied().collect::<Vec<_>>();
    tokio::join!(walk(turn(0)), walk(turn(1)), walk(turn(2)), walk(turn(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_around_a_heartbeat_is_replaced() {
    let stage = Stage::new(SHORT).await;
    let calm = stage.undisturbed().await;
    for point in ["worker.renewing:2", "worker.renewed:2"] {
        let run = stage.queue(&point.replace([':', '.'], "-")).await;
        // Its engine hangs in the third task, so that heartbeats are all that it still does.
        let environment = [(KILL_AT, point), (HOLD_AT, "worker.measuring:3")];
        let killed = stage.start(&run, &environment).await.ended().await;
        assert_eq!(killed.signal(), Some(9), "it died at {point}");
        assert_eq!(stage.finish(&run).await, calm, "killed at {point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_goes_on_from_where_the_dead_worker_was() {
    let stage = Stage::new(SHORT).await;
    let run = stage.queue("progress").await;
    let said = async |lease: u32, wanted: &dyn Fn(&Progress) -> bool| {
        let is_wanted = |now: &Evaluation| now.n_expiries >= lease && now.progress.as_ref().is_some_and(wanted);
        stage.until(&run, is_wanted).await.progress.unwrap()
    };
    let first = stage.start(&run, &[(HOLD_AT, "worker.measuring:3")]).await;
    let before = said(0, &|progress| progress.task.as_ref() == Some(&stage.tasks[1])).await;
    drop(first);

    let _second = stage.start(&run, &[(HOLD_AT, "worker.measuring")]).await;

    let after = said(1, &|progress| progress.n_total > 0).await;
    assert!(0 < before.n_done && before.n_done < before.n_total, "{before:?}");
    assert_eq!((after.n_done, after.n_total), (before.n_done, before.n_total));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_scored_is_lost_when_a_worker_dies_at_the_last_task() {
    let stage = Stage::new(SHORT).await;
    let calm = stage.undisturbed().await;
    for (point, left) in [("worker.measured:5", 1), ("worker.scores_posted:5", 0)] {
        let run = stage.queue(&point.replace([':', '.'], "-")).await;
        stage.start(&run, &[(KILL_AT, point)]).await.ended().await;
        let scored = stage.outcome(&run).await.scores;
        assert!(
            !scored.is_empty(),
            "tasks that are whole are shown while the rest waits"
        );

        let proxy = Proxy::start(&stage.server.server.url, None).await;
        let mut second = Process(stage.worker(&proxy.url, &run).await.spawn().unwrap());
        stage.until(&run, |now| now.state == EvaluationState::Done).await;

        assert!(second.0.try_wait().unwrap().is_none(), "it lives");
        let exchanges = proxy.exchanges();
        let count = |method, end| exchanges.iter().filter(|exchange| exchange.is(method, end)).count();
        assert_eq!(
            (count("PUT", "/samples"), count("POST", "/scores")),
            (left, left),
            "{point}"
        );
        assert_eq!(count("GET", "/files"), left, "the checkpoint is pulled only for work");
        assert_eq!(stage.outcome(&run).await, calm);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_around_its_failure_fails_once() {
    let mut stage = Stage::new(SHORT).await;
    let config = std::fs::read_to_string(stage.model.join("config.json")).unwrap();
    let unknown = config.replace("\"default\"", "\"unheard-of\"");
    assert_ne!(config, unknown);
    std::fs::write(stage.model.join("config.json"), unknown).unwrap();
    stage.tasks.clear();
    for (point, n_expiries) in [("worker.failing", 1), ("worker.failed", 0)] {
        let run = stage.queue(&point.replace('.', "-")).await;
        let killed = stage.start(&run, &[(KILL_AT, point)]).await.ended().await;
        assert_eq!(killed.signal(), Some(9), "it died at {point}");
        let _second = stage.start(&run, &[]).await;
        let failed = stage.until(&run, |now| now.state == EvaluationState::Failed).await;
        assert_eq!((failed.n_failures, failed.n_expiries), (1, n_expiries), "{point}");
        assert!(failed.reason.unwrap().contains("unheard-of"));
        assert_eq!(stage.outcome(&run).await.n_ends, 1, "{point}");
    }
}
