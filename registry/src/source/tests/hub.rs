//! A Hub's branches and repositories.

use std::collections::HashMap;

use fineline_api::SourceLocation;
use fineline_api::source::HubCheckpoints;
use fineline_format::Digest;

use super::super::{Kind, Origin, Reach};
use super::server::{Answer, Asked, Server};
use super::*;

const WEIGHTS: &str = "weights";

fn open(server: &Server, repositories: &[&str], checkpoints: Option<HubCheckpoints>) -> Origin {
    let location = location(Some(server.url()), repositories, checkpoints);
    let mut origin = Origin::open(&location, Some(SECRET), &allowing(&[&server.address])).unwrap();
    let Kind::Hub(hub) = &mut origin.0 else {
        unreachable!("opened as a Hub");
    };
    hub.hurry();
    origin
}

fn location(endpoint: Option<String>, repositories: &[&str], checkpoints: Option<HubCheckpoints>) -> SourceLocation {
    SourceLocation::Hub {
        endpoint,
        repositories: repositories.iter().map(|&text| text.to_owned()).collect(),
        checkpoints,
    }
}

fn commit(of: &str) -> String {
    of.repeat(40)
}

fn refs(branches: &[(&str, &str)], tags: &[(&str, &str)]) -> String {
    let list = |refs: &[(&str, &str)]| {
        let refs = refs
            .iter()
            .map(|(name, of)| serde_json::json!({"name": name, "targetCommit": commit(of)}));
        refs.collect::<Vec<_>>()
    };
    serde_json::json!({"branches": list(branches), "tags": list(tags), "converts": []}).to_string()
}

fn tree() -> String {
    let sha256 = Digest::of(WEIGHTS.as_bytes()).to_hex();
    serde_json::json!([
        {"type": "directory", "oid": "d", "size": 0, "path": "a b"},
        {"type": "file", "oid": "0c", "size": 2, "path": "a b/c#d.json"},
        {"type": "file", "oid": "0a", "size": 130, "path": "model.safetensors",
         "lfs": {"oid": sha256, "size": WEIGHTS.len(), "pointerSize": 130}},
    ])
    .to_string()
}

fn missing() -> Answer {
    Answer::new(404, "{}")
        .with("x-error-code", "RepoNotFound")
        .with("x-error-message", "Repository not found")
}

fn targets(server: &Server) -> Vec<String> {
    let mut targets: Vec<_> = server.asked().into_iter().map(|asked| asked.target).collect();
    targets.sort();
    targets
}

/// Tree pages and files as the real one has them.
fn repository(asked: &Asked) -> Answer {
    let (a, c) = (commit("a"), commit("c"));
    match asked.target.as_str() {
        "/api/models/lab/m/refs" => Answer::new(
            200,
            refs(
                &[("main", "a"), ("exp/x", "c"), ("gone", "d")],
                &[("v1", "a"), ("main", "f")],
            ),
        ),
        "/api/models/lab/m/revision/exp%2Fx" => Answer::new(200, format!(r#"{{"id":"lab/m","sha":"{c}"}}"#)),
        "/api/models/lab/n/revision/main" => Answer::new(200, format!(r#"{{"id":"lab/n","sha":"{a}"}}"#)),
        target if target == format!("/api/models/lab/m/tree/{a}?recursive=true") => {
            let next = format!(
                "<http://{}{target}&cursor=x%3D>; rel=\"next\"",
                asked.header("host").unwrap()
            );
            Answer::new(200, tree()).with("link", next)
        }
        target if target.ends_with("&cursor=x%3D") => {
            Answer::new(200, r#"[{"type":"file","oid":"0b","size":1,"path":"README.md"}]"#)
        }
        target if target.starts_with("/api/") && target.contains(&format!("/tree/{c}")) => Answer::new(200, "[]"),
        target if target == format!("/api/models/lab/n/tree/{a}?recursive=true") => Answer::new(200, tree()),
        target if target == format!("/lab/m/resolve/{a}/a%20b/c%23d.json") => {
            Answer::part(asked, b"{}").with("x-repo-commit", a)
        }
        target if target == format!("/lab/m/resolve/{a}/model.safetensors") => {
            let sha256 = Digest::of(WEIGHTS.as_bytes()).to_hex();
            Answer::part(asked, WEIGHTS.as_bytes()).with("x-linked-etag", format!("\"{sha256}\""))
        }
        _ => missing(),
    }
}

#[tokio::test]
async fn every_branch_is_a_checkpoint_and_one_that_fails_leaves_the_others() {
    let server = Server::start(repository).await;
    let places = by_at(open(&server, &["lab/m"], None).list_all(&HashMap::new()).await.unwrap());

    let names: Vec<_> = places
        .values()
        .map(|place| (place.at.as_str(), place.name.as_str()))
        .collect();
    let expected = [
        ("lab/m@exp/x", "exp/x"),
        ("lab/m@gone", "gone"),
        ("lab/m@main", "main"),
        ("lab/m@v1", "v1"),
    ];
    assert_eq!(names, expected);
    let main = &places["lab/m@main"];
    assert_eq!(main.version, commit("a"));
    assert_eq!(paths(main), ["README.md", "a b/c#d.json", "model.safetensors"]);
    let weights = object(main, "model.safetensors");
    assert_eq!(
        (weights.size_bytes, weights.sha256),
        (7, Some(Digest::of(WEIGHTS.as_bytes())))
    );
    let gone = &places["lab/m@gone"];
    assert!(
        gone.problem
            .as_ref()
            .unwrap()
            .to_string()
            .contains("Repository not found"),
        "{gone:?}"
    );
    assert_eq!((gone.version.as_str(), &gone.objects), ("", &None));
    let authorization = format!("Bearer {SECRET}");
    assert!(
        server
            .asked()
            .iter()
            .all(|asked| asked.header("authorization") == Some(&authorization))
    );
}

#[tokio::test]
async fn a_version_that_is_known_is_not_listed_again() {
    let server = Server::start(repository).await;
    let known = [
        ("lab/m@main", "a"),
        ("lab/m@v1", "a"),
        ("lab/m@gone", "d"),
        ("lab/m@exp/x", "b"),
    ];
    let known = known.map(|(at, of)| (at.to_owned(), commit(of))).into();
    let places = by_at(open(&server, &["lab/m"], None).list_all(&known).await.unwrap());

    assert!(places["lab/m@main"].objects.is_none() && places["lab/m@gone"].problem.is_none());
    assert_eq!(places["lab/m@exp/x"].objects, Some(Vec::new()));
    let expected = [
        "/api/models/lab/m/refs".to_owned(),
        format!("/api/models/lab/m/tree/{}?recursive=true", commit("c")),
    ];
    assert_eq!(targets(&server), expected);
}

#[tokio::test]
async fn what_is_not_wanted_is_told_and_not_listed() {
    let server = Server::start(repository).await;
    let origin = open(&server, &["lab/m"], None);
    let names = |names: &[&str]| names.iter().map(|name| *name == "exp/x").collect();
    let known = HashMap::new();
    let wanted = Wanted {
        known: &known,
        names: &names,
    };
    let places = by_at(origin.list(wanted).await.unwrap());
    assert_eq!(places.len(), 4);
    assert!(places["lab/m@main"].objects.is_none() && places["lab/m@main"].version == commit("a"));
    assert!(
        places["lab/m@gone"].problem.is_none(),
        "nobody asks for it: {:?}",
        places["lab/m@gone"]
    );
    assert_eq!(places["lab/m@exp/x"].objects, Some(Vec::new()));
    assert_eq!(targets(&server).len(), 2, "{:?}", targets(&server));

    // Where what is wanted is refused for all, the server is what is wrong.
    let no_tree = Server::start(|asked| match asked.target.as_str() {
        "/api/models/lab/m/refs" => Answer::new(200, refs(&[("main", "a"), ("exp/x", "c")], &[])),
        _ => Answer::new(451, ""),
    })
    .await;
    assert!(is_refused(open(&no_tree, &["lab/m"], None).list(wanted).await));
}

#[tokio::test]
async fn revisions_of_one_repository_are_called_by_their_own_names() {
    let server = Server::start(|asked| {
        let sha = commit(if asked.target.contains("step1") { "a" } else { "b" });
        match asked.target.as_str() {
            target if target.contains("/revision/") => Answer::new(200, format!(r#"{{"sha":"{sha}"}}"#)),
            _ => Answer::new(200, "[]"),
        }
    })
    .await;
    let repositories = ["lab/m@step1", "lab/m@step2", "lab/n@v1"];
    let places = open(&server, &repositories, None)
        .list_all(&HashMap::new())
        .await
        .unwrap();
    let shown: Vec<_> = places
        .iter()
        .map(|place| (place.name.as_str(), place.at.as_str()))
        .collect();
    assert_eq!(
        shown,
        [("step1", "lab/m@step1"), ("step2", "lab/m@step2"), ("n", "lab/n@v1")]
    );
}

#[tokio::test]
async fn each_of_several_repositories_is_a_checkpoint_at_a_commit() {
    let server = Server::start(repository).await;
    let origin = open(&server, &["lab/m@exp/x", "lab/n", "lab/none"], None);
    let places = origin.list_all(&HashMap::new()).await.unwrap();

    let shown: Vec<_> = places
        .iter()
        .map(|place| (place.name.as_str(), place.at.as_str()))
        .collect();
    assert_eq!(shown, [("m", "lab/m@exp/x"), ("n", "lab/n"), ("none", "lab/none")]);
    assert_eq!((&places[0].version, &places[1].version), (&commit("c"), &commit("a")));
    assert!(
        places[2]
            .problem
            .as_ref()
            .is_some_and(|problem| problem.to_string().contains("lab/none")),
        "{places:?}"
    );

    let place = origin.place("lab/n").await.unwrap();
    assert_eq!(paths(&place), ["a b/c#d.json", "model.safetensors"]);
    assert!(matches!(
        origin.place("lab/none@v1").await,
        Err(SourceError::NotFound(_))
    ));
    assert!(is_refused(origin.place("none").await));
}

#[tokio::test]
async fn files_are_read_at_the_commit_that_was_listed() {
    let server = Server::start(repository).await;
    let origin = open(&server, &["lab/m"], None);
    let places = by_at(origin.list_all(&HashMap::new()).await.unwrap());
    let main = &places["lab/m@main"];

    assert_eq!(origin.read(object(main, "a b/c#d.json"), 0..2).await.unwrap(), "{}");
    let weights = object(main, "model.safetensors");
    assert_eq!(origin.read(weights, 2..5).await.unwrap(), "igh");
    assert_eq!(origin.read(weights, 7..7).await.unwrap(), "");
    assert!(is_changed(origin.read(weights, 2..8).await));
    let mut other = weights.clone();
    other.sha256 = Some(Digest::of(b"other"));
    assert!(is_changed(origin.read(&other, 2..5).await));
}

#[tokio::test]
async fn a_server_that_wants_to_be_left_alone_is_asked_no_more() {
    let limited = |asked: &Asked| match asked.target.as_str() {
        "/api/models/lab/m/refs" => {
            let names: Vec<_> = (0..40).map(|i| format!("step-{i}")).collect();
            let branches: Vec<_> = names.iter().map(|name| (name.as_str(), "a")).collect();
            Answer::new(200, refs(&branches, &[]))
        }
        _ => Answer::new(429, "").with("retry-after", "100"),
    };
    let server = Server::start(limited).await;
    let origin = open(&server, &["lab/m"], None);
    let error = origin.list_all(&HashMap::new()).await.unwrap_err();
    assert!(
        matches!(
            error,
            SourceError::Unavailable {
                retry_after: Some(_),
                ..
            }
        ),
        "{error:?}"
    );
    assert!(server.asked().len() <= 5, "{}", server.asked().len());

    // What is known is there all the same.
    let known = [("lab/m@step-39".to_owned(), commit("a"))].into();
    let places = by_at(origin.list_all(&known).await.unwrap());
    assert!(places["lab/m@step-39"].problem.is_none());
    assert!(
        places["lab/m@step-0"]
            .problem
            .as_ref()
            .is_some_and(|problem| problem.to_string().contains("429"))
    );
}

#[tokio::test]
async fn what_no_file_can_be_called_is_a_problem_of_its_checkpoint() {
    let server = Server::start(|asked| match asked.target.as_str() {
        "/api/models/lab/m/refs" => Answer::new(200, refs(&[("main", "a")], &[])),
        _ => Answer::new(
            200,
            r#"[{"type":"file","oid":"0","size":1,"path":"../../x"},{"type":"file","oid":"0","path":"y"},{"type":"file","path":"z"}]"#,
        ),
    })
    .await;
    let places = open(&server, &["lab/m"], None).list_all(&HashMap::new()).await.unwrap();
    assert_eq!(paths(&places[0]), ["y"]);
    assert!(
        places[0]
            .problem
            .as_ref()
            .is_some_and(|problem| problem.to_string().contains("`../../x`"))
    );
}

#[tokio::test]
async fn a_list_goes_on_at_its_own_server_only() {
    let server = Server::start(|asked| match asked.target.as_str() {
        "/api/models/lab/m/refs" => Answer::new(200, refs(&[("main", "a")], &[])),
        _ => Answer::new(200, "[]").with("link", "<http://127.0.0.1:1/next>; rel=\"next\""),
    })
    .await;
    assert!(is_refused(
        open(&server, &["lab/m"], None).list_all(&HashMap::new()).await
    ));
}

#[tokio::test]
async fn a_repository_without_branches_to_list_is_an_error_of_the_source() {
    let server = Server::start(|_| missing()).await;
    let listed = open(&server, &["lab/m"], None).list_all(&HashMap::new()).await;
    assert!(matches!(listed, Err(SourceError::NotFound(_))), "{listed:?}");
    let no_hub = Server::start(|_| Answer::new(200, "<html>inside</html>")).await;
    let error = open(&no_hub, &["lab/m"], None)
        .list_all(&HashMap::new())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, SourceError::Refused(text) if !text.contains("inside")),
        "{error:?}"
    );
}

#[test]
fn repositories_that_can_be_none_are_refused_by_name() {
    let open = |repositories: &[&str], checkpoints| {
        let location = location(None, repositories, checkpoints);
        Origin::open(&location, Some(SECRET), &Reach::default())
    };
    for bad in ["", "m", "a/b/c", "lab/m@", "lab/..", "lab/m@../x", "lab/m?x"] {
        let error = open(&[bad], None).unwrap_err().to_string();
        assert!(error.contains(&format!("`{bad}`")), "{error}");
    }
    assert!(is_refused(open(&[], None)));
    assert!(is_refused(open(&["lab/m", "lab/m"], None)));
    assert!(is_refused(open(&["lab/m@v1"], None)));
    assert!(is_refused(open(&["lab/m", "lab/n"], Some(HubCheckpoints::Branches))));
    let origin = open(&["lab/m@v1"], Some(HubCheckpoints::Repositories)).unwrap();
    assert!(!format!("{origin:?}").contains(SECRET));
}
