//! The order in which a run's steps are evaluated, at the size of a long run.

use std::time::{Duration, Instant};

use fineline_api::{Backfill, CreateBinding, RunPattern, StepOrder};
use fineline_format::Digest;
use sea_orm::ConnectionTrait as _;

use super::fixture::Fixture;
use super::lease::{claim_of, queued_with};
use crate::auth::Caller;
use crate::db;
use crate::service::{enqueue, lease, suite};

/// Binds the suite that is bound to all runs again, in this order.
async fn bind(fixture: &Fixture, admin: &Caller, order: StepOrder) {
    let binding = CreateBinding {
        pattern: RunPattern::All,
        suite: suite::bindings(&fixture.app, admin).await.unwrap()[0].suite_digest,
        dtype: "float32".to_owned(),
        backfill: Backfill::None,
        every: 1,
        order,
    };
    suite::bind(&fixture.app, admin, binding).await.unwrap();
}

/// Steps as many pushes would have left them: rows like step 1's, each of another model, and queued by the service.
async fn come(fixture: &Fixture, steps: std::ops::RangeInclusive<u64>) {
    let columns = "state, current, checkpoint_digest, weights_digest, metadata, tags, warnings, \"replace\", created_at_ms, \
        ready_at_ms";
    let txn = db::write_txn(&fixture.app.db).await.unwrap();
    let run = db::run::find(&txn, &"lab/run".parse().unwrap()).await.unwrap().unwrap();
    for step in steps {
        let model = fixture.literal(Digest::of(&step.to_le_bytes()).as_bytes());
        let copy = format!(
            "INSERT INTO revision (run_id, step, model_digest, {columns}) \
                SELECT run_id, {step}, {model}, {columns} FROM revision WHERE step = 1"
        );
        txn.execute_unprepared(&copy).await.unwrap();
        let row = db::revision::current(&txn, run.id, step).await.unwrap().unwrap();
        assert_eq!(enqueue::for_revision(&txn, &run, &row).await.unwrap(), 1);
    }
    txn.commit().await.unwrap();
}

/// The steps that a worker gets, and how long each claim took, the shortest first.
async fn claimed(fixture: &Fixture, worker: &Caller, n: usize) -> (Vec<u64>, Vec<Duration>) {
    let (mut steps, mut took) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let begun = Instant::now();
        let lease = lease::claim(&fixture.app, worker, claim_of("w")).await.unwrap();
        took.push(begun.elapsed());
        steps.push(lease.expect("one waits").evaluation.step);
    }
    took.sort_unstable();
    (steps, took)
}

/// The widest gap between steps that are known, of steps 1 to `last`.
fn widest(known: &[u64], last: u64) -> u64 {
    let mut known = known.to_vec();
    known.sort_unstable();
    let inner = known.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    inner.max(2 * (known[0] - 1)).max(2 * (last - known[known.len() - 1]))
}

#[tokio::test]
async fn a_long_run_is_known_evenly_at_any_time_and_new_steps_keep_it_so() {
    // Given 1,200 steps that wait, coarse to fine
    let fixture = Fixture::new().await;
    let (admin, worker) = queued_with(&fixture, &["tiny"]).await;
    bind(&fixture, &admin, StepOrder::Coarse).await;
    let n: u64 = std::env::var("FINELINE_TEST_STEPS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1200);
    come(&fixture, 2..=n).await;
    // When workers take them, then the widest gap is never twice the narrowest possible.
    let (mut known, took) = claimed(&fixture, &worker, 65).await;
    println!(
        "65 claims at {n} steps: half took {:?} at most, the longest {:?}",
        took[32], took[64]
    );
    assert_eq!(&known[..2], [n, 1]);
    for n_known in 2..=known.len() {
        let best = (n - 1).div_ceil(n_known as u64 - 1);
        assert!(
            widest(&known[..n_known], n) <= 2 * best,
            "{n_known}: {:?}",
            &known[..n_known]
        );
    }
    // And when as many steps again come while they work, the empty end is filled first, by halves too.
    come(&fixture, n + 1..=2 * n).await;
    let before = widest(&known, 2 * n);
    let (more, _) = claimed(&fixture, &worker, 64).await;
    assert_eq!(&more[..2], [2 * n, n + n / 2], "{more:?}");
    known.extend(more);
    assert!(widest(&known, 2 * n) <= 2 * (2 * n - 1).div_ceil(128) && before > n);
    let distinct: std::collections::BTreeSet<&u64> = known.iter().collect();
    assert_eq!(distinct.len(), 129);
}

#[tokio::test]
async fn the_newest_step_is_next_however_many_wait_and_another_binding_changes_it_at_once() {
    let fixture = Fixture::new().await;
    let (admin, worker) = queued_with(&fixture, &["tiny"]).await;
    come(&fixture, 2..=20).await;
    assert_eq!(claimed(&fixture, &worker, 2).await.0, [1, 2], "as they came");
    bind(&fixture, &admin, StepOrder::Newest).await;
    assert_eq!(claimed(&fixture, &worker, 2).await.0, [20, 19]);
    come(&fixture, 21..=22).await;
    assert_eq!(claimed(&fixture, &worker, 3).await.0, [22, 21, 18]);
    bind(&fixture, &admin, StepOrder::Coarse).await;
    assert_eq!(claimed(&fixture, &worker, 1).await.0, [10], "in the middle of 2 and 18");
}
