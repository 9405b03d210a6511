//! Ranges, cut answers and servers that want to be left alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Url;

use super::super::http::{Http, Listed};
use super::server::{Answer, Asked, Server};
use super::*;

const LISTED: Listed<'_> = Listed {
    size_bytes: 10_000,
    commit: "c0ffee",
    etag: "0123456789abcdef",
};

fn file() -> Vec<u8> {
    (0..10_000u32).map(|i| (i * 7 % 251) as u8).collect()
}

async fn read(server: &Server, range: std::ops::Range<u64>) -> Result<Bytes, SourceError> {
    let mut http = Http::new(&server.url(), Some(SECRET), &allowing(&[&server.address]).allowed).unwrap();
    http.hurry();
    let url = Url::parse(&format!("{}/file?key=hush", server.url())).unwrap();
    let result = http.read(&url, range, LISTED).await;
    if let Err(error) = &result {
        assert!(!error.to_string().contains(SECRET), "{error}");
    }
    assert!(!format!("{http:?}").contains(SECRET));
    result
}

/// Answers by the number of the request.
async fn numbered(answer: impl Fn(usize, &Asked) -> Answer + Send + Sync + 'static) -> Server {
    let n_asked = AtomicUsize::new(0);
    Server::start(move |asked| answer(n_asked.fetch_add(1, Ordering::Relaxed), asked)).await
}

#[tokio::test]
async fn a_range_is_exactly_its_bytes() {
    let server = Server::start(|asked| Answer::part(asked, &file())).await;
    for range in [0..1, 17..4_000, 9_999..10_000, 0..10_000] {
        let expected = &file()[range.start as usize..range.end as usize];
        assert_eq!(read(&server, range).await.unwrap(), expected);
    }
    let asked = server.asked();
    assert!(
        asked
            .iter()
            .all(|asked| asked.header("accept-encoding") == Some("identity"))
    );
    assert_eq!(asked[1].header("range"), Some("bytes=17-3999"));
}

#[tokio::test]
async fn a_cut_answer_goes_on_where_it_was_cut() {
    let server = Server::start(|asked| Answer::part(asked, &file()).with("etag", "\"1\"").cut_after(500)).await;
    assert_eq!(read(&server, 0..2_000).await.unwrap(), &file()[..2_000]);
    let begins: Vec<_> = server.asked().iter().map(|asked| asked.range().0).collect();
    assert_eq!(begins, [0, 500, 1_000, 1_500]);
}

#[tokio::test]
async fn many_cuts_are_survived_as_long_as_each_answer_brings_something() {
    let server = Server::start(|asked| {
        let (begin, end) = asked.range();
        Answer::part(asked, &file()).cut_after(300.min(end - begin))
    })
    .await;
    assert_eq!(read(&server, 0..10_000).await.unwrap(), file());
    assert_eq!(server.asked().len(), 34);
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_no_mixture() {
    let server = numbered(|n, asked| {
        Answer::part(asked, &file())
            .with("etag", format!("\"{n}\""))
            .cut_after(500)
    })
    .await;
    assert!(is_changed(read(&server, 0..2_000).await));
    // A weak one says nothing of single bytes.
    let server = numbered(|n, asked| match n {
        0 => Answer::part(asked, &file()).with("etag", "W/\"0\"").cut_after(500),
        _ => Answer::part(asked, &file()).with("etag", "W/\"1\""),
    })
    .await;
    assert_eq!(read(&server, 0..2_000).await.unwrap(), &file()[..2_000]);
}

#[tokio::test]
async fn what_fails_in_passing_is_tried_again_and_not_for_ever() {
    let server = numbered(|n, asked| match n {
        0 => Answer::new(503, "later"),
        1 => Answer::new(429, "").with("retry-after", "0"),
        2 => Answer::new(429, "").with("ratelimit", "\"api\";r=0;t=0"),
        3 => Answer::part(asked, &file()).cut_after(0),
        _ => Answer::part(asked, &file()),
    })
    .await;
    assert_eq!(read(&server, 5..9).await.unwrap(), &file()[5..9]);

    let server = Server::start(|asked| Answer::part(asked, &file()).cut_after(0)).await;
    let error = read(&server, 5..9).await.unwrap_err();
    assert!(
        matches!(error, SourceError::Unavailable { retry_after: None, .. }),
        "{error:?}"
    );
    assert_eq!(server.asked().len(), 6);
}

#[tokio::test]
async fn a_server_that_wants_a_long_rest_gets_it() {
    let server = Server::start(|_| Answer::new(429, "").with("ratelimit", "\"api\";r=0;t=275")).await;
    let error = read(&server, 0..1).await.unwrap_err();
    let rest = Some(Duration::from_secs(275));
    assert!(
        matches!(error, SourceError::Unavailable { retry_after, .. } if retry_after == rest),
        "{error:?}"
    );
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_whole_answer_is_taken_only_where_the_whole_is_wanted() {
    let server = Server::start(|_| Answer::new(200, file())).await;
    assert_eq!(read(&server, 0..10_000).await.unwrap(), file());
    assert!(is_refused(read(&server, 0..9_999).await));
    assert!(is_refused(read(&server, 1..10_000).await));

    // Begins anew after the cut, and what came before is not kept.
    let server = numbered(|n, _| {
        if n == 0 {
            Answer::new(200, file()).cut_after(700)
        } else {
            Answer::new(200, file())
        }
    });
    let server = server.await;
    assert_eq!(read(&server, 0..10_000).await.unwrap(), file());

    // It makes no progress by beginning anew.
    let server = Server::start(|_| Answer::new(200, file()).cut_after(700)).await;
    assert!(matches!(
        read(&server, 0..10_000).await,
        Err(SourceError::Unavailable { .. })
    ));

    let server = Server::start(|_| Answer::new(200, &file()[1..])).await;
    assert!(is_changed(read(&server, 0..10_000).await));
}

#[tokio::test]
async fn an_answer_that_is_not_the_range_is_none() {
    let answer = |range: &'static str| Server::start(move |_| Answer::new(206, "1234").with("content-range", range));
    for wrong in [
        "bytes 0-3/10000",
        "bytes 4-6/10000",
        "bytes 4-7/9999",
        "bytes 4-8/10000",
    ] {
        assert!(is_changed(read(&answer(wrong).await, 4..8).await), "{wrong}");
    }
    for unsaid in ["bytes 4-7/*", "4-7/10000", "bytes */10000"] {
        let result = read(&answer(unsaid).await, 4..8).await;
        assert!(matches!(result, Err(SourceError::Unavailable { .. })), "{unsaid}");
    }
    assert_eq!(read(&answer("bytes 4-7/10000").await, 4..8).await.unwrap(), "1234");
    // More than it says.
    let long = Server::start(|_| Answer::new(206, "12345").with("content-range", "bytes 4-7/10000")).await;
    assert!(is_changed(read(&long, 4..8).await));
}

#[tokio::test]
async fn what_the_hub_says_beside_a_file_is_held_against_the_list() {
    let with = |name: &'static str, value: &'static str| {
        Server::start(move |asked: &Asked| match asked.target.as_str() {
            "/blob" => Answer::part(asked, &file()),
            _ => Answer::redirect("/blob").with(name, value),
        })
    };
    for (name, value) in [
        ("x-repo-commit", "c0ffee"),
        ("x-linked-etag", "\"0123456789abcdef\""),
        ("x-linked-size", "10000"),
        // Of another kind of digest: nothing to compare.
        ("x-linked-etag", "\"01234567\""),
    ] {
        assert_eq!(
            read(&with(name, value).await, 0..4).await.unwrap(),
            &file()[..4],
            "{name}"
        );
    }
    for (name, value) in [
        ("x-repo-commit", "decaf0"),
        ("x-linked-etag", "W/\"fedcba9876543210\""),
        ("x-linked-size", "10001"),
    ] {
        assert!(is_changed(read(&with(name, value).await, 0..4).await), "{name}");
    }
}

#[tokio::test]
async fn what_a_server_refuses_is_told_by_what_helps() {
    let status =
        |status| Server::start(move |_| Answer::new(status, "<secret page>").with("x-error-message", "no such thing"));
    let error = |result: Result<Bytes, SourceError>| result.unwrap_err();
    let missing = error(read(&status(404).await, 0..1).await);
    assert!(
        matches!(&missing, SourceError::NotFound(text) if text.contains("no such thing")),
        "{missing:?}"
    );
    let denied = error(read(&status(403).await, 0..1).await);
    assert!(
        matches!(&denied, SourceError::Denied(text) if !text.contains("secret page")),
        "{denied:?}"
    );
    assert!(is_changed(read(&status(416).await, 0..1).await));
    assert!(is_refused(read(&status(400).await, 0..1).await));
    assert!(matches!(
        error(read(&status(501).await, 0..1).await),
        SourceError::Unavailable { .. }
    ));
    let hidden = Server::start(|_| Answer::new(401, "").with("x-error-code", "RepoNotFound")).await;
    assert!(matches!(error(read(&hidden, 0..1).await), SourceError::NotFound(_)));
}
