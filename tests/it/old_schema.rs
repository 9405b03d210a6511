//! A data folder that an earlier server made is opened by today's: everything that was there is there
//! (tests/fixtures/first-schema).

use std::path::{Path, PathBuf};
use std::process::Command;

use fineline_api::Reference;
use fineline_client::{Client, PullOptions, pull};
use fineline_registry::serve::{ServeOptions, start};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/first-schema")
        .join(name)
}

fn unpack(to: &Path) {
    let unpacked = Command::new("tar")
        .arg("xzf")
        .arg(fixture("data.tar.gz"))
        .arg("-C")
        .arg(to)
        .status();
    assert!(unpacked.unwrap().success());
}

/// What was answered then and is not answered now: a field that is new says nothing against it.
fn lost(path: &str, then: &Value, now: &Value) -> Vec<String> {
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => then
            .iter()
            .flat_map(|(key, value)| lost(&format!("{path}.{key}"), value, &now[key]))
            .collect(),
        (Value::Array(then), Value::Array(now)) if then.len() == now.len() => then
            .iter()
            .zip(now)
            .enumerate()
            .flat_map(|(i, (then, now))| lost(&format!("{path}[{i}]"), then, now))
            .collect(),
        _ if then == now => Vec::new(),
        _ => vec![format!("{path}: {then} became {now}")],
    }
}

#[tokio::test]
async fn what_the_first_schema_held_is_there_after_all_migrations() {
    // Given a data folder of the server that had four migrations, and what it answered
    let dir = tempfile::tempdir().unwrap();
    unpack(dir.path());
    let answers: serde_json::Map<String, Value> =
        serde_json::from_slice(&std::fs::read(fixture("answers.json")).unwrap()).unwrap();
    assert!(answers.len() > 30 && answers["/tokens"][0].get("last_used_at").is_none());

    // When today's server opens it
    let server = start(ServeOptions::local(dir.path())).await.unwrap();

    // Then the token of then works and everything is answered as it was,
    let http = reqwest::Client::new();
    for (path, then) in &answers {
        let request = http.get(format!("{}/api/v1{path}", server.url));
        let answer = request.bearer_auth(&server.admin_token).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        let mut found = lost(path, then, &answer.json().await.unwrap());
        // What a queued evaluation waits for is worked out when it is asked.
        found.retain(|line| !line.contains(".reason: \"waits for a free worker\""));
        assert_eq!(found, Vec::<String>::new());
    }
    // every step comes back whole,
    let admin = Client::new(&server.url, Some(&server.admin_token)).unwrap();
    for (run, steps) in [("lab/tiny", vec![1, 2, 3, 4, 5]), ("lab/copy", vec![7])] {
        for step in steps {
            let to = dir.path().join(format!("{run}-{step}"));
            let (run, step) = (run.parse().unwrap(), Reference::Step(step));
            pull(&admin, &run, &step, &to, &PullOptions::default(), |_| {})
                .await
                .unwrap();
        }
    }
    server.stop().await;
    // and every stored byte is what the rows say.
    let scrub = Command::new(env!("CARGO_BIN_EXE_registry-under-test"))
        .args(["scrub", "--json", "--data"])
        .arg(dir.path())
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&scrub.stdout).into_owned();
    assert!(scrub.status.success(), "{report}");
    let report: Value = serde_json::from_str(&report).unwrap();
    assert!(report["n_checkpoints"].as_u64() >= Some(6), "{report}");
}
