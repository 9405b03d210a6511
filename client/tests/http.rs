//! What a client does with answers that are late, broken, or no.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use fineline_client::{Client, ClientOptions, Error};

const QUICK: ClientOptions = ClientOptions {
    connect_timeout: Duration::from_secs(5),
    stall_timeout: Duration::from_millis(300),
    retry_for: Duration::from_secs(3),
    direct: fineline_client::Direct::Auto,
};

/// A server that gives the n-th call the n-th answer, and the last one to all further calls.
async fn scripted(answers: Vec<Response<&'static str>>) -> (Client, Arc<AtomicUsize>) {
    let n_calls = Arc::new(AtomicUsize::new(0));
    let (counter, answers) = (Arc::clone(&n_calls), Arc::new(answers));
    let app = Router::new().fallback(async move || {
        let n = counter.fetch_add(1, Ordering::SeqCst);
        let answer = answers.get(n).unwrap_or_else(|| answers.last().unwrap());
        (answer.status(), answer.headers().clone(), *answer.body()).into_response()
    });
    (Client::with_options(&serve(app).await, None, QUICK).unwrap(), n_calls)
}

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

fn answer(status: StatusCode, headers: &[(&'static str, &'static str)], body: &'static str) -> Response<&'static str> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().extend(
        headers
            .iter()
            .map(|(name, value)| (name.parse::<axum::http::HeaderName>().unwrap(), value.parse().unwrap())),
    );
    answer
}

const EMPTY_PAGE: &str = r#"{"items":[],"unknown":1}"#;

#[tokio::test]
async fn a_busy_server_is_asked_again_when_it_says() {
    let busy = answer(StatusCode::SERVICE_UNAVAILABLE, &[("retry-after", "1")], "");
    let (client, n_calls) = scripted(vec![busy, answer(StatusCode::OK, &[], EMPTY_PAGE)]).await;
    let started = Instant::now();
    client.list_runs(None, None, None).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(n_calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_twice() {
    let (client, n_calls) = scripted(vec![answer(StatusCode::BAD_GATEWAY, &[], "<html>")]).await;
    let error = client
        .create_run(&"lab/a".parse().unwrap(), &Default::default())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    assert_eq!(n_calls.load(Ordering::SeqCst), 1);
    client.list_runs(None, None, None).await.unwrap_err();
    assert!(
        n_calls.load(Ordering::SeqCst) > 3,
        "reading is tried again until the time is over"
    );
}

#[tokio::test]
async fn an_error_keeps_what_the_server_said_and_no_query() {
    let body =
        r#"{"error":{"code":"not_found","message":"no run `lab/a`","request_id":"r7","details":{"hint":"create it"}}}"#;
    let (client, n_calls) = scripted(vec![answer(StatusCode::NOT_FOUND, &[], body)]).await;
    let pattern = "lab/secret*".parse().unwrap();
    let error = client.list_runs(Some(&pattern), None, None).await.unwrap_err();
    let refusal = error.refusal().unwrap();
    assert!(matches!(error, Error::NotFound(_)), "{error:?}");
    assert_eq!(
        (refusal.request_id.as_str(), error.hint().as_deref()),
        ("r7", Some("create it"))
    );
    assert!(refusal.url.ends_with("/api/v1/runs"), "{}", refusal.url);
    assert_eq!(n_calls.load(Ordering::SeqCst), 1, "a no is a no");
}

#[tokio::test]
async fn what_is_no_registry_is_told() {
    let moved = answer(
        StatusCode::MOVED_PERMANENTLY,
        &[("location", "https://other/?token=x")],
        "",
    );
    for wrong in [answer(StatusCode::OK, &[], "<html>"), moved] {
        let (client, _) = scripted(vec![wrong]).await;
        let error = client.list_runs(None, None, None).await.unwrap_err();
        assert!(
            matches!(error, Error::Protocol { .. }) && !error.to_string().contains("token"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn token_and_lease_go_where_they_belong() {
    let seen = Arc::new(std::sync::Mutex::new(HeaderMap::new()));
    let keep = Arc::clone(&seen);
    let app = Router::new().fallback(async move |headers: HeaderMap| {
        *keep.lock().unwrap() = headers;
        EMPTY_PAGE
    });
    let client = Client::new(&serve(app).await, Some("fl_x")).unwrap();
    client.list_runs(None, None, None).await.unwrap();
    assert_eq!(seen.lock().unwrap()["authorization"], "Bearer fl_x");
    assert!(!seen.lock().unwrap().contains_key("fineline-lease"));
    client
        .with_lease("lease-1")
        .unwrap()
        .list_runs(None, None, None)
        .await
        .unwrap();
    assert_eq!(seen.lock().unwrap()["fineline-lease"], "lease-1");
}

#[tokio::test]
async fn a_long_answer_that_moves_is_waited_for_and_one_that_stands_still_is_not() {
    // Given a body that takes twice the limit in small steps, and one that stops half-way
    let slow = |n: usize| {
        let parts = futures::stream::unfold(0, move |at| async move {
            if at == n {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            let part = if at == 5 {
                "]}"
            } else if at == 0 {
                "{\"items\":["
            } else {
                " "
            };
            (at < 6).then_some((Ok::<_, std::io::Error>(part), at + 1))
        });
        axum::body::Body::from_stream(parts)
    };
    let whole = Router::new().fallback(async move || slow(usize::MAX));
    let client = Client::with_options(&serve(whole).await, None, QUICK).unwrap();
    client.list_runs(None, None, None).await.unwrap();
    let half = Router::new().fallback(async move || slow(3));
    let options = ClientOptions {
        retry_for: Duration::ZERO,
        ..QUICK
    };
    let client = Client::with_options(&serve(half).await, None, options).unwrap();
    let error = client.list_runs(None, None, None).await.unwrap_err();
    assert!(matches!(error, Error::Stalled { .. }), "{error:?}");
}
