//! Which steps a binding asks for, which comes next, and how few samples a score is of: through the API, the command line and
//! the page.

use std::process::Output;

use fineline_api::score::ExternalScore;
use fineline_api::{Backfill, PostScores, Reference, RunName, RunPattern, Scope, StepOrder};
use fineline_client::{BindOptions, Error, EvaluationQuery, PushOptions, ScoreQuery, apply_suite, plan_suite, push};
use harness::{TestServer, checkpoint, claim, load_fake, serve, suite};

use crate::web::Browser;

async fn push_step(server: &TestServer, run: &RunName, step: u64) {
    let seed = u32::try_from(2 * step + 1).unwrap();
    let dir = checkpoint(server.dir.path(), &format!("{seed}"), 50, seed);
    push(&server.admin, run, step, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
}

/// The steps of the next `n` leases.
async fn claimed(server: &TestServer, n: usize) -> Vec<u64> {
    let worker = server.client(&[Scope::Evaluate], "*").await;
    let mut steps = Vec::new();
    while steps.len() < n
        && let Some(lease) = worker.claim_evaluation(&claim()).await.unwrap()
    {
        steps.push(lease.evaluation.step);
    }
    steps
}

async fn fineline(server: &TestServer, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_client-under-test"));
    command.args(arguments).env("FINELINE_URL", &server.server.url);
    command
        .env("FINELINE_TOKEN", &server.server.admin_token)
        .output()
        .await
        .unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn a_curve_is_filled_where_it_is_emptiest_also_when_new_steps_come() {
    let server = serve().await;
    let run = server.run("lab/run").await;
    for step in 1..=9 {
        push_step(&server, &run, step).await;
    }
    let options = BindOptions {
        order: StepOrder::Coarse,
        ..BindOptions::from(Backfill::All)
    };
    apply_suite(
        &server.admin,
        &suite(server.dir.path()),
        &"lab/*".parse().unwrap(),
        options,
    )
    .await
    .unwrap();
    assert_eq!(claimed(&server, 3).await, [9, 1, 5]);
    push_step(&server, &run, 10).await;
    assert_eq!(claimed(&server, 3).await, [3, 7, 10]);
    // A step that can't be evaluated any more stops nothing.
    let query = EvaluationQuery {
        run: Some(run.clone()),
        reference: Some(Reference::Step(2)),
        state: None,
    };
    let second = server
        .admin
        .list_evaluations(&query, None, None)
        .await
        .unwrap()
        .items
        .remove(0);
    server.admin.cancel_evaluation(second.id).await.unwrap();
    assert_eq!(claimed(&server, 9).await, [4, 6, 8]);
    server.admin.retry_evaluation(second.id).await.unwrap();
    assert_eq!(claimed(&server, 9).await, [2]);
}

#[tokio::test]
async fn every_nth_step_the_newest_first_is_what_the_command_and_the_page_say() {
    let server = serve().await;
    let run = server.run("lab/run").await;
    for step in 1..=6 {
        push_step(&server, &run, step).await;
    }
    let file = suite(server.dir.path());
    let path = file.to_str().unwrap();
    let schedule = ["--every", "2", "--order", "newest", "--backfill", "all"];
    let apply = [&["suite", "apply", path, "--run", "lab/*"], &schedule[..]].concat();
    let plan = text(&fineline(&server, &[&apply[..], &["--dry-run"]].concat()).await);
    assert!(plan.starts_with("3 steps of 1 runs: 3 evaluations to queue"), "{plan}");
    let said = text(&fineline(&server, &apply).await);
    assert_eq!(
        said.trim(),
        "s is bound to lab/* in float32 (steps that 2 divides, the newest first), 3 evaluations are queued"
    );
    assert_eq!(claimed(&server, 1).await, [6]);
    push_step(&server, &run, 7).await;
    push_step(&server, &run, 8).await;
    assert_eq!(claimed(&server, 9).await, [8, 4, 2]);
    let bindings = text(&fineline(&server, &["suite", "bindings"]).await);
    assert!(
        bindings
            .lines()
            .nth(1)
            .unwrap()
            .starts_with("lab/*  s      float32      2  newest      -"),
        "{bindings}"
    );
    let mut browser = Browser::logged_in(&server.server.url, &server.server.admin_token).await;
    let page = browser.get("/runs/lab/run").await.body;
    assert!(
        page.contains("s in float32, steps that 2 divides, the newest first"),
        "{page}"
    );
    // Every 0 steps is none, and a suite bound again without a word asks for every step as it comes.
    let bad = fineline(&server, &["suite", "apply", path, "--run", "lab/*", "--every", "0"]).await;
    assert_eq!(bad.status.code(), Some(1));
    let pattern: RunPattern = "lab/*".parse().unwrap();
    let none = BindOptions {
        every: 0,
        ..BindOptions::from(Backfill::All)
    };
    assert!(matches!(
        plan_suite(&server.admin, &file, &pattern, none).await,
        Err(Error::Refused(_))
    ));
    assert!(matches!(
        apply_suite(&server.admin, &file, &pattern, none).await,
        Err(Error::Refused(_))
    ));
    let plain = apply_suite(&server.admin, &file, &pattern, true).await.unwrap();
    assert_eq!((plain.every, plain.order, plain.n_queued), (1, StepOrder::Arrival, 4));
    assert_eq!(claimed(&server, 9).await, [1, 3, 5, 7]);
}

#[tokio::test]
async fn scores_of_fewer_samples_say_so_and_share_no_curve_with_others() {
    // Given a suite of three samples, one of its first sample, and one whose limit leaves nothing out
    let server = serve().await;
    let run = server.run("lab/run").await;
    suite(server.dir.path());
    for (name, limit) in [("few", 1), ("ample", 10)] {
        let file = server.dir.path().join(format!("{name}.yaml"));
        std::fs::write(&file, format!("suite: {name}\ntasks: [tiny.yaml]\nlimit: {limit}\n")).unwrap();
        let binding = apply_suite(&server.admin, &file, &"lab/*".parse().unwrap(), false)
            .await
            .unwrap();
        assert_eq!(binding.limit, Some(limit));
    }
    push_step(&server, &run, 1).await;
    server.work(load_fake()).await;
    // When another harness's numbers of some and of all samples are posted too
    let external = |limit, value| ExternalScore {
        task: "tiny".to_owned(),
        metric: "acc".to_owned(),
        filter: "none".to_owned(),
        value,
        stderr: None,
        n: 3,
        limit,
        n_shot: 0,
        higher_is_better: Some(true),
        dtype: None,
    };
    let mut post = PostScores {
        reference: Reference::Step(1),
        harness: "lm-eval".to_owned(),
        harness_version: None,
        scores: vec![external(None, 0.1), external(Some(2), 0.2)],
    };
    for _ in 0..2 {
        server.admin.post_scores(&run, &post).await.unwrap();
    }
    // Then each says how few it is of,
    let query = ScoreQuery {
        metric: Some("acc".to_owned()),
        ..ScoreQuery::default()
    };
    for a_page in [1, 100] {
        let page = async |cursor: Option<String>| {
            server
                .admin
                .list_scores(&run, &query, cursor.as_deref(), Some(a_page))
                .await
        };
        let scores = fineline_client::all_pages(page).await.unwrap();
        let mut said: Vec<_> = scores
            .iter()
            .map(|score| (score.harness.as_str(), score.n, score.limit))
            .collect();
        said.sort_unstable();
        assert_eq!(
            said,
            [
                ("fineline", 1, Some(1)),
                ("fineline", 3, None),
                ("lm-eval", 3, None),
                ("lm-eval", 3, Some(2))
            ]
        );
    }
    let csv = server.admin.list_scores_csv(&run, &query).await.unwrap();
    assert!(
        csv.lines().next().unwrap().contains(",n,limit,n_shot,") && csv.contains(",1,1,0,") && csv.contains(",3,2,0,"),
        "{csv}"
    );
    let table = text(&fineline(&server, &["scores", "lab/run", "--metric", "acc"]).await);
    let titles = table.lines().next().unwrap();
    for title in [
        "tiny/acc  ",
        "tiny/acc limit 1",
        "tiny/acc@lm-eval  ",
        "tiny/acc@lm-eval limit 2",
    ] {
        assert!(titles.contains(title), "`{title}`: {titles}");
    }
    let mut browser = Browser::logged_in(&server.server.url, &server.server.admin_token).await;
    let page = browser.get("/runs/lab/run").await.body;
    assert!(
        page.contains("limit 1")
            && page.contains("limit 2")
            && page.contains("few in float32, every step, at most 1 samples"),
        "{page}"
    );
    let page = browser.get("/runs/lab/run/checkpoints/1").await.body;
    assert!(page.contains("(limit 1)"), "{page}");
    post.scores = vec![external(Some(0), 0.1)];
    assert!(matches!(
        server.admin.post_scores(&run, &post).await,
        Err(Error::Refused(_))
    ));
}
