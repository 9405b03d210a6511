//! Scores of a run by step, from outside and in pages.

use fineline_api::score::ExternalScore;
use fineline_api::{PostScores, Reference, Score};
use fineline_client::{Client, Error, PushOptions, ScoreQuery, all_pages, push};
use harness::{checkpoint, serve};

fn external(task: &str, value: f64) -> ExternalScore {
    ExternalScore {
        task: task.to_owned(),
        metric: "acc".to_owned(),
        filter: "none".to_owned(),
        value,
        stderr: None,
        n: 10,
        limit: None,
        n_shot: 0,
        higher_is_better: Some(true),
        dtype: None,
    }
}

async fn listed(client: &Client, query: &ScoreQuery, a_page: u64) -> Vec<(u64, String, f64)> {
    let run = "lab/run".parse().unwrap();
    let page = async |cursor: Option<String>| client.list_scores(&run, query, cursor.as_deref(), Some(a_page)).await;
    let scores: Vec<Score> = all_pages(page).await.unwrap();
    scores
        .into_iter()
        .map(|score| (score.step, score.task, score.value))
        .collect()
}

#[tokio::test]
async fn pages_of_any_size_hold_every_score_once_in_the_order_of_steps() {
    let server = serve().await;
    let run = server.run("lab/run").await;
    // More steps than are read at once, pushed in another order than they are listed in.
    let steps: Vec<u64> = (0..60).map(|i| i * 37 % 60).collect();
    for &step in &steps {
        let dir = checkpoint(server.dir.path(), &step.to_string(), 50, step as u32);
        push(&server.admin, &run, step, &dir, &PushOptions::default(), |_| {})
            .await
            .unwrap();
        let scores = PostScores {
            reference: Reference::Step(step),
            harness: "lm-eval".to_owned(),
            harness_version: None,
            scores: ["b", "a", "c"].map(|task| external(task, step as f64)).into(),
        };
        assert_eq!(server.admin.post_scores(&run, &scores).await.unwrap(), 3);
        assert_eq!(
            server.admin.post_scores(&run, &scores).await.unwrap(),
            3,
            "again replaces"
        );
    }
    let expected: Vec<_> = (0..60_u64)
        .flat_map(|step| ["a", "b", "c"].map(|task| (step, task.to_owned(), step as f64)))
        .collect();
    for a_page in [1, 7, 100, 1000] {
        assert_eq!(
            listed(&server.admin, &ScoreQuery::default(), a_page).await,
            expected,
            "{a_page} a page"
        );
    }
    let narrow = ScoreQuery {
        step_min: Some(10),
        step_max: Some(58),
        task: Some("b".to_owned()),
        ..ScoreQuery::default()
    };
    let of_b: Vec<_> = (10..=58).map(|step| (step, "b".to_owned(), step as f64)).collect();
    assert_eq!(listed(&server.admin, &narrow, 10).await, of_b);
    let csv = server
        .admin
        .list_scores_csv(&run, &ScoreQuery::default())
        .await
        .unwrap();
    assert_eq!(csv.lines().count(), 181);
    let bad = server
        .admin
        .list_scores(&run, &ScoreQuery::default(), Some("7"), None)
        .await;
    assert!(matches!(bad, Err(Error::Refused(_))), "{bad:?}");
}

#[tokio::test]
async fn scores_of_a_replaced_revision_are_listed_when_they_are_asked_for() {
    let server = serve().await;
    let run = server.run("lab/run").await;
    for (seed, value) in [(1, 0.1), (2, 0.2)] {
        let dir = checkpoint(server.dir.path(), &seed.to_string(), 50, seed);
        let options = PushOptions {
            replace: true,
            ..PushOptions::default()
        };
        push(&server.admin, &run, 5, &dir, &options, |_| {}).await.unwrap();
        let scores = PostScores {
            reference: Reference::Step(5),
            harness: "lm-eval".to_owned(),
            harness_version: None,
            scores: vec![external("a", value)],
        };
        server.admin.post_scores(&run, &scores).await.unwrap();
    }
    let all = ScoreQuery {
        all_revisions: true,
        ..ScoreQuery::default()
    };
    assert_eq!(
        listed(&server.admin, &ScoreQuery::default(), 1).await,
        [(5, "a".to_owned(), 0.2)]
    );
    assert_eq!(
        listed(&server.admin, &all, 1).await,
        [(5, "a".to_owned(), 0.1), (5, "a".to_owned(), 0.2)]
    );
}
