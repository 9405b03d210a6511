//! Evaluation starts by itself; leases, scores and their ends.

use fineline_api::{
    ClaimEvaluation, CompleteEvaluation, EvaluationState, FailEvaluation, Lease, Reference, RunName, Scope, TaskScore,
    result_digest, scores_digest,
};
use fineline_client::{Client, Error, EvaluationQuery, PushOptions, ScoreQuery, apply_suite, push};
use fineline_format::Digest;
use harness::{TestServer, checkpoint, claim, serve, suite};

fn score(value: f64) -> TaskScore {
    TaskScore {
        metric: "acc".to_owned(),
        filter: "none".to_owned(),
        value,
        stderr: None,
        stderr_method: None,
        n: 1,
        n_shot: 0,
        higher_is_better: Some(true),
        harness_version: "0".to_owned(),
        provenance: Default::default(),
    }
}

/// A server with a run, a bound suite, a pushed step, and a worker that has claimed its evaluation.
async fn leased() -> (TestServer, RunName, Client, Lease) {
    let server = serve().await;
    let run = server.run("lab/run").await;
    apply_suite(
        &server.admin,
        &suite(server.dir.path()),
        &"lab/*".parse().unwrap(),
        false,
    )
    .await
    .unwrap();
    let dir = checkpoint(server.dir.path(), "a", 9000, 1);
    push(&server.admin, &run, 1, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let worker = server.client(&[Scope::Evaluate], "*").await;
    let lease = worker
        .claim_evaluation(&claim())
        .await
        .unwrap()
        .expect("the push queued an evaluation");
    assert!(
        worker.claim_evaluation(&claim()).await.unwrap().is_none(),
        "it is claimed once"
    );
    let worker = worker.with_lease(&lease.token).unwrap();
    (server, run, worker, lease)
}

#[tokio::test]
async fn a_push_is_evaluated_once_and_completes_once() {
    let (server, run, worker, lease) = leased().await;
    let id = lease.evaluation.id;
    let scores = scores_digest(&[score(0.5)]);
    let done = CompleteEvaluation {
        result_digest: result_digest(&[("tiny".to_owned(), scores)].into()),
    };
    assert!(
        worker.complete_evaluation(id, &done).await.is_err(),
        "a task without scores is no end"
    );
    worker.put_samples(id, "tiny", "{}\n".into()).await.unwrap();
    worker.post_task_scores(id, "tiny", &[score(0.25)]).await.unwrap();
    assert!(
        matches!(worker.complete_evaluation(id, &done).await, Err(Error::Conflict(_))),
        "the result of other scores than those that are held"
    );
    worker.post_task_scores(id, "tiny", &[score(0.5)]).await.unwrap();
    for _ in 0..2 {
        assert_eq!(
            worker.complete_evaluation(id, &done).await.unwrap().state,
            EvaluationState::Done
        );
    }
    let other = CompleteEvaluation {
        result_digest: Digest::of(b"other"),
    };
    assert!(matches!(
        worker.complete_evaluation(id, &other).await,
        Err(Error::LeaseLost(_))
    ));
    let scores = server
        .admin
        .list_scores(&run, &ScoreQuery::default(), None, None)
        .await
        .unwrap()
        .items;
    assert_eq!(
        scores.iter().map(|score| (score.step, score.value)).collect::<Vec<_>>(),
        [(1, 0.5)]
    );

    // The same model at another step shows the same scores and is not evaluated again.
    let dir = server.dir.path().join("a");
    std::fs::write(dir.join("README.md"), "changed").unwrap();
    push(&server.admin, &run, 2, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let all = server
        .admin
        .list_evaluations(&EvaluationQuery::default(), None, None)
        .await
        .unwrap()
        .items;
    assert_eq!(all.len(), 1);
    let scores = server
        .admin
        .list_scores(&run, &ScoreQuery::default(), None, None)
        .await
        .unwrap()
        .items;
    assert_eq!(scores.iter().map(|score| score.step).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn a_worker_reads_what_it_holds_a_lease_for_and_nothing_else() {
    let (server, run, worker, lease) = leased().await;
    let reference = Reference::Digest(lease.evaluation.checkpoint);
    assert_eq!(worker.list_files(&run, &reference, true).await.unwrap().len(), 3);
    let dir = checkpoint(server.dir.path(), "other", 9000, 5);
    let other = server.run("lab/other").await;
    let pushed = push(&server.admin, &other, 1, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    assert!(
        worker
            .list_files(&other, &Reference::Digest(pushed.digest), true)
            .await
            .is_err()
    );
    let stop = FailEvaluation {
        reason: "no".to_owned(),
        retryable: false,
    };
    worker.fail_evaluation(lease.evaluation.id, &stop).await.unwrap();
    assert!(
        worker.list_files(&run, &reference, true).await.is_err(),
        "the lease is over"
    );
}

#[tokio::test]
async fn a_cancelled_evaluation_loses_its_lease_and_can_be_tried_again() {
    let (server, _, worker, lease) = leased().await;
    let id = lease.evaluation.id;
    server.admin.cancel_evaluation(id).await.unwrap();
    let lost = worker.post_task_scores(id, "tiny", &[score(1.0)]).await;
    assert!(matches!(lost, Err(Error::LeaseLost(_))), "{lost:?}");
    server.admin.retry_evaluation(id).await.unwrap();
    let again = worker.claim_evaluation(&claim()).await.unwrap().expect("queued again");
    assert_ne!(again.token, lease.token);
    let stale = worker.post_task_scores(id, "tiny", &[score(1.0)]).await;
    assert!(
        matches!(stale, Err(Error::LeaseLost(_))),
        "the old lease stays dead: {stale:?}"
    );
}

#[tokio::test]
async fn a_lease_that_is_given_back_is_free_at_once_and_nothing_is_counted() {
    let (server, _, worker, lease) = leased().await;
    let id = lease.evaluation.id;
    let other = server.client(&[Scope::Evaluate], "*").await;
    let waits = ClaimEvaluation { wait_s: 20, ..claim() };
    let (next, given_back) = tokio::join!(other.claim_evaluation(&waits), worker.release_evaluation(id));
    let given_back = given_back.unwrap();
    assert_eq!(given_back.state, EvaluationState::Queued);
    assert_eq!((given_back.n_failures, given_back.n_expiries), (0, 0));
    let next = next.unwrap().expect("it is free for who waits");
    assert_eq!(next.evaluation.id, id);
    // Told again, it changes nothing; all else under it is refused.
    let again = worker.release_evaluation(id).await.unwrap();
    assert_eq!((again.state, again.n_failures), (EvaluationState::Leased, 0));
    let stale = worker.post_task_scores(id, "tiny", &[score(1.0)]).await;
    assert!(matches!(stale, Err(Error::LeaseLost(_))), "{stale:?}");
    let next_worker = other.with_lease(&next.token).unwrap();
    server.admin.cancel_evaluation(id).await.unwrap();
    let lost = next_worker.release_evaluation(id).await;
    assert!(matches!(lost, Err(Error::LeaseLost(_))), "{lost:?}");
}
