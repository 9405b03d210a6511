//! Creating and listing runs.

use fineline_api::{RunPattern, Scope};
use fineline_client::{Client, Error, all_pages};
use harness::serve;

async fn listed(client: &Client, pattern: Option<&str>) -> Vec<String> {
    let pattern: Option<RunPattern> = pattern.map(|pattern| pattern.parse().unwrap());
    // Pages of one, so that every cursor is used.
    let page = async |cursor: Option<String>| client.list_runs(pattern.as_ref(), cursor.as_deref(), Some(1)).await;
    let runs = all_pages(page).await.unwrap();
    runs.into_iter().map(|run| run.run.to_string()).collect()
}

#[tokio::test]
async fn a_list_has_what_the_pattern_matches_of_what_the_token_reads() {
    let server = serve().await;
    for name in [
        "lab/amber-7b",
        "lab/amber-13b",
        "lab/olmo",
        "lab-2/amber",
        "other/amber",
    ] {
        server.run(name).await;
    }
    let reader = server.client(&[Scope::Read], "lab/amber*").await;
    assert_eq!(listed(&server.admin, None).await.len(), 5);
    assert_eq!(
        listed(&server.admin, Some("lab/*")).await,
        ["lab/amber-13b", "lab/amber-7b", "lab/olmo"]
    );
    assert_eq!(listed(&server.admin, Some("lab/olmo")).await, ["lab/olmo"]);
    assert_eq!(listed(&reader, None).await, ["lab/amber-13b", "lab/amber-7b"]);
    assert_eq!(listed(&reader, Some("lab/amber-1*")).await, ["lab/amber-13b"]);
    assert_eq!(listed(&reader, Some("other/*")).await, [""; 0]);
}

#[tokio::test]
async fn a_name_that_is_taken_is_a_conflict_with_a_hint() {
    let server = serve().await;
    let run = server.run("lab/run").await;
    let error = server.admin.create_run(&run, &Default::default()).await.unwrap_err();
    assert!(matches!(error, Error::Conflict(_)), "{error:?}");
    assert!(error.hint().unwrap().contains("choose another name"), "{error:?}");
}
