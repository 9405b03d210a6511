//! The pages of evaluations: what waits and why, what runs and how far, what failed; and the forms that steer them.

use fineline_api::Scope::{Evaluate, Read, Write};
use fineline_api::{Evaluation, FailEvaluation, Progress};
use fineline_client::{Client, EvaluationQuery, PushOptions, apply_suite, push};
use harness::{TestServer, checkpoint, claim, serve, suite};
use reqwest::StatusCode;

use super::browser::{Answer, Browser};

/// A server with one queued evaluation, of `lab/a` at step 1.
async fn queued() -> (TestServer, Evaluation) {
    let server = serve().await;
    server.run("lab/a").await;
    let evaluation = queue(&server, 1).await;
    (server, evaluation)
}

/// Pushes a step of `lab/a` that a suite waits for; gives its evaluation.
async fn queue(server: &TestServer, step: u64) -> Evaluation {
    let file = suite(server.dir.path());
    apply_suite(&server.admin, &file, &"lab/*".parse().unwrap(), false)
        .await
        .unwrap();
    let dir = checkpoint(server.dir.path(), &step.to_string(), 50, 2 * step as u32);
    let run = "lab/a".parse().unwrap();
    push(&server.admin, &run, step, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let query = EvaluationQuery::default();
    let list = server.admin.list_evaluations(&query, None, None).await.unwrap();
    let mut of_step = list.items.into_iter().filter(|evaluation| evaluation.step == step);
    of_step.next().expect("the push queued it")
}

/// A worker that took what is queued.
async fn taken(server: &TestServer) -> Client {
    let worker = server.client(&[Evaluate], "*").await;
    let lease = worker.claim_evaluation(&claim()).await.unwrap().expect("it is queued");
    worker.with_lease(&lease.token).unwrap()
}

async fn fail(worker: &Client, evaluation: &Evaluation) {
    let failure = FailEvaluation {
        reason: "the weights hold `NaN` <b>".to_owned(),
        retryable: false,
    };
    worker.fail_evaluation(evaluation.id, &failure).await.unwrap();
}

/// Evaluations of `lab/a`: one that failed, and one that is queued.
pub(super) async fn failed_and_queued(server: &TestServer) -> [String; 2] {
    let failed = queue(server, 1).await;
    fail(&taken(server).await, &failed).await;
    [failed, queue(server, 2).await].map(|evaluation| evaluation.id.to_string())
}

async fn admin(server: &TestServer) -> Browser {
    Browser::logged_in(&server.server.url, &server.server.admin_token).await
}

/// Sends the form of the page that has this action.
async fn send(browser: &mut Browser, page: &Answer, action: &str, evaluation: &Evaluation) -> Answer {
    let form = page.forms().into_iter().find(|form| form.action == action);
    let csrf = form
        .unwrap_or_else(|| panic!("{action} is not on {}", page.body))
        .csrf
        .unwrap();
    let id = evaluation.id.to_string();
    browser.post(action, &[("csrf", &csrf), ("id", &id)]).await
}

#[tokio::test]
async fn what_waits_says_why_and_what_runs_how_far_it_is() {
    let (server, evaluation) = queued().await;
    let mut browser = admin(&server).await;
    let one = format!("/evaluations/{}", evaluation.id);
    for page in [
        "/evaluations",
        "/evaluations?run=lab/a",
        "/evaluations?state=queued",
        &one,
    ] {
        let waits = browser.get(page).await;
        assert_eq!(waits.header("refresh"), "5", "{page}");
        assert!(
            waits.body.contains("no worker has asked for work in the last 60 s"),
            "{page}: {}",
            waits.body
        );
    }
    assert_eq!(browser.get("/evaluations?refresh=off").await.header("refresh"), "");

    let worker = taken(&server).await;
    let progress = Progress {
        task: Some("tiny".to_owned()),
        n_done: 3,
        n_total: 6,
        tokens_per_s: Some(1234.5),
        eta_s: Some(75),
        ahead: false,
    };
    let ahead = Progress {
        ahead: true,
        ..Progress::default()
    };
    worker.heartbeat_evaluation(evaluation.id, &ahead, 0).await.unwrap();
    let page = browser.get(&one).await;
    assert!(
        page.body.contains("ends another evaluation first") && !page.body.contains("<progress"),
        "{}",
        page.body
    );
    worker.heartbeat_evaluation(evaluation.id, &progress, 0).await.unwrap();
    for page in ["/evaluations", &one] {
        let runs = browser.get(page).await;
        assert!(
            runs.body.contains("value=\"3\" max=\"6\"") && runs.body.contains("at tiny"),
            "{page}: {}",
            runs.body
        );
    }
}

#[tokio::test]
async fn what_failed_says_why_and_is_tried_again_by_its_form() {
    let (server, evaluation) = queued().await;
    fail(&taken(&server).await, &evaluation).await;
    let mut browser = admin(&server).await;
    let failed = browser.get("/evaluations").await;
    assert!(
        failed.body.contains("the weights hold <code>NaN</code> &lt;b&gt;"),
        "{}",
        failed.body
    );
    assert_eq!(failed.header("refresh"), "", "nothing is under way");

    let sent = send(&mut browser, &failed, "/evaluations/retry", &evaluation).await;
    let one = format!("/evaluations/{}", evaluation.id);
    assert_eq!((sent.status, sent.location()), (StatusCode::SEE_OTHER, one.as_str()));
    let state = server.admin.get_evaluation(evaluation.id).await.unwrap().state;
    assert_eq!(state.as_str(), "queued");

    let page = browser.get(&one).await;
    let sent = send(&mut browser, &page, "/evaluations/cancel", &evaluation).await;
    assert_eq!(sent.status, StatusCode::SEE_OTHER);
    let state = server.admin.get_evaluation(evaluation.id).await.unwrap().state;
    assert_eq!(state.as_str(), "cancelled");
}

#[tokio::test]
async fn the_forms_ask_for_the_rights_that_the_api_asks_for() {
    let (server, evaluation) = queued().await;
    fail(&taken(&server).await, &evaluation).await;
    let id = evaluation.id.to_string();
    for (scopes, pattern, status) in [
        (vec![Read], "*", StatusCode::FORBIDDEN),
        (vec![Read, Write], "other/*", StatusCode::NOT_FOUND),
    ] {
        let token = server.token(&scopes, pattern).await;
        let mut browser = Browser::logged_in(&server.server.url, &token).await;
        let page = browser.get("/evaluations").await;
        assert!(!page.body.contains("/evaluations/retry"), "{pattern}: {}", page.body);
        let csrf = browser.csrf("/").await;
        let sent = browser
            .post("/evaluations/retry", &[("csrf", &csrf), ("id", &id)])
            .await;
        assert_eq!(sent.status, status, "{pattern}");
    }
    let state = server.admin.get_evaluation(evaluation.id).await.unwrap().state;
    assert_eq!(state.as_str(), "failed");
}

#[tokio::test]
async fn a_foreign_evaluation_is_an_unknown_one() {
    let (server, evaluation) = queued().await;
    let token = server.token(&[Read, Write], "other/*").await;
    let mut browser = Browser::logged_in(&server.server.url, &token).await;
    let unknown = "01900000-0000-7000-8000-000000000000";
    let foreign = browser.get(&format!("/evaluations/{}", evaluation.id)).await;
    let nothing = browser.get(&format!("/evaluations/{unknown}")).await;
    assert_eq!(
        (foreign.status, nothing.status),
        (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND)
    );
    assert_eq!(foreign.body.replace(&evaluation.id.to_string(), unknown), nothing.body);
    let list = browser.get("/evaluations").await;
    assert!(!list.body.contains("lab/a"), "{}", list.body);
    assert_eq!(
        browser.get("/evaluations/nonsense").await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn what_waits_is_listed_by_age_and_what_ended_the_newest_first() {
    let (server, first) = queued().await;
    let second = queue(&server, 2).await;
    let mut browser = admin(&server).await;
    let steps = |page: &Answer| {
        let links = page.attributes("href");
        let steps = links
            .iter()
            .filter_map(|link| link.strip_prefix("/runs/lab/a/checkpoints/"));
        steps.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(steps(&browser.get("/evaluations?state=queued").await), ["1", "2"]);
    for evaluation in [first, second] {
        server.admin.cancel_evaluation(evaluation.id).await.unwrap();
    }
    assert_eq!(steps(&browser.get("/evaluations?state=cancelled").await), ["2", "1"]);
}
