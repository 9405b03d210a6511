//! Two workers, one of them stopped past its lease.

use fineline_api::EvaluationState;
use harness::{Proxy, STOP_AT, tiny_llama};
use rustix::process::Signal;

use super::{Process, SHORT, Stage, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_wakes_behind_its_lease_changes_nothing_and_claims_anew() {
    let stage = Stage::new(SHORT).await;
    let calm = stage.undisturbed().await;
    let other_model = tiny_llama(stage.server.dir.path(), "other", 8);
    for point in ["worker.measured:2", "worker.samples_put:3", "worker.completing"] {
        let run = stage.queue(&point.replace([':', '.'], "-")).await;
        let proxy = Proxy::start(&stage.server.server.url, None).await;
        let mut command = stage.worker(&proxy.url, &run).await;
        let first = Process(command.env(STOP_AT, point).spawn().unwrap());
        until(async || first.is_stopped().then_some(())).await;
        assert_eq!(stage.finish(&run).await, calm);
        let done = stage.evaluation(&run).await;
        let before = proxy.exchanges().len();
        first.signal(Signal::CONT);
        let another = stage
            .queue_as(&format!("{}/another", run.namespace()), &other_model)
            .await;
        stage.until(&another, |now| now.state == EvaluationState::Done).await;

        let said = proxy.exchanges().split_off(before);
        let stale: Vec<_> = said
            .iter()
            .filter(|exchange| exchange.path.contains(&done.id.to_string()))
            .collect();
        assert!(
            !stale.is_empty() && stale.iter().all(|exchange| exchange.status == Some(409)),
            "{said:?}"
        );
        assert_eq!(stage.outcome(&run).await, calm, "stopped at {point}");
    }
}
