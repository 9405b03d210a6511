//! Many at once: no evaluation is given to two, and only one end of it counts.

use std::collections::{BTreeMap, BTreeSet};

use fineline_api::{
    ClaimEvaluation, CompleteEvaluation, EvaluationState, Lease, Scope, TaskScore, result_digest, scores_digest,
};
use fineline_client::{Client, Error, EvaluationQuery, PushOptions, apply_suite, push};
use harness::{TestServer, checkpoint, serve, suite};
use tokio::task::JoinSet;
use uuid::Uuid;

fn claim(worker: usize) -> ClaimEvaluation {
    ClaimEvaluation {
        worker: format!("w{worker}"),
        claim_id: Some(Uuid::now_v7()),
        harness_version: Some("1".to_owned()),
        ..harness::claim()
    }
}

fn score(value: f64) -> TaskScore {
    TaskScore {
        metric: "acc".to_owned(),
        filter: "none".to_owned(),
        value,
        stderr: None,
        stderr_method: None,
        n: 3,
        n_shot: 0,
        higher_is_better: Some(true),
        harness_version: "1".to_owned(),
        provenance: BTreeMap::new(),
    }
}

fn result(value: f64) -> CompleteEvaluation {
    let tasks = [("tiny".to_owned(), scores_digest(&[score(value)]))];
    CompleteEvaluation {
        result_digest: result_digest(&tasks.into()),
    }
}

/// A server with `n` evaluations that wait, and one who may take them.
async fn queued(n: u32) -> (TestServer, Client) {
    let server = serve().await;
    let run = server.run("lab/run").await;
    let (file, everywhere) = (suite(server.dir.path()), "*".parse().unwrap());
    apply_suite(&server.admin, &file, &everywhere, false).await.unwrap();
    for step in 1..=n {
        let dir = checkpoint(server.dir.path(), &step.to_string(), 100, 2 * step);
        let options = PushOptions::default();
        push(&server.admin, &run, step.into(), &dir, &options, |_| {})
            .await
            .unwrap();
    }
    let worker = server.client(&[Scope::Evaluate], "*").await;
    (server, worker)
}

async fn count(server: &TestServer, state: EvaluationState) -> usize {
    let query = EvaluationQuery {
        state: Some(state),
        ..EvaluationQuery::default()
    };
    server
        .admin
        .list_evaluations(&query, None, None)
        .await
        .unwrap()
        .items
        .len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_workers_at_once_never_get_one_evaluation_twice() {
    let (server, worker) = queued(10).await;
    let mut asking = JoinSet::new();
    for n in 0..20 {
        let worker = worker.clone();
        asking.spawn(async move {
            let mut leases = Vec::new();
            let mut claim = claim(n);
            while let Some(lease) = worker.claim_evaluation(&claim).await.unwrap() {
                // Sent again, it gets the same.
                let again = worker.claim_evaluation(&claim).await.unwrap().unwrap();
                assert_eq!(
                    (again.token == lease.token, again.evaluation.id),
                    (true, lease.evaluation.id)
                );
                leases.push(lease.evaluation.id);
                claim.claim_id = Some(Uuid::now_v7());
            }
            leases
        });
    }
    let given: Vec<Uuid> = asking.join_all().await.concat();
    assert_eq!(given.len(), 10);
    assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 10);
    assert_eq!(count(&server, EvaluationState::Leased).await, 10);
}

/// Posts and completes; whether that had its way.
async fn complete(worker: &Client, lease: &Lease, value: f64) -> bool {
    let (id, worker) = (lease.evaluation.id, worker.with_lease(&lease.token).unwrap());
    if worker.post_task_scores(id, "tiny", &[score(value)]).await.is_err() {
        return false;
    }
    match worker.complete_evaluation(id, &result(value)).await {
        Ok(done) => done.state == EvaluationState::Done,
        Err(Error::LeaseLost(_)) => false,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_evaluation_that_is_cancelled_while_scores_are_posted_takes_no_more() {
    let (server, worker) = queued(8).await;
    let mut working = JoinSet::new();
    for n in 0..8 {
        let lease = worker.claim_evaluation(&claim(n)).await.unwrap().unwrap();
        let (worker, admin, id) = (worker.clone(), server.admin.clone(), lease.evaluation.id);
        working.spawn(async move {
            let (completed, cancelled) = tokio::join!(complete(&worker, &lease, 0.5), admin.cancel_evaluation(id));
            assert_ne!(completed, cancelled.is_ok(), "exactly one of the two has its way");
            completed
        });
    }
    let completed = working
        .join_all()
        .await
        .into_iter()
        .filter(|completed| *completed)
        .count();
    assert_eq!(count(&server, EvaluationState::Done).await, completed);
    assert_eq!(count(&server, EvaluationState::Cancelled).await, 8 - completed);
}
