//! A checkpoint's page, by every reference: what it says is what the API says.

use fineline_api::Reference;
use fineline_client::{PushOptions, push};
use harness::{checkpoint, serve};
use reqwest::StatusCode;

use super::browser::Browser;

#[tokio::test]
async fn a_checkpoint_shows_its_files_tensors_digests_and_tags_whatever_it_is_called() {
    let server = serve().await;
    let run = server.run("lab/a").await;
    let dir = checkpoint(server.dir.path(), "one", 9000, 1);
    push(&server.admin, &run, 10, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let step = Reference::Step(10);
    server.admin.set_tag(&run, "best/arc", &step).await.unwrap();
    let shown = server.admin.get_checkpoint(&run, &step).await.unwrap();
    let files = server.admin.list_files(&run, &step, false).await.unwrap();
    let tensors = server.admin.list_tensors(&run, &step).await.unwrap();

    let mut browser = Browser::logged_in(&server.server.url, &server.server.admin_token).await;
    let digest = shown.digest.unwrap().to_string();
    for reference in ["10", "step-10", "latest", "best%2Farc", digest.as_str()] {
        let page = browser.get(&format!("/runs/lab/a/checkpoints/{reference}")).await;
        assert_eq!(page.status, StatusCode::OK, "{reference}");
        let digests = [shown.digest, shown.weights_digest, shown.model_digest];
        let said = digests.iter().flatten().map(ToString::to_string);
        let said = said.chain(
            files
                .iter()
                .flat_map(|file| [file.path.clone(), file.digest.to_string()]),
        );
        let said = said.chain(
            tensors
                .iter()
                .flat_map(|tensor| [tensor.name.clone(), tensor.digest.to_string()]),
        );
        for text in said.chain(["best/arc".to_owned(), "9,000".to_owned()]) {
            assert!(
                page.body.contains(&text),
                "{reference} does not say {text}: {}",
                page.body
            );
        }
    }
    for reference in ["11", "nope", "a%20b", "sha256:12"] {
        let page = browser.get(&format!("/runs/lab/a/checkpoints/{reference}")).await;
        assert_eq!(page.status, StatusCode::NOT_FOUND, "{reference}");
    }
}

#[tokio::test]
async fn a_replaced_revision_has_a_page_by_its_digest_that_says_so() {
    let server = serve().await;
    let run = server.run("lab/a").await;
    let mut digests = Vec::new();
    for seed in [1, 2] {
        let dir = checkpoint(server.dir.path(), &seed.to_string(), 9000, seed);
        let options = PushOptions {
            replace: true,
            ..PushOptions::default()
        };
        digests.push(
            push(&server.admin, &run, 10, &dir, &options, |_| {})
                .await
                .unwrap()
                .digest,
        );
    }
    let mut browser = Browser::logged_in(&server.server.url, &server.server.admin_token).await;
    let old = browser.get(&format!("/runs/lab/a/checkpoints/{}", digests[0])).await;
    assert!(old.body.contains(">replaced<"), "{}", old.body);
    assert!(
        old.body.contains(&format!("fineline pull lab/a@{}", digests[0])),
        "{}",
        old.body
    );
    let new = browser.get("/runs/lab/a/checkpoints/10").await;
    assert!(
        new.body.contains(&format!("this revision replaced {}", digests[0])),
        "{}",
        new.body
    );
}
