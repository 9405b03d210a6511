//! Logging in by pasting a token, what is then seen, and how a login ends.

use fineline_api::Scope::{Evaluate, Read};
use harness::{TestServer, serve, serve_with};
use reqwest::StatusCode;
use reqwest::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};

use super::browser::Browser;

async fn two_runs(server: &TestServer) -> Browser {
    server.run("lab/a").await;
    server.run("other/b").await;
    Browser::new(&server.server.url)
}

#[tokio::test]
async fn who_asks_for_a_page_logs_in_and_gets_that_page() {
    let server = serve().await;
    let mut browser = two_runs(&server).await;
    let token = server.token(&[Read], "lab/*").await;

    let asked = browser.get("/runs/lab/a").await;
    assert_eq!(
        (asked.status, asked.location()),
        (StatusCode::SEE_OTHER, "/login?next=%2Fruns%2Flab%2Fa")
    );
    let form = browser.get(asked.location()).await;
    assert!(
        form.body.contains("name=\"next\" value=\"/runs/lab/a\""),
        "{}",
        form.body
    );
    let entered = browser.log_in(&format!("  {token}\n"), "/runs/lab/a").await;
    assert_eq!(
        (entered.status, entered.location()),
        (StatusCode::SEE_OTHER, "/runs/lab/a")
    );

    let page = browser.get(entered.location()).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("logged in as <b>test</b>"), "{}", page.body);
    assert_eq!(page.header(CACHE_CONTROL), "private, no-store");
    assert!(page.header(CONTENT_SECURITY_POLICY).contains("form-action 'self'"));
    assert!(!page.body.contains("<script") && !page.body.contains(&token));
}

#[tokio::test]
async fn the_cookie_is_a_secret_of_its_own_that_no_script_sees() {
    let server = serve().await;
    let mut browser = Browser::new(&server.server.url);
    browser.get("/login").await;
    let before = browser.cookie_header();
    let entered = browser.log_in(&server.server.admin_token, "/").await;

    let cookie = entered.set_cookie();
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Max-Age=604800");
    assert_ne!(
        pair, before,
        "a secret that was there before the login does not become the login's"
    );
    assert!(
        !cookie.contains(&server.server.admin_token) && !cookie.contains("fl_"),
        "{cookie}"
    );
}

#[tokio::test]
async fn a_token_shows_its_own_runs_and_all_others_as_unknown() {
    let server = serve().await;
    two_runs(&server).await;
    let token = server.token(&[Read], "lab/*").await;
    let mut browser = Browser::logged_in(&server.server.url, &token).await;

    let list = browser.get("/").await.body;
    assert!(list.contains("lab/a") && !list.contains("other/b"), "{list}");
    let foreign = browser.get("/runs/other/b").await;
    let unknown = browser.get("/runs/other/c").await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let without_csrf = |body: &str| body.split("name=\"csrf\"").next().unwrap().to_owned();
    assert_eq!(without_csrf(&foreign.body), without_csrf(&unknown.body));
    assert_eq!(foreign.body.replace("other/b", "other/c"), unknown.body);
}

#[tokio::test]
async fn a_wrong_token_and_one_that_only_evaluates_are_told_so() {
    let server = serve().await;
    let mut browser = Browser::new(&server.server.url);
    for wrong in ["", "fl_wrong", "<b>"] {
        let refused = browser.log_in(wrong, "/").await;
        assert_eq!(
            (refused.status, refused.set_cookie()),
            (StatusCode::UNAUTHORIZED, ""),
            "{wrong}"
        );
        assert!(
            refused.body.contains("the token is unknown, expired or revoked"),
            "{}",
            refused.body
        );
        assert!(
            wrong.is_empty() || !refused.body.contains(&format!("\"{wrong}\"")),
            "{}",
            refused.body
        );
    }
    let worker = server.token(&[Evaluate], "*").await;
    let refused = browser.log_in(&worker, "/").await;
    assert_eq!((refused.status, refused.set_cookie()), (StatusCode::FORBIDDEN, ""));
    assert!(
        refused.body.contains("only evaluates: it reads no pages"),
        "{}",
        refused.body
    );
    assert_eq!(browser.get("/").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_login_ends_by_logging_out_and_with_its_token() {
    let server = serve().await;
    let token = server.token(&[Read], "*").await;
    let mut first = Browser::logged_in(&server.server.url, &token).await;
    let mut second = Browser::logged_in(&server.server.url, &token).await;
    let mut copied = first.clone();

    let csrf = first.csrf("/").await;
    let left = first.post("/logout", &[("csrf", &csrf)]).await;
    assert_eq!((left.status, left.location()), (StatusCode::SEE_OTHER, "/"));
    assert!(left.set_cookie().contains("fineline=; ") && left.set_cookie().contains("Max-Age=0"));
    assert_eq!(first.get("/").await.status, StatusCode::SEE_OTHER);
    assert_eq!(
        copied.get("/").await.status,
        StatusCode::SEE_OTHER,
        "a copy of the cookie"
    );
    assert_eq!(second.get("/").await.status, StatusCode::OK, "another browser");

    let tokens = server.admin.list_tokens().await.unwrap();
    let id = tokens.iter().find(|token| token.name == "test").unwrap().id;
    server.admin.delete_token(id).await.unwrap();
    assert_eq!(second.get("/").await.status, StatusCode::SEE_OTHER, "a revoked token");
}

#[tokio::test]
async fn after_the_login_only_a_path_of_our_own_is_gone_to() {
    let server = serve().await;
    for foreign in [
        "//evil",
        "https://evil",
        "/\\evil",
        "/\t/evil",
        "/\r\nSet-Cookie: a=b",
        "evil",
        "",
    ] {
        let mut browser = Browser::new(&server.server.url);
        let entered = browser.log_in(&server.server.admin_token, foreign).await;
        assert_eq!(
            (entered.status, entered.location()),
            (StatusCode::SEE_OTHER, "/"),
            "{foreign:?}"
        );
    }
}

#[tokio::test]
async fn what_everybody_may_read_needs_no_login() {
    let server = serve_with(|options| options.anonymous_read = true).await;
    let mut browser = two_runs(&server).await;
    for path in ["/", "/runs/lab/a"] {
        let page = browser.get(path).await;
        assert_eq!((page.status, page.set_cookie()), (StatusCode::OK, ""));
        assert!(page.body.contains(">Log in</a>"), "{}", page.body);
        assert!(page.header(CONTENT_SECURITY_POLICY).contains("form-action 'none'"));
    }
    let token = server.token(&[Read], "lab/*").await;
    browser.log_in(&token, "/").await;
    assert_eq!(browser.get("/runs/other/b").await.status, StatusCode::NOT_FOUND);
}
