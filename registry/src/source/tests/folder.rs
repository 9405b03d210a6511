//! Folders of this machine.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use fineline_api::SourceLocation;
use tempfile::TempDir;

use super::super::{Origin, Reach};
use super::*;

/// `root/run/…` that sources may read and `outside/…` that they may not.
fn folders() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("root/run/step-1/model.bin", "weights"),
        ("root/run/step-1/sub/c.json", "{}"),
        ("root/run/step-1/.cache/x", "hidden"),
        ("root/run/iter-500.pth", "one"),
        ("root/run/.tmp/x", "hidden"),
        ("root/tok/tokenizer.json", "{}"),
        ("outside/secret", "hush"),
    ] {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn open_at(dir: &TempDir, path: &Path) -> Result<Origin, SourceError> {
    let location = SourceLocation::Folder {
        path: path.to_str().unwrap().to_owned(),
    };
    let reach = Reach {
        roots: vec![dir.path().join("root"), dir.path().join("not-there")],
        allowed: Vec::new(),
    };
    Origin::open(&location, None, &reach)
}

fn open(dir: &TempDir) -> Origin {
    open_at(dir, &dir.path().join("root/run")).unwrap()
}

async fn list(dir: &TempDir) -> std::collections::BTreeMap<String, Place> {
    by_at(open(dir).list_all(&HashMap::new()).await.unwrap())
}

#[tokio::test]
async fn folders_and_files_are_checkpoints_and_hidden_ones_are_not() {
    let dir = folders();
    let places = list(&dir).await;
    assert_eq!(places.keys().collect::<Vec<_>>(), ["iter-500.pth", "step-1"]);
    assert_eq!(paths(&places["step-1"]), ["model.bin", "sub/c.json"]);
    assert_eq!(paths(&places["iter-500.pth"]), ["iter-500.pth"]);
    let origin = open(&dir);
    assert_eq!(
        origin.read(object(&places["step-1"], "model.bin"), 2..5).await.unwrap(),
        "igh"
    );

    fs::write(dir.path().join("root/run/step-1/more"), "").unwrap();
    let known = places
        .iter()
        .map(|(at, place)| (at.clone(), place.version.clone()))
        .collect();
    let again = by_at(origin.list_all(&known).await.unwrap());
    assert!(again["iter-500.pth"].objects.is_none());
    assert_eq!(paths(&again["step-1"]), ["model.bin", "more", "sub/c.json"]);

    let tok = dir.path().join("root/tok");
    let place = origin.place(tok.to_str().unwrap()).await.unwrap();
    assert_eq!((place.name.as_str(), paths(&place)), ("tok", vec!["tokenizer.json"]));
}

#[tokio::test]
async fn nothing_outside_of_the_roots_is_read_or_known_to_be_there() {
    let dir = folders();
    let at = |path: &str| dir.path().join(path);
    symlink(at("outside"), at("root/out")).unwrap();
    symlink(at("nowhere"), at("root/dangling")).unwrap();
    for path in [
        "outside",
        "missing",
        "outside/missing",
        "root/out",
        "root/out/missing",
        "root/dangling",
        "roots",
    ] {
        assert!(is_refused(open_at(&dir, &at(path))), "{path}");
    }
    // What leads out by the time that it is read is not read either.
    let later = open_at(&dir, &at("root/later")).unwrap();
    let listed = later.list_all(&HashMap::new()).await;
    assert!(matches!(listed, Err(SourceError::NotFound(_))));
    symlink(at("outside"), at("root/later")).unwrap();
    assert!(is_refused(later.list_all(&HashMap::new()).await));
    assert!(is_refused(open_at(&dir, Path::new("root/run"))));
    assert!(is_refused(open_at(&dir, &at("root/run/../../outside"))));
    assert!(is_refused(open(&dir).place(at("outside").to_str().unwrap()).await));
    let location = SourceLocation::Folder { path: "/".to_owned() };
    assert!(is_refused(Origin::open(&location, None, &Reach::default())));
}

#[tokio::test]
async fn a_link_is_followed_to_what_may_be_read_and_is_a_problem_else() {
    let dir = folders();
    let at = |path: &str| dir.path().join(path);
    symlink(at("root/tok"), at("root/run/step-1/tok")).unwrap();
    symlink(at("root/tok/tokenizer.json"), at("root/run/step-1/tokenizer.json")).unwrap();
    let places = list(&dir).await;
    let step = &places["step-1"];
    assert_eq!(
        paths(step),
        ["model.bin", "sub/c.json", "tok/tokenizer.json", "tokenizer.json"]
    );
    assert_eq!(step.problem, None);
    assert_eq!(
        open(&dir).read(object(step, "tokenizer.json"), 0..2).await.unwrap(),
        "{}"
    );

    for target in ["outside/secret", "outside", "nowhere", "root/run"] {
        symlink(at(target), at("root/run/step-1/bad")).unwrap();
        let problem = list(&dir).await["step-1"].problem.clone().unwrap().to_string();
        assert!(
            problem.contains("`bad`") || problem.contains("`bad/"),
            "{target}: {problem}"
        );
        assert!(
            !problem.contains("outside/") && !problem.contains("nowhere"),
            "{problem}"
        );
        fs::remove_file(at("root/run/step-1/bad")).unwrap();
    }
    assert!(
        std::process::Command::new("mkfifo")
            .arg(at("root/run/step-1/pipe"))
            .status()
            .unwrap()
            .success()
    );
    assert!(
        list(&dir).await["step-1"]
            .problem
            .as_ref()
            .is_some_and(|problem| problem.to_string().contains("`pipe`"))
    );
}

#[tokio::test]
async fn a_file_is_read_as_it_was_listed_or_not_at_all() {
    let dir = folders();
    let path = dir.path().join("root/run/step-1/model.bin");
    let origin = open(&dir);
    let places = list(&dir).await;
    let file = object(&places["step-1"], "model.bin");

    let other = dir.path().join("root/run/other");
    fs::write(&other, "another").unwrap();
    fs::rename(&other, &path).unwrap();
    assert!(is_changed(origin.read(file, 0..1).await));
    fs::remove_file(&path).unwrap();
    assert!(matches!(origin.read(file, 0..1).await, Err(SourceError::NotFound(_))));
    symlink(dir.path().join("outside/secret"), &path).unwrap();
    assert!(is_changed(origin.read(file, 0..1).await));
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    symlink(dir.path().join("outside"), path.parent().unwrap()).unwrap();
    assert!(is_changed(origin.read(file, 0..1).await));
    // A key is a listed path and no way out.
    let mut outside = file.clone();
    outside.key = dir.path().join("outside/secret").to_str().unwrap().to_owned();
    assert!(is_refused(origin.read(&outside, 0..1).await));
    outside.key = dir.path().join("root/../outside/secret").to_str().unwrap().to_owned();
    assert!(origin.read(&outside, 0..1).await.is_err());
}
