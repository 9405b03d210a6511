//! No form is taken that this browser was not given by us. Every form of every page is here, by the router's own table:
//! one that is missing fails the test.

use std::collections::BTreeSet;

use harness::{TestServer, serve};
use reqwest::StatusCode;
use reqwest::header::SET_COOKIE;

use super::browser::Browser;

/// Where each form is sent to, the page that shows it to who is logged in, and what it holds.
const FORMS: &[(&str, &str, &[(&str, &str)])] = &[
    ("/login", "/login", &[("token", "ADMIN"), ("next", "/")]),
    ("/logout", "/", &[]),
];

/// Pages that between them show every form.
const PAGES: &[&str] = &["/", "/login", "/runs/lab/a", "/runs/lab/unknown"];

/// What a form could have changed.
async fn state(server: &TestServer, browser: &mut Browser) -> String {
    let tokens = server.admin.list_tokens().await.unwrap();
    let runs = server.admin.list_runs(None, None, None).await.unwrap();
    let seen = browser.get("/").await;
    assert_eq!(seen.status, StatusCode::OK, "still logged in");
    format!("{tokens:?} {runs:?} {}", seen.body)
}

#[tokio::test]
async fn every_form_is_refused_unless_this_browser_was_given_it() {
    let tested: BTreeSet<_> = FORMS.iter().map(|form| form.0).collect();
    let routed = fineline_registry::form_paths().into_iter().collect();
    assert_eq!(tested, routed, "the table and the router have the same forms");
    let server = serve().await;
    server.run("lab/a").await;
    let (url, admin) = (&server.server.url, &server.server.admin_token);
    let others = Browser::logged_in(url, admin).await.csrf("/").await;
    for (path, page, fields) in FORMS {
        let mut browser = Browser::logged_in(url, admin).await;
        let own = browser.csrf(page).await;
        let fields = fields
            .iter()
            .map(|&(name, value)| (name, if value == "ADMIN" { admin } else { value }));
        let fields: Vec<_> = fields.collect();
        let before = state(&server, &mut browser).await;
        let wrong = own.replace(['0', '1', '2', '3'], "4");
        let forged: [(Option<&str>, &[(&str, &str)]); 8] = [
            (None, &[]),
            (Some(""), &[]),
            (Some(&wrong), &[]),
            (Some(&others), &[]),
            (Some(&own), &[("origin", "https://evil.example")]),
            (Some(&own), &[("origin", "null")]),
            (Some(&own), &[("sec-fetch-site", "cross-site")]),
            (Some(&own), &[("origin", url), ("sec-fetch-site", "same-site")]),
        ];
        for (csrf, headers) in forged {
            let mut evil = browser.clone();
            evil.headers = headers.iter().map(|&(name, value)| (name, value.to_owned())).collect();
            let csrf = csrf.map(|csrf| ("csrf", csrf));
            let sent: Vec<_> = csrf.into_iter().chain(fields.iter().copied()).collect();
            let answer = evil.post(path, &sent).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} with {csrf:?} {headers:?}");
            assert!(
                !answer.headers.contains_key(SET_COOKIE),
                "{path} with {csrf:?} {headers:?}"
            );
            assert_eq!(
                state(&server, &mut browser).await,
                before,
                "{path} with {csrf:?} {headers:?}"
            );
        }
        // The same form from our own page does what it says.
        browser.headers = vec![("origin", url.clone()), ("sec-fetch-site", "same-origin".to_owned())];
        let sent: Vec<_> = [("csrf", own.as_str())].into_iter().chain(fields).collect();
        assert_eq!(browser.post(path, &sent).await.status, StatusCode::SEE_OTHER, "{path}");
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
async fn every_form_of_every_page_is_in_the_table_and_bound_to_the_browser() {
    let server = serve().await;
    server.run("lab/a").await;
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
