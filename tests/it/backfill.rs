//! Evaluating the steps that were there before a suite: which, in which order, and how many is said before.

use std::process::Output;

use fineline_api::{Backfill, BackfillPlan, RunName, RunPattern, Scope};
use fineline_client::{EvaluationQuery, PushOptions, apply_suite, plan_suite, push};
use harness::{TestServer, checkpoint, claim, serve, suite, suite_about};

async fn push_step(server: &TestServer, run: &RunName, step: u64) {
    let seed = u32::try_from(2 * step + 1).unwrap();
    let dir = checkpoint(server.dir.path(), &format!("{seed}"), 5000, seed);
    push(&server.admin, run, step, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
}

/// Runs `fineline suite apply` on all runs of `lab`, with no terminal.
async fn apply(server: &TestServer, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_client-under-test"));
    let suite = suite(server.dir.path());
    command.args(["suite", "apply", suite.to_str().unwrap(), "--run", "lab/*"]);
    command.args(arguments);
    command
        .env("FINELINE_URL", &server.server.url)
        .env("FINELINE_TOKEN", &server.server.admin_token);
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The steps of all that waits, in the order in which a worker gets them.
async fn claimed(server: &TestServer) -> Vec<u64> {
    let worker = server.client(&[Scope::Evaluate], "*").await;
    let mut steps = Vec::new();
    while let Some(lease) = worker.claim_evaluation(&claim()).await.unwrap() {
        steps.push(lease.evaluation.step);
    }
    steps
}

async fn n_evaluations(server: &TestServer) -> usize {
    let query = EvaluationQuery::default();
    server
        .admin
        .list_evaluations(&query, None, None)
        .await
        .unwrap()
        .items
        .len()
}

#[tokio::test]
async fn a_back_fill_goes_coarse_to_fine_behind_new_steps_and_says_its_counts_first() {
    // Given nine steps without a suite
    let server = serve().await;
    let run = server.run("lab/run").await;
    for step in 1..=9 {
        push_step(&server, &run, step).await;
    }
    // When a back-fill is only asked about, nothing happens
    let counts = "9 steps of 1 runs: 9 evaluations to queue, 0 shown already";
    let dry = apply(&server, &["--backfill", "coarse", "--dry-run"]).await;
    assert_eq!(String::from_utf8_lossy(&dry.stdout).trim(), counts);
    assert!(
        server.admin.list_bindings().await.unwrap().is_empty() && server.admin.list_suites().await.unwrap().is_empty()
    );
    // And when it is done in the order of the steps, then coarse to fine, and a new step comes
    apply(&server, &["--backfill"]).await;
    let again = apply(&server, &["--backfill", "coarse"]).await;
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        said.contains("9 steps of 1 runs: 0 evaluations to queue, 9 shown already"),
        "{said}"
    );
    push_step(&server, &run, 50).await;
    // Then the new step is first, and each next step halves a gap.
    assert_eq!(claimed(&server).await, [50, 9, 1, 5, 3, 7, 2, 4, 6, 8]);
}

#[tokio::test]
async fn the_newest_of_each_run_are_taken_and_a_changed_suite_evaluates_again_only_when_asked() {
    // Given two runs with three steps, one of which is the same model in both
    let server = serve().await;
    for (name, steps) in [("lab/a", [1, 2, 3]), ("lab/b", [2, 4, 5])] {
        let run = server.run(name).await;
        for step in steps {
            push_step(&server, &run, step).await;
        }
    }
    server.run("other/run").await;
    let runs: RunPattern = "lab/*".parse().unwrap();
    let first = suite(server.dir.path());
    // When the newest two of each are asked for
    let binding = apply_suite(&server.admin, &first, &runs, Backfill::Newest(2))
        .await
        .unwrap();
    assert_eq!(binding.n_queued, 4);
    // Then all the others are left, of which one is shared.
    let plan = |n_to_queue, n_shown| BackfillPlan {
        n_runs: 2,
        n_steps: 6,
        n_to_queue,
        n_shown,
    };
    let left = plan_suite(&server.admin, &first, &runs, Backfill::All).await.unwrap();
    assert_eq!(left, plan(1, 5));
    assert_eq!(
        apply_suite(&server.admin, &first, &runs, true).await.unwrap().n_queued,
        1
    );
    assert_eq!(n_evaluations(&server).await, 5);
    // And a changed suite evaluates nothing again by itself, all when asked, and no other suite with it.
    let folder = server.dir.path().join("changed");
    std::fs::create_dir(&folder).unwrap();
    let changed = suite_about(&folder, "y");
    assert_eq!(
        apply_suite(&server.admin, &changed, &runs, false)
            .await
            .unwrap()
            .n_queued,
        0
    );
    let other = server.dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let other = suite_about(&other, "z");
    std::fs::write(&other, "suite: t\ntasks: [tiny.yaml]\n").unwrap();
    assert_eq!(
        apply_suite(&server.admin, &other, &runs, false).await.unwrap().n_queued,
        0
    );
    let plan_changed = plan_suite(&server.admin, &changed, &runs, Backfill::Coarse)
        .await
        .unwrap();
    assert_eq!(plan_changed, plan(5, 1));
    let queued = apply_suite(&server.admin, &changed, &runs, Backfill::Coarse)
        .await
        .unwrap()
        .n_queued;
    assert_eq!((queued, n_evaluations(&server).await), (5, 10));
}

#[tokio::test]
async fn a_back_fill_of_more_than_a_transaction_takes_every_step_once() {
    let server = serve().await;
    let run = server.run("lab/run").await;
    for step in 0..120 {
        push_step(&server, &run, step).await;
    }
    let file = suite(server.dir.path());
    let runs: RunPattern = "lab/run".parse().unwrap();
    let queued = apply_suite(&server.admin, &file, &runs, Backfill::Coarse)
        .await
        .unwrap()
        .n_queued;
    let mut steps = claimed(&server).await;
    assert_eq!((queued, &steps[..3]), (120, &[119, 0, 59][..]));
    steps.sort_unstable();
    assert_eq!(steps, (0..120).collect::<Vec<u64>>());
}
