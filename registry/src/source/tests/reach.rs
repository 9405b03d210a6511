//! What the guard lets through, over real sockets.

use fineline_api::SourceLocation;

use super::super::{Origin, Reach};
use super::server::{Answer, Asked, Server};
use super::*;

/// A Hub's repository with one branch and one file.
async fn hub() -> Server {
    Server::start(|asked: &Asked| match asked.target.as_str() {
        "/api/models/lab/a/refs" => {
            let commit = "a".repeat(40);
            let refs = format!(r#"{{"branches":[{{"name":"step-1","targetCommit":"{commit}"}}],"tags":[]}}"#);
            Answer::new(200, refs)
        }
        _ => Answer::new(200, r#"[{"type":"file","path":"x","oid":"b","size":1}]"#),
    })
    .await
}

async fn list(endpoint: &str, reach: &Reach) -> Result<Vec<Place>, SourceError> {
    let location = SourceLocation::Hub {
        endpoint: Some(endpoint.to_owned()),
        repositories: vec!["lab/a".to_owned()],
        checkpoints: None,
    };
    Origin::open(&location, Some(SECRET), reach)?
        .list_all(&Default::default())
        .await
}

fn refused_host(result: Result<Vec<Place>, SourceError>) -> String {
    let Err(SourceError::Refused(message)) = result else {
        panic!("{result:?}");
    };
    let (_, host) = message.split_once("--source-allow ").unwrap();
    host.split_once(',').unwrap().0.to_owned()
}

#[tokio::test]
async fn what_is_not_public_is_reached_only_when_it_is_allowed_by_name() {
    let server = hub().await;
    let local = format!("http://localhost:{}", server.port());
    let none = Reach::default();

    assert_eq!(refused_host(list(&server.url(), &none).await), "127.0.0.1");
    assert_eq!(refused_host(list(&local, &none).await), "localhost");
    assert_eq!(
        refused_host(list("http://169.254.169.254", &none).await),
        "169.254.169.254"
    );
    // Neither the other name of the host nor another of its ports.
    assert_eq!(refused_host(list(&local, &allowing(&["127.0.0.1"])).await), "localhost");
    assert_eq!(
        refused_host(list(&local, &allowing(&["localhost:1"])).await),
        "localhost"
    );
    assert!(server.asked().is_empty());

    for (url, allowed) in [
        (server.url(), server.address.clone()),
        (server.url(), "127.0.0.1".to_owned()),
        (local, format!("localhost:{}", server.port())),
    ] {
        let places = list(&url, &allowing(&[allowed])).await.unwrap();
        assert_eq!(places[0].at, "lab/a@step-1");
    }
}

#[tokio::test]
async fn a_redirect_leads_no_further_than_its_address_may() {
    let inner = hub().await;
    let port = inner.port().to_owned();
    for (location, host) in [
        (format!("http://localhost:{port}/"), "localhost"),
        (format!("http://127.0.0.1:{port}/"), "127.0.0.1"),
        (format!("http://2130706433:{port}/"), "127.0.0.1"),
        ("http://169.254.169.254/latest/meta-data/".to_owned(), "169.254.169.254"),
        ("//[::1]/".to_owned(), "[::1]"),
    ] {
        let outer = Server::start(move |_| Answer::redirect(location.clone())).await;
        assert_eq!(
            refused_host(list(&outer.url(), &allowing(&[&outer.address])).await),
            host
        );
    }
    let outer = Server::start(|_| Answer::redirect("file:///etc/passwd")).await;
    assert!(is_refused(list(&outer.url(), &allowing(&[&outer.address])).await));
    assert!(inner.asked().is_empty());

    let inner_url = inner.url();
    let outer = Server::start(move |asked| Answer::redirect(format!("{inner_url}{}", asked.target))).await;
    let places = list(&outer.url(), &allowing(&[&outer.address, &inner.address])).await;
    assert_eq!(places.unwrap()[0].at, "lab/a@step-1");
    // The secret is for the endpoint, not for where it sends on to.
    let authorization = format!("Bearer {SECRET}");
    assert!(
        outer
            .asked()
            .iter()
            .all(|asked| asked.header("authorization") == Some(&authorization))
    );
    assert!(
        inner
            .asked()
            .iter()
            .all(|asked| asked.header("authorization").is_none())
    );
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let server = Server::start(|asked| Answer::redirect(asked.target.clone())).await;
    assert!(is_refused(list(&server.url(), &allowing(&[&server.address])).await));
    assert_eq!(server.asked().len(), 6);
}

#[test]
fn an_endpoint_with_a_secret_in_it_is_refused_without_repeating_it() {
    let hub = |endpoint: &str| SourceLocation::Hub {
        endpoint: Some(endpoint.to_owned()),
        repositories: vec!["lab/a".to_owned()],
        checkpoints: None,
    };
    let s3 = |endpoint: &str| SourceLocation::S3 {
        bucket: "b".to_owned(),
        prefix: String::new(),
        endpoint: Some(endpoint.to_owned()),
        region: None,
    };
    for endpoint in [
        "https://me:hush@lab",
        "https://hush@lab",
        "https://lab/?hush",
        "file:///hush",
        "hush",
    ] {
        for location in [hub(endpoint), s3(endpoint)] {
            let error = Origin::open(&location, None, &Reach::default()).unwrap_err();
            assert!(!error.to_string().contains(SECRET), "{error}");
            assert!(matches!(error, SourceError::Refused(_)), "{error:?}");
        }
    }
}

#[tokio::test]
async fn no_proxy_of_the_environment_stands_between() {
    let proxy = Server::start(|_| Answer::new(200, "inside")).await;
    let test = "source::tests::reach::what_is_not_public_is_reached_only_when_it_is_allowed_by_name";
    let mut again = tokio::process::Command::new(std::env::current_exe().unwrap());
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ] {
        again.env(name, proxy.url());
    }
    for name in ["no_proxy", "NO_PROXY", "REQUEST_METHOD"] {
        again.env_remove(name);
    }
    let ended = again.args(["--exact", test]).output().await.unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
    assert!(proxy.asked().is_empty());
}
