//! A run's page: its numbers are the API's, its link holds the view, and it shows what the visitor may read.

use fineline_api::score::ExternalScore;
use fineline_api::{PostScores, Reference, RunName, Scope};
use fineline_client::{PushOptions, ScoreQuery, push};
use harness::{TestServer, checkpoint, serve};
use reqwest::StatusCode;

use super::browser::{Answer, Browser};

/// A run with two steps and scores of two harnesses: `=task` of one, and `arc` of both.
async fn measured(server: &TestServer, name: &str) -> RunName {
    let run = server.run(name).await;
    for step in [10, 20] {
        let dir = checkpoint(server.dir.path(), &step.to_string(), 50, step as u32);
        push(&server.admin, &run, step, &dir, &PushOptions::default(), |_| {})
            .await
            .unwrap();
        for (harness, tasks) in [("lm-eval", ["arc", "=task"].as_slice()), ("other", &["arc"])] {
            let scores = PostScores {
                reference: Reference::Step(step),
                harness: harness.to_owned(),
                harness_version: None,
                scores: tasks.iter().map(|task| score(task, 0.1 + step as f64 / 70.0)).collect(),
            };
            server.admin.post_scores(&run, &scores).await.unwrap();
        }
    }
    run
}

fn score(task: &str, value: f64) -> ExternalScore {
    ExternalScore {
        task: task.to_owned(),
        metric: "acc".to_owned(),
        filter: "none".to_owned(),
        value,
        stderr: Some(0.05),
        n: 10,
        limit: None,
        n_shot: 0,
        higher_is_better: Some(true),
        dtype: None,
    }
}

async fn admin(server: &TestServer) -> Browser {
    Browser::logged_in(&server.server.url, &server.server.admin_token).await
}

/// The numbers of the table, whole.
fn numbers(page: &Answer) -> Vec<f64> {
    let cells = page.body.split("<data value=\"").skip(1);
    cells
        .map(|cell| cell.split('"').next().unwrap().parse().unwrap())
        .collect()
}

#[tokio::test]
async fn table_curves_and_csv_are_the_apis_numbers() {
    let server = serve().await;
    let run = measured(&server, "lab/a").await;
    let page = admin(&server).await.get("/runs/lab/a").await;

    let served = server
        .admin
        .list_scores(&run, &ScoreQuery::default(), None, None)
        .await
        .unwrap();
    let mut served: Vec<f64> = served.items.iter().map(|score| score.value).collect();
    let mut shown = numbers(&page);
    served.sort_by(f64::total_cmp);
    shown.sort_by(f64::total_cmp);
    assert_eq!((shown.len(), &shown), (6, &served), "{}", page.body);
    assert_eq!(page.body.matches("<circle").count(), 6, "each number has its point");
    assert!(
        page.body.contains("<title>step 20: 0.386 ± 0.050</title>"),
        "{}",
        page.body
    );

    let csv = admin(&server)
        .await
        .get("/runs/lab/a/scores.csv?task=arc&x_scale=log")
        .await;
    let by_api = reqwest::Client::new()
        .get(format!(
            "{}/api/v1/runs/lab/a/scores?format=csv&task=arc",
            server.server.url
        ))
        .bearer_auth(&server.server.admin_token);
    assert_eq!(csv.body, by_api.send().await.unwrap().text().await.unwrap());
    assert_eq!(csv.body.lines().count(), 5);
    assert!(
        csv.header("content-disposition").starts_with("attachment"),
        "{:?}",
        csv.headers
    );
}

#[tokio::test]
async fn a_link_holds_the_view_and_what_is_wrong_in_it_is_named() {
    let server = serve().await;
    measured(&server, "lab/a").await;
    let mut browser = admin(&server).await;

    let one = browser.get("/runs/lab/a?task=%3Dtask&from=20&stderr=off").await;
    assert_eq!(numbers(&one).len(), 1);
    assert!(!one.body.contains("fill-opacity"), "no band: {}", one.body);
    // Each further choice keeps those that were made.
    let links: Vec<String> = one
        .attributes("href")
        .iter()
        .map(|link| link.replace("&amp;", "&"))
        .collect();
    for kept in [
        "/runs/lab/a?task=%3Dtask&from=20&x_scale=log&stderr=off",
        "/runs/lab/a?task=%3Dtask&task=arc&from=20&stderr=off",
        "/runs/lab/a?from=20&stderr=off",
        "/runs/lab/a/scores.csv?task=%3Dtask&from=20&stderr=off",
    ] {
        assert!(links.iter().any(|link| link == kept), "{kept} is not among {links:?}");
    }
    let log = browser
        .get("/runs/lab/a?x=tokens&x_scale=log&y_scale=log&panels=metric")
        .await;
    assert_eq!((log.status, numbers(&log).len()), (StatusCode::OK, 6));

    for (query, named) in [
        ("colour=red", "unknown parameter <code>colour</code>"),
        ("x=time", "takes <code>step</code> or <code>tokens</code>"),
    ] {
        for page in ["/runs/lab/a", "/runs/lab/a/scores.csv"] {
            let refused = browser.get(&format!("{page}?{query}")).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{page}?{query}");
            assert!(refused.body.contains(named), "{}", refused.body);
        }
    }
    for page in ["/", "/evaluations", "/runs/lab/a/checkpoints/10"] {
        let refused = browser.get(&format!("{page}?colour=red")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{page}");
        assert!(
            refused.body.contains("unknown field <code>colour</code>"),
            "{}",
            refused.body
        );
    }
}

#[tokio::test]
async fn what_the_token_may_not_read_is_unknown_on_every_page() {
    let server = serve().await;
    measured(&server, "lab/a").await;
    let token = server.token(&[Scope::Read], "other/*").await;
    let mut browser = Browser::logged_in(&server.server.url, &token).await;
    for page in ["", "/scores.csv", "/checkpoints/10", "/checkpoints/latest"] {
        let foreign = browser.get(&format!("/runs/lab/a{page}")).await;
        let unknown = browser.get(&format!("/runs/lab/b{page}")).await;
        assert_eq!(
            (foreign.status, unknown.status),
            (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND),
            "{page}"
        );
        assert_eq!(foreign.body.replace("lab/a", "lab/b"), unknown.body, "{page}");
    }
    let foreign = browser.get("/evaluations?run=lab/a").await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
    assert!(!browser.get("/?pattern=lab/*").await.body.contains("lab/a<"));
}

#[tokio::test]
async fn a_run_without_steps_and_one_without_scores_say_what_to_do() {
    let server = serve().await;
    server.run("lab/new").await;
    let mut browser = admin(&server).await;
    let new = browser.get("/runs/lab/new").await;
    assert!(new.body.contains("fineline push lab/new STEP FOLDER"), "{}", new.body);

    let run = server.run("lab/bare").await;
    let dir = checkpoint(server.dir.path(), "bare", 50, 1);
    push(&server.admin, &run, 1, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let bare = browser.get("/runs/lab/bare").await;
    assert!(
        bare.body.contains("fineline suite apply suite.yaml --run lab/bare"),
        "{}",
        bare.body
    );
    let nothing = browser.get("/evaluations").await;
    assert!(nothing.body.contains("Nothing has been evaluated"), "{}", nothing.body);
}

#[tokio::test]
async fn a_long_list_of_runs_goes_on_behind_a_link() {
    let server = serve().await;
    for i in 0..101 {
        server.run(&format!("lab/run-{i:03}")).await;
    }
    let mut browser = admin(&server).await;
    let first = browser.get("/?pattern=lab/*").await;
    assert!(
        first.body.contains("lab/run-099<") && !first.body.contains("lab/run-100<"),
        "{}",
        first.body
    );
    let next = "/?pattern=lab%2F%2A&amp;after=lab%2Frun-099";
    assert!(
        first.attributes("href").iter().any(|link| link == next),
        "{}",
        first.body
    );
    let second = browser.get(&next.replace("&amp;", "&")).await;
    assert!(
        second.body.contains("lab/run-100<") && !second.body.contains("lab/run-099<"),
        "{}",
        second.body
    );
}
