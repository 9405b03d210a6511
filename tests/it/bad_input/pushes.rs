//! Whole pushes of files that are wrong inside: each byte arrives, and the step never appears.

use fineline_format::{Digest, FileEntry, Manifest, frame};
use serde_json::{Value, json};

use super::connection::{Body, Connection};

const SESSIONS: &str = "/runs/lab/run/push-sessions";

/// A push: what it is called, its files, and words of its failure.
type Push = (&'static str, Vec<(&'static str, Vec<u8>)>, &'static str);

/// Pushes each; how many there are, and what was wrong with the answers.
pub(super) fn push_all(connection: &Connection) -> (usize, Vec<String>) {
    let pushes = pushes();
    let fault = |(i, (name, files, expected)): (usize, &Push)| {
        let failure = push(connection, 2000 + i as u64, files);
        (!failure.contains(expected)).then(|| format!("push: {name}: not `{expected}`: {failure}"))
    };
    (pushes.len(), pushes.iter().enumerate().filter_map(fault).collect())
}

fn safetensors(header: &str, n_data: usize) -> Vec<u8> {
    [
        &(header.len() as u64).to_le_bytes()[..],
        header.as_bytes(),
        &vec![0; n_data],
    ]
    .concat()
}

fn pushes() -> Vec<Push> {
    const ONE: &str = r#"{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    const WEIGHTS: &str = "model.safetensors";
    const INDEX: &str = "model.safetensors.index.json";
    let members = |n: usize| {
        let members: Vec<String> = (0..n).map(|i| format!("\"{i}\":\"{WEIGHTS}\"")).collect();
        members.join(",")
    };
    let with_index = |index: String| vec![(INDEX, index.into_bytes()), (WEIGHTS, safetensors(ONE, 1))];
    let config = |config: &[u8]| vec![("config.json", config.to_vec()), (WEIGHTS, safetensors(ONE, 1))];
    vec![
        ("weights cut short", vec![(WEIGHTS, safetensors(ONE, 0))], "cut short"),
        (
            "weights of a header that lies",
            vec![(WEIGHTS, vec![0xff; 100])],
            "its header claims",
        ),
        (
            "a header of 10 MB",
            vec![(WEIGHTS, safetensors(&format!("{{{}}}", members(400_000)), 1))],
            "more than 262144 members",
        ),
        (
            "a deep header",
            vec![(WEIGHTS, safetensors(&"[".repeat(10 << 20), 1))],
            "header is wrong",
        ),
        (
            "NaN in the metadata",
            vec![(WEIGHTS, safetensors(r#"{"__metadata__":{"a":NaN}}"#, 0))],
            "header is wrong",
        ),
        (
            "a zip of nothing",
            vec![("pytorch_model.bin", b"PK\x03\x04".to_vec())],
            "directory is missing",
        ),
        (
            "an index that is no JSON",
            with_index("{".to_owned()),
            "EOF while parsing",
        ),
        (
            "an index of 10 MB",
            with_index(format!("{{\"weight_map\":{{{}}}}}", members(400_000))),
            "more than 262144 members",
        ),
        (
            "an index of a missing shard",
            with_index("{\"weight_map\":{\"w\":\"../x\"}}".to_owned()),
            "`../x`, which is not there",
        ),
        (
            "an index of another tensor",
            with_index(format!("{{\"weight_map\":{{\"v\":\"{WEIGHTS}\"}}}}")),
            "`v` is not in shard",
        ),
        (
            "a config with NaN",
            config(br#"{"eps":NaN}"#),
            "`config.json` is no JSON",
        ),
        (
            "a deep config",
            config("[".repeat(1 << 19).as_bytes()),
            "recursion limit",
        ),
        ("a config of 2 MB", config(&vec![b' '; 2 << 20]), "may have 1048576"),
    ]
}

/// Pushes the files; the failure's message.
fn push(connection: &Connection, step: u64, files: &[(&str, Vec<u8>)]) -> String {
    let ask = |method: &str, path: &str, body: &Value| {
        let answer = connection.ask(method, path, &Body::Json(body.to_string()));
        assert!(answer.status < 300, "{method} {path}: {}", answer.text);
        serde_json::from_str::<Value>(&answer.text).unwrap_or_default()
    };
    let session = ask("POST", SESSIONS, &json!({ "step": step }));
    let session = format!("{SESSIONS}/{}", session["id"].as_str().unwrap());
    let id = session.rsplit('/').next().unwrap();
    let mut entries = Vec::new();
    for (path, bytes) in files {
        let chunks: Vec<Value> = bytes.chunks(8 << 20).map(|raw| put(connection, id, raw)).collect();
        let (digest, size_bytes) = (Digest::of(bytes), bytes.len() as u64);
        let file = json!({ "path": path, "size_bytes": size_bytes, "digest": digest, "chunks": chunks });
        ask("POST", &format!("{session}/files"), &file);
        entries.push(FileEntry {
            path: (*path).to_owned(),
            size_bytes,
            digest,
        });
    }
    let manifest = Manifest::new(entries).unwrap().digest();
    ask(
        "POST",
        &format!("{session}/commit"),
        &json!({ "manifest_digest": manifest }),
    );
    let ended = connection.ask("GET", &format!("{session}?wait_s=30"), &Body::None);
    let ended: Value = serde_json::from_str(&ended.text).unwrap();
    assert_eq!(ended["state"], "failed", "{ended}");
    ended["failure"]["message"].as_str().unwrap().to_owned()
}

/// Sends a chunk; what a recipe says of it.
fn put(connection: &Connection, session: &str, raw: &[u8]) -> Value {
    let digest = Digest::of(raw);
    let path = format!("/runs/lab/run/chunks/{digest}?session={session}");
    let answer = connection.ask(
        "PUT",
        &path,
        &Body::Typed("application/octet-stream", frame::encode_raw(raw)),
    );
    assert_eq!(answer.status, 204, "{}", answer.text);
    json!({ "digest": digest, "size_bytes": raw.len() })
}
