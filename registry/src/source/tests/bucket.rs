//! Buckets of what speaks S3's protocol.

use std::collections::HashMap;

use fineline_api::SourceLocation;

use super::super::{Origin, Reach};
use super::server::{Answer, Asked, Server};
use super::*;

const KEYS: &str = "GK1:hush";

fn location(endpoint: &str, prefix: &str) -> SourceLocation {
    SourceLocation::S3 {
        bucket: "ckpt".to_owned(),
        prefix: prefix.to_owned(),
        endpoint: Some(endpoint.to_owned()),
        region: None,
    }
}

fn open(server: &Server, secret: Option<&str>) -> Origin {
    Origin::open(
        &location(&server.url(), "lab/a/"),
        secret,
        &allowing(&[&server.address]),
    )
    .unwrap()
}

fn listing(objects: &[(&str, usize)]) -> Answer {
    let one = |(key, size): &(&str, usize)| {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-08-20T12:00:00.000Z</LastModified>\
             <ETag>&quot;e-{size}&quot;</ETag><Size>{size}</Size></Contents>"
        )
    };
    let objects: String = objects.iter().map(one).collect();
    Answer::new(
        200,
        format!("<ListBucketResult><IsTruncated>false</IsTruncated>{objects}</ListBucketResult>"),
    )
}

fn failure(status: u16, code: &str) -> Answer {
    let body = format!("<Error><Code>{code}</Code><Message>m</Message><StringToSign>hush</StringToSign></Error>");
    Answer::new(status, body)
}

/// `lab/a/` and `tok/`, and one file's bytes under the ETag `"e-7"`.
fn bucket(asked: &Asked) -> Answer {
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    match path {
        "/ckpt" if query.contains("prefix=lab%2Fa%2F") => listing(&[
            ("lab/a/", 0),
            ("lab/a/empty/", 0),
            ("lab/a/iter-500-ckpt.pth", 9),
            ("lab/a/step-1/", 0),
            ("lab/a/step-1/_DONE", 0),
            ("lab/a/step-1/sub/", 0),
            ("lab/a/step-1/sub/w.bin", 7),
            ("lab/a/step-10/w.bin", 7),
        ]),
        "/ckpt" if query.contains("prefix=tok%2F") => listing(&[("tok/tokenizer.json", 5)]),
        "/ckpt" => listing(&[]),
        "/ckpt/lab/a/step-1/sub/w.bin" if asked.header("if-match") == Some("\"e-7\"") => {
            Answer::part(asked, b"weights")
                .with("etag", "\"e-7\"")
                .with("last-modified", "Thu, 20 Aug 2026 12:00:00 GMT")
        }
        "/ckpt/lab/a/step-1/sub/w.bin" => failure(412, "PreconditionFailed"),
        _ => failure(404, "NoSuchKey"),
    }
}

#[tokio::test]
async fn folders_and_files_below_the_prefix_are_checkpoints() {
    let server = Server::start(bucket).await;
    let origin = open(&server, None);
    let places = by_at(origin.list_all(&HashMap::new()).await.unwrap());

    assert_eq!(
        places.keys().collect::<Vec<_>>(),
        ["iter-500-ckpt.pth", "step-1", "step-10"]
    );
    assert_eq!(paths(&places["step-1"]), ["_DONE", "sub/w.bin"]);
    assert_eq!(paths(&places["iter-500-ckpt.pth"]), ["iter-500-ckpt.pth"]);
    let file = object(&places["step-1"], "sub/w.bin");
    assert_eq!(
        (file.key.as_str(), file.version.as_str()),
        ("lab/a/step-1/sub/w.bin", "\"e-7\"")
    );
    assert_ne!(places["step-1"].version, places["step-10"].version);

    let known = [("step-1".to_owned(), places["step-1"].version.clone())].into();
    let again = by_at(origin.list_all(&known).await.unwrap());
    assert!(again["step-1"].objects.is_none() && again["step-10"].objects.is_some());

    assert_eq!(paths(&origin.place("tok").await.unwrap()), ["tokenizer.json"]);
    assert!(matches!(origin.place("none").await, Err(SourceError::NotFound(_))));
}

#[tokio::test]
async fn an_object_is_read_as_it_was_listed_or_not_at_all() {
    let server = Server::start(bucket).await;
    let origin = open(&server, Some(KEYS));
    let places = by_at(origin.list_all(&HashMap::new()).await.unwrap());
    let file = object(&places["step-1"], "sub/w.bin");

    assert_eq!(origin.read(file, 2..5).await.unwrap(), "igh");
    let mut other = file.clone();
    other.version = "\"e-8\"".to_owned();
    assert!(is_changed(origin.read(&other, 2..5).await));
    let mut longer = file.clone();
    longer.size_bytes = 8;
    assert!(is_changed(origin.read(&longer, 2..5).await));
    let gone = object(&places["step-10"], "w.bin");
    assert!(matches!(origin.read(gone, 0..1).await, Err(SourceError::NotFound(_))));
}

#[tokio::test]
async fn a_bucket_is_opened_with_the_sources_secret_or_with_none() {
    let server = Server::start(bucket).await;
    let with = open(&server, Some(KEYS));
    with.list_all(&HashMap::new()).await.unwrap();
    let signed = server.asked();
    assert!(
        signed[0]
            .header("authorization")
            .is_some_and(|text| text.contains("Credential=GK1/"))
    );
    assert!(!format!("{with:?} {signed:?}").contains(SECRET));

    open(&server, None).list_all(&HashMap::new()).await.unwrap();
    assert!(server.asked()[signed.len()].header("authorization").is_none());

    for bad in ["hush", ":hush", "hush:"] {
        let opened = Origin::open(&location("http://lab", ""), Some(bad), &Reach::default());
        let error = opened.unwrap_err().to_string();
        assert!(!error.contains(SECRET), "{error}");
    }
}

#[tokio::test]
async fn what_a_bucket_refuses_is_told_by_what_helps() {
    let failing = |status, code: &'static str| Server::start(move |_| failure(status, code));
    let error = async |server: &Server, secret| open(server, secret).list_all(&HashMap::new()).await.unwrap_err();
    let denied = failing(403, "AccessDenied").await;
    for secret in [Some(KEYS), None] {
        let error = error(&denied, secret).await;
        assert!(
            matches!(&error, SourceError::Denied(text) if !text.contains(SECRET)),
            "{error:?}"
        );
    }
    let missing = failing(404, "NoSuchBucket").await;
    assert!(matches!(error(&missing, None).await, SourceError::NotFound(_)));
    let moved = failing(301, "PermanentRedirect").await;
    assert!(matches!(error(&moved, None).await, SourceError::Refused(_)));
    let odd = Server::start(|_| listing(&[("lab/a/x//y", 1)])).await;
    assert!(matches!(error(&odd, None).await, SourceError::Refused(_)));
    let broken = failing(400, "Odd").await;
    let error = error(&broken, None).await;
    assert!(
        matches!(&error, SourceError::Unavailable { message, .. } if message.contains("`Odd`")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_bucket_stands_behind_the_same_guard() {
    let server = Server::start(bucket).await;
    let none = Reach::default();
    assert!(is_refused(Origin::open(&location(&server.url(), ""), None, &none)));
    assert!(is_refused(Origin::open(
        &location("http://0xa9fea9fe", ""),
        None,
        &none
    )));
    // A name is known to lead to this machine when it is resolved.
    let local = format!("http://localhost:{}", server.port());
    let listed = Origin::open(&location(&local, ""), None, &none)
        .unwrap()
        .list_all(&HashMap::new())
        .await;
    let Err(SourceError::Refused(message)) = listed else {
        panic!("{listed:?}");
    };
    assert!(message.contains("--source-allow localhost"), "{message}");
    assert!(server.asked().is_empty());

    // No redirect is followed, wherever it leads.
    let (local, address) = (local.clone(), server.address.clone());
    let outer = Server::start(move |_| Answer::redirect(format!("{local}/ckpt"))).await;
    let reach = allowing(&[&outer.address, &address]);
    let listed = Origin::open(&location(&outer.url(), ""), None, &reach)
        .unwrap()
        .list_all(&HashMap::new())
        .await;
    assert!(is_refused(listed));
    assert!(server.asked().is_empty());
}

#[test]
fn names_that_would_be_more_than_names_in_a_url_are_refused() {
    let open = |bucket: &str, prefix: &str, region: Option<&str>| {
        let location = SourceLocation::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: None,
            region: region.map(str::to_owned),
        };
        Origin::open(&location, None, &Reach::default())
    };
    assert!(open("ckpt", "a/b/", Some("eu-west-1")).is_ok());
    for bucket in ["", "a/b", "..", "a@b", "a?b"] {
        assert!(is_refused(open(bucket, "", None)), "{bucket}");
    }
    for region in ["", "x.evil.org/", "x#", "a.b"] {
        assert!(is_refused(open("ckpt", "", Some(region))), "{region}");
    }
    assert!(is_refused(open("ckpt", "a//b", None)));
}
