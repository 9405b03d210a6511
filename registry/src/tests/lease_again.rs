//! What comes again: calls whose answers were lost, and evaluations that another worker goes on with.

use std::collections::BTreeMap;

use bytes::Bytes;
use fineline_api::error::ErrorCode;
use fineline_api::{
    ClaimEvaluation, CompleteEvaluation, EvaluationState, Lease, RunPattern, Scope, TaskScore, result_digest,
    scores_digest,
};
use fineline_format::suite::{GroupMetric, SuiteGroup};
use uuid::Uuid;

use super::fixture::{Fixture, code};
use super::lease::{claim_of, failure, queued_in, queued_with};
use crate::auth::Caller;
use crate::service::{evaluation, lease, result};

fn claim(version: &str) -> ClaimEvaluation {
    ClaimEvaluation {
        claim_id: Some(Uuid::now_v7()),
        harness_version: Some(version.to_owned()),
        ..claim_of("w")
    }
}

async fn ask(fixture: &Fixture, worker: &Caller, claim: &ClaimEvaluation) -> Option<Lease> {
    lease::claim(&fixture.app, worker, claim.clone()).await.unwrap()
}

fn score(version: &str, value: f64) -> TaskScore {
    TaskScore {
        metric: "acc".to_owned(),
        filter: "none".to_owned(),
        value,
        stderr: Some(value / 3.0),
        stderr_method: Some("sample_mean".to_owned()),
        n: 1,
        n_shot: 0,
        higher_is_better: None,
        harness_version: version.to_owned(),
        provenance: BTreeMap::from([("seed".to_owned(), "1".to_owned())]),
    }
}

/// Posts the log and the score of a task under a lease.
async fn post(fixture: &Fixture, worker: &Caller, held: &Lease, task: &str, score: TaskScore) {
    let (app, id, token) = (&fixture.app, held.evaluation.id, &held.token);
    let log = Bytes::from(format!("{task} {}\n", score.value));
    result::put_samples(app, worker, id, token, task, log).await.unwrap();
    result::post_scores(app, worker, id, token, task, vec![score])
        .await
        .unwrap();
}

/// The end with these scores.
fn done(scores: &[(&str, TaskScore)]) -> CompleteEvaluation {
    let digest = |(task, score): &(&str, TaskScore)| ((*task).to_owned(), scores_digest(std::slice::from_ref(score)));
    CompleteEvaluation {
        result_digest: result_digest(&scores.iter().map(digest).collect()),
    }
}

fn scored(lease: &Lease) -> Vec<&str> {
    lease.scored.iter().map(|task| task.task.as_str()).collect()
}

async fn run_out(fixture: &Fixture) {
    fixture
        .sql("UPDATE evaluation SET lease_expires_at_ms = 1 WHERE state = 'leased'")
        .await;
}

#[tokio::test]
async fn a_claim_that_comes_again_gets_the_same_lease_and_never_another() {
    let fixture = Fixture::new().await;
    let (_, worker) = queued_with(&fixture, &["tiny"]).await;
    let first = claim("1");
    let held = ask(&fixture, &worker, &first).await.expect("it is queued");
    let again = ask(&fixture, &worker, &first).await.expect("the same");
    assert_eq!((&again.token, again.evaluation.id), (&held.token, held.evaluation.id));
    let other = fixture.caller(Scope::Evaluate, RunPattern::All).await;
    assert!(ask(&fixture, &other, &first).await.is_none(), "a claim is of one token");
    assert!(
        ask(&fixture, &worker, &claim("1")).await.is_none(),
        "another claim gets nothing"
    );

    run_out(&fixture).await;
    assert!(ask(&fixture, &worker, &first).await.is_none(), "its lease is over");
    let next = ask(&fixture, &worker, &claim("1")).await.expect("queued again");
    assert_ne!(next.token, held.token);
    assert!(ask(&fixture, &worker, &first).await.is_none(), "another has the work");
}

#[tokio::test]
async fn a_failure_that_is_told_again_is_counted_once_even_when_another_has_the_work() {
    let fixture = Fixture::new().await;
    let (admin, worker) = queued_with(&fixture, &["tiny"]).await;
    let held = ask(&fixture, &worker, &claim("1")).await.expect("it is queued");
    let id = held.evaluation.id;
    let told = || lease::fail(&fixture.app, &worker, id, &held.token, failure(true));
    for _ in 0..2 {
        let after = told().await.unwrap();
        assert_eq!((after.state, after.n_failures), (EvaluationState::Queued, 1));
    }
    fixture.sql("UPDATE evaluation SET not_before_ms = 0").await;
    let next = ask(&fixture, &worker, &claim("1")).await.expect("queued again");
    assert_eq!(told().await.unwrap().state, EvaluationState::Leased);
    let after = lease::fail(&fixture.app, &worker, id, &next.token, failure(false))
        .await
        .unwrap();
    assert_eq!((after.state, after.n_failures), (EvaluationState::Failed, 2));
    assert_eq!(
        code(told().await),
        ErrorCode::LeaseLost,
        "the last failure is what is known"
    );
    assert_eq!(evaluation::get(&fixture.app, &admin, id).await.unwrap().n_failures, 2);
}

#[tokio::test]
async fn a_lease_that_is_given_back_any_number_of_times_counts_for_nothing() {
    let fixture = Fixture::new().await;
    let (_, worker) = queued_with(&fixture, &["one", "two"]).await;
    let app = &fixture.app;
    // More often than failures and leases that ran out may be.
    for n in 0..6 {
        let held = ask(&fixture, &worker, &claim("1")).await.expect("it is free at once");
        let (id, token) = (held.evaluation.id, &held.token);
        assert_eq!(scored(&held), if n == 0 { vec![] } else { vec!["one"] });
        if n == 0 {
            post(&fixture, &worker, &held, "one", score("1", 0.5)).await;
        }
        for _ in 0..2 {
            let after = lease::release(app, &worker, id, token).await.unwrap();
            assert_eq!(
                (after.state, after.n_failures, after.n_expiries),
                (EvaluationState::Queued, 0, 0)
            );
            assert!(
                after
                    .reason
                    .is_some_and(|reason| reason.contains("worker `w` gave it back"))
            );
        }
        // It is over, and a failure under it is none.
        assert_eq!(
            lease::fail(app, &worker, id, token, failure(true))
                .await
                .unwrap()
                .n_failures,
            0
        );
        let posted = result::post_scores(app, &worker, id, token, "two", vec![score("1", 1.0)]).await;
        assert_eq!(code(posted), ErrorCode::LeaseLost);
    }
    let held = ask(&fixture, &worker, &claim("1")).await.expect("it is free at once");
    run_out(&fixture).await;
    let late = lease::release(app, &worker, held.evaluation.id, &held.token).await;
    assert_eq!(code(late), ErrorCode::LeaseLost);
}

#[tokio::test]
async fn a_claim_of_one_that_can_do_nothing_gets_back_what_it_had_and_nothing_new() {
    let fixture = Fixture::new().await;
    let (_, worker) = queued_with(&fixture, &["tiny"]).await;
    let first = claim("1");
    let nothing = |of: &ClaimEvaluation| ClaimEvaluation {
        dtypes: Vec::new(),
        ..of.clone()
    };
    assert!(
        ask(&fixture, &worker, &nothing(&first)).await.is_none(),
        "it had nothing"
    );
    let held = ask(&fixture, &worker, &first).await.expect("it is queued");
    let again = ask(&fixture, &worker, &nothing(&first)).await.expect("it has it");
    assert_eq!(again.token, held.token);
}

#[tokio::test]
async fn what_was_scored_stays_for_the_next_worker_and_the_result_is_over_all_of_it() {
    let fixture = Fixture::new().await;
    let (_, worker) = queued_with(&fixture, &["one", "two", "three"]).await;
    let scores = [
        ("one", score("1", 0.1 + 0.2)),
        ("two", score("1", -0.0)),
        ("three", score("1", 1.0)),
    ];
    let first = ask(&fixture, &worker, &claim("1")).await.expect("it is queued");
    post(&fixture, &worker, &first, "one", scores[0].1.clone()).await;
    run_out(&fixture).await;

    let second = ask(&fixture, &worker, &claim("1")).await.expect("its worker died");
    assert_eq!(scored(&second), ["one"]);
    assert_eq!(second.scored[0].scores_digest, scores_digest(&[scores[0].1.clone()]));
    post(&fixture, &worker, &second, "two", scores[1].1.clone()).await;
    let (app, id) = (&fixture.app, first.evaluation.id);
    lease::fail(app, &worker, id, &second.token, failure(true))
        .await
        .unwrap();
    fixture.sql("UPDATE evaluation SET not_before_ms = 0").await;

    let third = ask(&fixture, &worker, &claim("1"))
        .await
        .expect("a failure that may pass");
    assert_eq!(scored(&third), ["one", "two"]);
    let end = |done| result::complete(app, &worker, id, &third.token, done);
    assert_eq!(
        code(end(done(&scores)).await),
        ErrorCode::Unprocessable,
        "`three` is missing"
    );
    post(&fixture, &worker, &third, "three", scores[2].1.clone()).await;
    assert_eq!(code(end(done(&scores[1..])).await), ErrorCode::Conflict);
    for _ in 0..2 {
        assert_eq!(end(done(&scores)).await.unwrap().state, EvaluationState::Done);
    }
    assert_eq!(code(end(done(&scores[1..])).await), ErrorCode::LeaseLost);
}

#[tokio::test]
async fn a_group_is_scored_when_its_evaluation_is_done() {
    let group = SuiteGroup {
        group: "both".to_owned(),
        version: String::new(),
        tasks: vec!["one".to_owned(), "two".to_owned()],
        metrics: vec![GroupMetric {
            metric: "acc".to_owned(),
            filters: Vec::new(),
            weight_by_size: true,
        }],
    };
    let fixture = Fixture::new().await;
    let (admin, worker) = queued_in(&fixture, &["one", "two"], &[group]).await;
    let scores = [("one", score("1", 0.25)), ("two", score("1", 0.75))];
    let held = ask(&fixture, &worker, &claim("1")).await.expect("it is queued");
    let (app, id) = (&fixture.app, held.evaluation.id);
    for (task, score) in &scores {
        post(&fixture, &worker, &held, task, score.clone()).await;
    }
    for _ in 0..2 {
        result::complete(app, &worker, id, &held.token, done(&scores))
            .await
            .unwrap();
        let all = evaluation::scores(app, &admin, id).await.unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["both", "one", "two"]);
        assert_eq!((all["both"][0].value, all["both"][0].n), (0.5, 2));
    }
}

#[tokio::test]
async fn another_harness_and_a_retry_by_hand_begin_anew() {
    let fixture = Fixture::new().await;
    let (admin, worker) = queued_with(&fixture, &["one", "two"]).await;
    let first = ask(&fixture, &worker, &claim("1")).await.expect("it is queued");
    let id = first.evaluation.id;
    post(&fixture, &worker, &first, "one", score("1", 0.5)).await;
    run_out(&fixture).await;

    let second = ask(&fixture, &worker, &claim("2")).await.expect("its worker died");
    assert_eq!(scored(&second), [""; 0], "one evaluation never mixes two harnesses");
    let log = evaluation::samples(&fixture.app, &admin, id, "one").await;
    assert_eq!(code(log), ErrorCode::NotFound, "a log goes with its scores");
    post(&fixture, &worker, &second, "one", score("2", 0.5)).await;
    run_out(&fixture).await;
    let silent = ClaimEvaluation {
        harness_version: None,
        ..claim("")
    };
    let third = ask(&fixture, &worker, &silent).await.expect("its worker died");
    assert_eq!(scored(&third), [""; 0], "who does not say its version does all");
    post(&fixture, &worker, &third, "one", score("2", 0.5)).await;

    evaluation::cancel(&fixture.app, &admin, id).await.unwrap();
    evaluation::retry(&fixture.app, &admin, id).await.unwrap();
    let fourth = ask(&fixture, &worker, &claim("2")).await.expect("retried");
    assert_eq!(
        scored(&fourth),
        [""; 0],
        "who retries by hand may mistrust what is there"
    );
}

#[tokio::test]
async fn scores_never_stand_beside_the_log_of_others() {
    let fixture = Fixture::new().await;
    let (_, worker) = queued_with(&fixture, &["one"]).await;
    let held = ask(&fixture, &worker, &claim("1")).await.expect("it is queued");
    let (app, id) = (&fixture.app, held.evaluation.id);
    let first = score("1", 0.5);
    post(&fixture, &worker, &held, "one", first.clone()).await;
    let put = |log: &'static str| result::put_samples(app, &worker, id, &held.token, "one", Bytes::from(log));
    let end = || result::complete(app, &worker, id, &held.token, done(&[("one", first.clone())]));
    put("one 0.5\n").await.unwrap();
    put("another\n").await.unwrap();
    assert_eq!(
        code(end().await),
        ErrorCode::Unprocessable,
        "its scores went with its log"
    );
    let twice = vec![first.clone(), first.clone()];
    let posted = result::post_scores(app, &worker, id, &held.token, "one", twice).await;
    assert_eq!(code(posted), ErrorCode::Unprocessable);
    post(&fixture, &worker, &held, "one", first.clone()).await;
    assert_eq!(end().await.unwrap().state, EvaluationState::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_end_and_the_end_of_the_lease_at_once_leave_one_of_the_two() {
    let fixture = Fixture::new().await;
    let (_, worker) = queued_with(&fixture, &["one"]).await;
    let mut n_done = 0;
    for turn in 0..40 {
        let held = ask(&fixture, &worker, &claim("1")).await.expect("it is queued");
        let (app, id) = (&fixture.app, held.evaluation.id);
        post(&fixture, &worker, &held, "one", score("1", 0.5)).await;
        let expire = async {
            run_out(&fixture).await;
            lease::expire(app).await.unwrap();
        };
        let end = result::complete(app, &worker, id, &held.token, done(&[("one", score("1", 0.5))]));
        let ended = match turn % 2 {
            0 => tokio::join!(expire, end).1,
            _ => tokio::join!(end, expire).0,
        };
        let again = claim("1");
        match ended {
            Ok(_) => {
                assert!(ask(&fixture, &worker, &again).await.is_none(), "it is done");
                n_done += 1;
            }
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::LeaseLost);
                let next = ask(&fixture, &worker, &again).await.expect("queued again");
                assert_eq!(scored(&next), ["one"]);
            }
        }
        let all = "UPDATE evaluation SET state = 'queued', n_expiries = 0, not_before_ms = 0";
        fixture.sql(all).await;
    }
    assert!(
        (1..40).contains(&n_done),
        "{n_done} of 40: the race went one way each time"
    );
}
