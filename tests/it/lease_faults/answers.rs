//! Answers that are lost on the way back: the call comes again and changes nothing.

use fineline_api::EvaluationState;
use fineline_registry::serve::LeaseOptions;
use harness::{Cut, HOLD_AT, Proxy, tiny_llama};

use super::{Outcome, Process, SHORT, Stage, until};

/// A lease that outlives the test: what gets done is done under the first one.
const LONG: LeaseOptions = LeaseOptions {
    ttl_s: 600,
    back_off_s: 600,
};

/// Works until there is no work, behind a proxy that loses one answer; and what the proxy saw.
async fn work_cut_off(stage: &Stage, namespace: &str, cut: Cut) -> (Outcome, u32) {
    let run = stage.queue(namespace).await;
    let proxy = Proxy::start(&stage.server.server.url, Some(cut)).await;
    let mut command = stage.worker(&proxy.url, &run).await;
    let ended = Process(command.arg("--once").spawn().unwrap()).ended().await;
    assert!(ended.success(), "{ended} after {cut:?}");
    let alike: Vec<_> = proxy
        .exchanges()
        .into_iter()
        .filter(|e| e.is(cut.method, cut.path_end))
        .collect();
    let (lost, again) = (&alike[cut.nth - 1], &alike[cut.nth]);
    assert_eq!((lost.status, &lost.path), (None, &again.path), "{alike:?}");
    assert!(matches!(again.status, Some(200 | 204)), "{alike:?}");
    let evaluation = stage.evaluation(&run).await;
    assert_eq!(evaluation.n_expiries, 0);
    (stage.outcome(&run).await, evaluation.n_failures)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_to_any_call_of_a_worker_changes_nothing() {
    let stage = Stage::new(LONG).await;
    let calm = stage.undisturbed().await;
    let calls = [
        ("POST", "/claim", 1),
        ("GET", "/files", 1),
        ("PUT", "/samples", 1),
        ("PUT", "/samples", 3),
        ("POST", "/scores", 1),
        ("POST", "/scores", 5),
        ("POST", "/complete", 1),
    ];
    for (method, path_end, nth) in calls {
        let namespace = format!("lost{}-{nth}", path_end.replace('/', "-"));
        let (outcome, n_failures) = work_cut_off(&stage, &namespace, Cut { method, path_end, nth }).await;
        assert_eq!((outcome, n_failures), (calm.clone(), 0), "{method} {path_end} {nth}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_to_a_failure_counts_it_once() {
    let mut stage = Stage::new(LONG).await;
    std::fs::write(stage.model.join("tokenizer.json"), "{}").unwrap();
    stage.tasks.clear();
    let cut = Cut {
        method: "POST",
        path_end: "/fail",
        nth: 1,
    };
    let (outcome, n_failures) = work_cut_off(&stage, "lost-fail", cut).await;
    assert_eq!((outcome.state, outcome.n_ends), (EvaluationState::Failed, 1));
    assert_eq!(n_failures, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_to_a_heartbeat_does_not_cost_the_lease() {
    let stage = Stage::new(SHORT).await;
    let run = stage.queue("lost-heartbeat").await;
    let cut = Cut {
        method: "POST",
        path_end: "/heartbeat",
        nth: 1,
    };
    let proxy = Proxy::start(&stage.server.server.url, Some(cut)).await;
    let mut command = stage.worker(&proxy.url, &run).await;
    let _worker = Process(command.env(HOLD_AT, "worker.measuring").spawn().unwrap());

    // More than the time to live of the lease that the claim gave.
    let beats = until(async || {
        let beats: Vec<_> = proxy
            .exchanges()
            .into_iter()
            .filter(|e| e.is(cut.method, cut.path_end))
            .collect();
        (beats.len() >= 8).then_some(beats)
    });
    let beats: Vec<_> = beats.await.iter().map(|beat| beat.status).collect();

    assert_eq!((beats[0], beats[1], beats[7]), (None, Some(200), Some(200)));
    let held = stage.evaluation(&run).await;
    assert_eq!((held.state, held.n_expiries), (EvaluationState::Leased, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_while_it_waits_for_work_is_given_none() {
    let stage = Stage::new(LONG).await;
    let run = stage.queue("waiting").await;
    let proxy = Proxy::start(&stage.server.server.url, None).await;
    let waiting = Process(stage.worker(&proxy.url, &run).await.spawn().unwrap());
    stage.until(&run, |now| now.state == EvaluationState::Done).await;
    // The claim that it came with, and the one that waits.
    until(async || (proxy.n_asked("POST", "/claim") == 2).then_some(())).await;
    drop(waiting);

    let other = tiny_llama(stage.server.dir.path(), "other", 8);
    let another = stage.queue_as("waiting/another", &other).await;

    // A lease that the dead one got would outlive the test.
    stage.finish(&another).await;
    assert_eq!(stage.evaluation(&another).await.n_expiries, 0);
}
