//! What is refused of a source, in words that say what to do.

use fineline_api::{CreateSource, Scope, SourceLocation};
use harness::serve;

use super::{folder_source, serve_root};

fn hub(endpoint: &str) -> SourceLocation {
    SourceLocation::Hub {
        endpoint: Some(endpoint.to_owned()),
        repositories: vec!["lab/a".to_owned()],
        checkpoints: None,
    }
}

fn bucket(endpoint: &str) -> SourceLocation {
    SourceLocation::S3 {
        bucket: "b".to_owned(),
        prefix: String::new(),
        endpoint: Some(endpoint.to_owned()),
        region: None,
    }
}

#[tokio::test]
async fn a_place_that_may_not_be_reached_is_refused_with_the_option_that_allows_it() {
    let (server, root) = serve_root().await;
    let run = server.run("lab/run").await;
    let base = folder_source("s", &run, root.path());
    let cases = [
        (hub("http://169.254.169.254"), "--source-allow"),
        (hub("http://127.0.0.1:1"), "--source-allow"),
        (hub("http://localhost:1"), "--source-allow"),
        (hub("http://2130706433"), "--source-allow"),
        (hub("http://[::ffff:10.0.0.1]"), "--source-allow"),
        (bucket("http://169.254.169.254"), "--source-allow"),
        (hub("ftp://example.org"), "http"),
        (
            SourceLocation::Folder {
                path: "/etc".to_owned(),
            },
            "--source-root",
        ),
        (
            SourceLocation::Folder {
                path: root.path().join("../..").to_str().unwrap().to_owned(),
            },
            "without `..`",
        ),
    ];
    for (location, word) in cases {
        let new = CreateSource {
            location,
            ..base.clone()
        };
        let error = server.admin.preview_source(&new).await.unwrap_err();
        let told = format!("{error} {:?}", error.hint());
        assert!(told.contains(word), "{:?}: {told}", new.location);
        // What a name resolves to is known only when it is reached.
        if matches!(new.location, SourceLocation::Folder { .. }) {
            assert!(server.admin.create_source(&new).await.is_err(), "{:?}", new.location);
        }
    }
}

#[tokio::test]
async fn what_breaks_a_bound_is_named() {
    let (server, root) = serve_root().await;
    let run = server.run("lab/run").await;
    let base = folder_source("s", &run, root.path());
    let text = |text: &str| Some(text.to_owned());
    let cases = [
        (
            CreateSource {
                name: "a b".to_owned(),
                ..base.clone()
            },
            "`a b`",
        ),
        (
            CreateSource {
                interval_s: Some(1),
                ..base.clone()
            },
            "interval of 1 s",
        ),
        (
            CreateSource {
                marker: text("../x"),
                ..base.clone()
            },
            "marker",
        ),
        (
            CreateSource {
                secret_env: text("AWS_SECRET_ACCESS_KEY"),
                ..base.clone()
            },
            "FINELINE_SOURCE_SECRET",
        ),
        (
            CreateSource {
                secret_env: text("FINELINE_SOURCE_SECRET_NONE_SUCH"),
                ..base.clone()
            },
            "FINELINE_SOURCE_SECRET_NONE_SUCH",
        ),
        (
            CreateSource {
                webhook_secret: text("short"),
                ..base.clone()
            },
            "16 characters",
        ),
    ];
    for (new, word) in cases {
        let told = server.admin.create_source(&new).await.unwrap_err().to_string();
        assert!(told.contains(word), "{told}");
    }
    server.admin.create_source(&base).await.unwrap();
    let told = server.admin.create_source(&base).await.unwrap_err().to_string();
    assert!(told.contains("there is a source `s`"), "{told}");
}

#[tokio::test]
async fn only_an_administrator_of_all_runs_has_sources() {
    let server = serve().await;
    server.run("lab/run").await;
    for (scopes, pattern) in [(&[Scope::Write][..], "*"), (&[Scope::Admin], "lab/*")] {
        let client = server.client(scopes, pattern).await;
        assert!(client.list_sources().await.is_err(), "{scopes:?} {pattern}");
    }
}
