//! No form is taken that this browser was not given by us. Every form of every page is here, by the router's own table:
//! one that is missing fails the test.

use std::collections::BTreeSet;

use fineline_client::EvaluationQuery;
use harness::{TestServer, serve};
use reqwest::StatusCode;
use reqwest::header::SET_COOKIE;

use super::browser::Browser;
use super::evaluation::failed_and_queued;

/// A form: where it is sent to, the page that shows it to who is logged in, and what it holds.
struct Form {
    path: &'static str,
    page: &'static str,
    fields: &'static [(&'static str, &'static str)],
}

/// `ADMIN` stands for the administrator's token, `FAILED` and `QUEUED` for evaluations.
const FORMS: &[Form] = &[
    Form {
        path: "/login",
        page: "/login",
        fields: &[("token", "ADMIN"), ("next", "/")],
    },
    Form {
        path: "/logout",
        page: "/",
        fields: &[],
    },
    Form {
        path: "/evaluations/retry",
        page: "/evaluations",
        fields: &[("id", "FAILED")],
    },
    Form {
        path: "/evaluations/cancel",
        page: "/evaluations",
        fields: &[("id", "QUEUED")],
    },
];

/// Pages that between them show every form.
const PAGES: &[&str] = &[
    "/",
    "/login",
    "/runs/lab/a",
    "/runs/lab/a/checkpoints/1",
    "/runs/lab/unknown",
    "/evaluations",
    "/evaluations?state=failed",
    "/docs",
];

/// What a form could have changed.
async fn state(server: &TestServer, browser: &mut Browser) -> String {
    let mut tokens = server.admin.list_tokens().await.unwrap();
    // Looking is a use.
    tokens.iter_mut().for_each(|token| token.last_used_at = None);
    let runs = server.admin.list_runs(None, None, None).await.unwrap();
    let evaluations = server
        .admin
        .list_evaluations(&EvaluationQuery::default(), None, None)
        .await
        .unwrap();
    let seen = browser.get("/").await;
    assert_eq!(seen.status, StatusCode::OK, "still logged in");
    format!("{tokens:?} {runs:?} {evaluations:?} {}", seen.body)
}

/// A form that another page sends: with which value against forgery, and with which header.
type Forged<'a> = (Option<&'a str>, Option<(&'static str, &'static str)>);

/// Everything that another page could try: it knows its own browser's value (`others`), and in the worst case ours.
fn forged<'a>(own: &'a str, wrong: &'a str, others: &'a str) -> [Forged<'a>; 8] {
    [
        (None, None),
        (Some(""), None),
        (Some(wrong), None),
        (Some(others), None),
        (Some(own), Some(("origin", "https://evil.example"))),
        (Some(own), Some(("origin", "null"))),
        (Some(own), Some(("sec-fetch-site", "cross-site"))),
        (Some(own), Some(("sec-fetch-site", "same-site"))),
    ]
}

#[tokio::test]
async fn every_form_is_refused_unless_this_browser_was_given_it() {
    let tested: BTreeSet<_> = FORMS.iter().map(|form| form.path).collect();
    let routed = fineline_registry::form_paths().into_iter().collect();
    assert_eq!(tested, routed, "the table and the router have the same forms");
    let server = serve().await;
    server.run("lab/a").await;
    let [failed, queued] = failed_and_queued(&server).await;
    let (url, admin) = (&server.server.url, server.server.admin_token.as_str());
    let meanings = [
        ("ADMIN", admin),
        ("FAILED", failed.as_str()),
        ("QUEUED", queued.as_str()),
    ];
    let others = Browser::logged_in(url, admin).await.csrf("/").await;
    for form in FORMS {
        let mut browser = Browser::logged_in(url, admin).await;
        let own = browser.csrf(form.page).await;
        let wrong = own.replace(['0', '1', '2', '3'], "4");
        let before = state(&server, &mut browser).await;
        for (csrf, header) in forged(&own, &wrong, &others) {
            let mut evil = browser.clone();
            evil.headers = header
                .map(|(name, value)| (name, value.to_owned()))
                .into_iter()
                .collect();
            let answer = evil.post(form.path, &form.filled(csrf, &meanings)).await;
            let which = format!("{} with {csrf:?} {header:?}", form.path);
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{which}");
            assert!(!answer.headers.contains_key(SET_COOKIE), "{which}");
            assert_eq!(state(&server, &mut browser).await, before, "{which}");
        }
        // The same form from our own page does what it says.
        browser.headers = vec![("origin", url.clone()), ("sec-fetch-site", "same-origin".to_owned())];
        let answer = browser.post(form.path, &form.filled(Some(&own), &meanings)).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", form.path);
    }
}

impl Form {
    /// Its fields, each with what its value means.
    fn filled<'a>(&self, csrf: Option<&'a str>, meanings: &[(&str, &'a str)]) -> Vec<(&'static str, &'a str)> {
        let meant = |value: &'static str| {
            let found = meanings.iter().find(|(word, _)| *word == value);
            found.map_or(value, |(_, meant)| *meant)
        };
        let fields = self.fields.iter().map(|&(name, value)| (name, meant(value)));
        csrf.map(|csrf| ("csrf", csrf)).into_iter().chain(fields).collect()
    }
}

#[tokio::test]
async fn nobody_is_logged_in_by_a_page_of_somebody_else() {
    let server = serve().await;
    let (url, admin) = (&server.server.url, &server.server.admin_token);
    let theirs = Browser::new(url).csrf("/login").await;
    let mut victim = Browser::new(url);
    victim.get("/login").await;
    for mut browser in [victim, Browser::new(url)] {
        let answer = browser.post("/login", &[("csrf", &theirs), ("token", admin)]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert_eq!(browser.get("/").await.status, StatusCode::SEE_OTHER);
    }
}

#[tokio::test]
async fn a_body_that_is_no_form_of_ours_is_refused() {
    let server = serve().await;
    let mut browser = Browser::logged_in(&server.server.url, &server.server.admin_token).await;
    let csrf = browser.csrf("/").await;
    let large = "x".repeat(64 << 10);
    let answer = browser.post("/logout", &[("csrf", &csrf), ("more", &large)]).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    // What another site's page can send without asking: plain text that looks like a form.
    browser.headers = vec![("content-type", "text/plain".to_owned())];
    assert_eq!(
        browser.post("/logout", &[("csrf", &csrf)]).await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_form_of_every_page_is_in_the_table_and_bound_to_the_browser() {
    let server = serve().await;
    server.run("lab/a").await;
    failed_and_queued(&server).await;
    let mut browser = Browser::logged_in(&server.server.url, &server.server.admin_token).await;
    let mut seen = BTreeSet::new();
    for page in PAGES {
        for form in browser.get(page).await.forms() {
            assert_eq!(form.method, "post", "{page}: {form:?}");
            assert_eq!(form.csrf.as_deref().map(str::len), Some(64), "{page}: {form:?}");
            seen.insert(form.action);
        }
    }
    let routed: BTreeSet<_> = fineline_registry::form_paths().into_iter().map(str::to_owned).collect();
    assert_eq!(seen, routed);
}
