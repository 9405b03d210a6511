//! How an evaluation ends: tried again, parked, and by whom it can be told.

use std::collections::BTreeMap;

use bytes::Bytes;
use fineline_api::error::ErrorCode;
use fineline_api::{
    Backfill, ClaimEvaluation, CompleteEvaluation, CreateBinding, EvaluationState, FailEvaluation, Lease, Progress,
    RunPattern, Scope, StepOrder,
};
use fineline_format::Digest;
use fineline_format::suite::{BlobRef, SuiteDefinition, SuiteGroup, SuiteTask};

use super::fixture::{Fixture, code, model};
use crate::auth::Caller;
use crate::service::{evaluation, lease, result, suite};

const TASK: &str = "dataset_path: json\ndataset_kwargs: {data_files: {test: docs.jsonl}}\n\
    output_type: multiple_choice\ntest_split: test\ndoc_to_text: q\ndoc_to_target: 0\ndoc_to_choice: [a, b]\n";

/// A run with a bound suite of the task `tiny` and one step, whose evaluation waits; and one who may evaluate.
async fn queued(fixture: &Fixture) -> (Caller, Caller) {
    queued_with(fixture, &["tiny"]).await
}

/// The same with these tasks.
pub(super) async fn queued_with(fixture: &Fixture, tasks: &[&str]) -> (Caller, Caller) {
    queued_in(fixture, tasks, &[]).await
}

/// The same with these tasks in these groups.
pub(super) async fn queued_in(fixture: &Fixture, tasks: &[&str], groups: &[SuiteGroup]) -> (Caller, Caller) {
    let pusher = fixture.run("lab/run").await;
    let admin = fixture.caller(Scope::Admin, RunPattern::All).await;
    let mut blobs: BTreeMap<Digest, Bytes> = BTreeMap::new();
    let mut blob = |text: &str| {
        let digest = Digest::of(text.as_bytes());
        blobs.insert(digest, Bytes::copy_from_slice(text.as_bytes()));
        BlobRef {
            digest,
            size_bytes: text.len() as u64,
        }
    };
    let task = |name: &&str| SuiteTask {
        task: (*name).to_owned(),
        yaml: blob(&format!("task: {name}\n{TASK}")),
        data: [("test".to_owned(), vec![blob("{\"q\": \"x\"}\n")])].into(),
    };
    let definition = SuiteDefinition {
        suite: "s".to_owned(),
        tasks: tasks.iter().map(task).collect(),
        groups: groups.to_vec(),
        limit: None,
        num_fewshot: None,
    };
    let upload = suite::Upload {
        pattern: RunPattern::All,
        definition,
        blobs,
    };
    let (kept, _) = suite::create(&fixture.app, &admin, upload).await.unwrap();
    let binding = CreateBinding {
        pattern: RunPattern::All,
        suite: kept.digest,
        dtype: "float32".to_owned(),
        backfill: Backfill::None,
        every: 1,
        order: StepOrder::Arrival,
    };
    suite::bind(&fixture.app, &admin, binding).await.unwrap();
    pusher.push(1, &model(1.0)).await.unwrap();
    let worker = fixture.caller(Scope::Evaluate, RunPattern::All).await;
    (admin, worker)
}

async fn claim(fixture: &Fixture, worker: &Caller) -> Option<Lease> {
    lease::claim(&fixture.app, worker, claim_of("w")).await.unwrap()
}

/// What a worker asks for.
pub(super) fn claim_of(worker: &str) -> ClaimEvaluation {
    ClaimEvaluation {
        worker: worker.to_owned(),
        device: "cpu".to_owned(),
        memory_bytes: 1 << 30,
        dtypes: vec!["float32".to_owned()],
        architectures: vec!["LlamaForCausalLM".to_owned()],
        wait_s: 0,
        claim_id: None,
        harness_version: None,
    }
}

pub(super) fn failure(retryable: bool) -> FailEvaluation {
    FailEvaluation {
        reason: "the disk is full".to_owned(),
        retryable,
    }
}

#[tokio::test]
async fn a_failure_that_may_pass_waits_is_tried_again_and_parks_at_the_third() {
    let fixture = Fixture::new().await;
    let (admin, worker) = queued(&fixture).await;
    for n in 1..=3 {
        let held = claim(&fixture, &worker).await.expect("it is queued");
        let id = held.evaluation.id;
        let after = lease::fail(&fixture.app, &worker, id, &held.token, failure(true))
            .await
            .unwrap();
        if n == 3 {
            assert_eq!(after.state, EvaluationState::Parked);
            assert_eq!(after.reason.as_deref(), Some("the disk is full"));
        } else {
            assert_eq!(after.state, EvaluationState::Queued);
            assert!(
                claim(&fixture, &worker).await.is_none(),
                "it waits before try {}",
                n + 1
            );
            fixture.sql("UPDATE evaluation SET not_before_ms = 0").await;
        }
    }
    fixture.sql("UPDATE evaluation SET not_before_ms = 0").await;
    assert!(claim(&fixture, &worker).await.is_none(), "parked work is not given out");
    let all = evaluation::list(&fixture.app, &admin, &Default::default(), None, 10)
        .await
        .unwrap();
    evaluation::retry(&fixture.app, &admin, all.items[0].id).await.unwrap();
    let held = claim(&fixture, &worker).await.expect("retried by hand");
    let ended = lease::fail(&fixture.app, &worker, held.evaluation.id, &held.token, failure(false)).await;
    assert_eq!(ended.unwrap().state, EvaluationState::Failed);
}

#[tokio::test]
async fn leases_that_run_out_are_counted_apart_and_park_at_the_fifth() {
    let fixture = Fixture::new().await;
    let (admin, worker) = queued(&fixture).await;
    let first = claim(&fixture, &worker).await.expect("it is queued");
    let id = first.evaluation.id;
    lease::fail(&fixture.app, &worker, id, &first.token, failure(true))
        .await
        .unwrap();
    fixture.sql("UPDATE evaluation SET not_before_ms = 0").await;
    for n in 1..=5 {
        let held = claim(&fixture, &worker).await.expect("it is queued again");
        fixture.sql("UPDATE evaluation SET lease_expires_at_ms = 1").await;
        let renewed = lease::renew(&fixture.app, &worker, id, &held.token, Progress::default()).await;
        assert_eq!(code(renewed), ErrorCode::LeaseLost);
        lease::expire(&fixture.app).await.unwrap();
        let now = evaluation::get(&fixture.app, &admin, id).await.unwrap();
        let expected = if n == 5 {
            EvaluationState::Parked
        } else {
            EvaluationState::Queued
        };
        assert_eq!(now.state, expected, "after {n}");
    }
}

#[tokio::test]
async fn what_a_worker_that_died_had_only_claimed_ahead_is_not_counted() {
    let fixture = Fixture::new().await;
    let (admin, worker) = queued(&fixture).await;
    for (ahead, n_expiries) in [(true, 0), (true, 0), (false, 1), (true, 1)] {
        let held = claim(&fixture, &worker).await.expect("it is queued");
        let id = held.evaluation.id;
        let said = Progress {
            ahead,
            ..Progress::default()
        };
        lease::renew(&fixture.app, &worker, id, &held.token, said)
            .await
            .unwrap();
        fixture.sql("UPDATE evaluation SET lease_expires_at_ms = 1").await;
        lease::expire(&fixture.app).await.unwrap();
        let now = evaluation::get(&fixture.app, &admin, id).await.unwrap();
        assert_eq!((now.state, now.n_expiries), (EvaluationState::Queued, n_expiries));
    }
}

#[tokio::test]
async fn a_lease_is_of_one_token_and_a_stale_one_changes_nothing() {
    let fixture = Fixture::new().await;
    let (_, worker) = queued(&fixture).await;
    let held = claim(&fixture, &worker).await.expect("it is queued");
    let id = held.evaluation.id;
    let other = fixture.caller(Scope::Evaluate, RunPattern::All).await;
    let done = || CompleteEvaluation {
        result_digest: Digest::of(b"r"),
    };
    for (caller, token) in [(&other, held.token.as_str()), (&worker, "fl_wrong")] {
        let app = &fixture.app;
        assert_eq!(
            code(lease::renew(app, caller, id, token, Progress::default()).await),
            ErrorCode::LeaseLost
        );
        assert_eq!(
            code(lease::fail(app, caller, id, token, failure(false)).await),
            ErrorCode::LeaseLost
        );
        assert_eq!(
            code(result::complete(app, caller, id, token, done()).await),
            ErrorCode::LeaseLost
        );
        let samples = result::put_samples(app, caller, id, token, "tiny", Bytes::from("{}\n")).await;
        assert_eq!(code(samples), ErrorCode::LeaseLost);
    }
    assert!(
        lease::renew(&fixture.app, &worker, id, &held.token, Progress::default())
            .await
            .is_ok()
    );
}
