//! The doors: every operation whose path or body takes a digest, a reference or an id, and how it is asked.

use std::collections::{BTreeMap, BTreeSet};

use fineline_format::{Digest, frame};
use reqwest::Method;
use serde_json::{Value, json};

use super::Things;

/// A request at a door; `SESSION` in its path is an open session of the caller's own run.
pub(super) enum Ask {
    Empty(Method, String),
    Json(Method, String, Value),
    Bytes(Method, String, Vec<u8>),
    Suite(String),
}

/// How each operation is asked about the things.
pub(super) fn doors(things: &Things) -> BTreeMap<&'static str, Ask> {
    use Ask::{Bytes, Empty, Json, Suite};
    let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
    let run = "/runs/lab/open";
    let reference = things.checkpoint.to_string();
    let at = format!("{run}/checkpoints/{reference}");
    let evaluation = format!("/evaluations/{}", things.evaluation);
    let session = format!("{run}/push-sessions/{}", things.session);
    let file = serde_json::to_value(&things.file).unwrap();
    let result = json!({"result_digest": Digest::of(b"r")});
    let score = json!({"metric": "acc", "filter": "none", "value": 1.0, "n": 1, "n_shot": 0, "harness_version": "0"});
    let external = json!([{"task": "t", "metric": "acc", "value": 1.0}]);
    BTreeMap::from([
        ("get_checkpoint", Empty(get.clone(), at.clone())),
        (
            "delete_checkpoint",
            Empty(Method::DELETE, format!("{at}?force=true&dry_run=true")),
        ),
        ("get_manifest", Empty(get.clone(), format!("{at}/manifest"))),
        ("list_files", Empty(get.clone(), format!("{at}/files"))),
        ("get_file", Empty(get.clone(), format!("{at}/files/config.json"))),
        ("list_tensors", Empty(get.clone(), format!("{at}/tensors"))),
        (
            "missing_chunks",
            Json(
                post.clone(),
                format!("{run}/chunks/missing"),
                json!({"digests": [things.chunk()]}),
            ),
        ),
        (
            "get_chunk",
            Empty(get.clone(), format!("{run}/chunks/{}", things.chunk())),
        ),
        (
            "put_chunk",
            Bytes(
                put.clone(),
                format!("{run}/chunks/{}?session=SESSION", things.chunk()),
                frame::encode_raw(&things.chunk_bytes),
            ),
        ),
        (
            "locate_chunks",
            Json(
                post.clone(),
                format!("{run}/chunks/locations"),
                json!({"digests": [things.chunk()]}),
            ),
        ),
        (
            "stage_frames",
            Json(post.clone(), format!("{session}/staging"), json!({"n": 1})),
        ),
        (
            "create_push_session",
            Json(
                post.clone(),
                format!("{run}/push-sessions"),
                json!({"step": 77, "manifest_digest": things.checkpoint}),
            ),
        ),
        ("get_push_session", Empty(get.clone(), session.clone())),
        (
            "list_push_session_files",
            Empty(get.clone(), format!("{session}/files")),
        ),
        (
            "add_push_session_file",
            Json(post.clone(), format!("{run}/push-sessions/SESSION/files"), file),
        ),
        (
            "commit_push_session",
            Json(
                post.clone(),
                format!("{run}/push-sessions/SESSION/commit"),
                json!({"manifest_digest": things.manifest()}),
            ),
        ),
        (
            "list_evaluations",
            Empty(get.clone(), format!("/evaluations?run=lab/open&ref={reference}")),
        ),
        (
            "heartbeat_push_session",
            Empty(post.clone(), format!("{session}/heartbeat")),
        ),
        ("abort_push_session", Empty(Method::DELETE, session)),
        (
            "set_run_tokenizer",
            Json(
                put.clone(),
                format!("{run}/tokenizer"),
                json!({"run": things.run, "reference": reference}),
            ),
        ),
        (
            "get_tokenizer_file",
            Empty(get.clone(), format!("{evaluation}/tokenizer/tokenizer.json")),
        ),
        (
            "set_tag",
            Json(put.clone(), format!("{run}/tags/best"), json!({"reference": reference})),
        ),
        (
            "create_release",
            Json(
                post.clone(),
                format!("{run}/releases"),
                json!({"release": "r", "reference": reference}),
            ),
        ),
        (
            "post_scores",
            Json(
                post.clone(),
                format!("{run}/scores"),
                json!({"reference": reference, "harness": "h", "scores": external}),
            ),
        ),
        ("create_suite", Suite(things.subject.clone())),
        ("get_suite", Empty(get.clone(), format!("/suites/{}", things.suite))),
        (
            "get_suite_blob",
            Empty(get.clone(), format!("/suites/{}/blobs/{}", things.suite, things.blob)),
        ),
        (
            "create_binding",
            Json(
                post.clone(),
                "/bindings".to_owned(),
                json!({"pattern": "lab/open", "suite": things.suite, "dtype": "float32"}),
            ),
        ),
        (
            "plan_binding",
            Json(
                post.clone(),
                "/bindings/plan".to_owned(),
                json!({"pattern": "lab/open", "suite": things.suite, "dtype": "float32", "backfill": "all"}),
            ),
        ),
        (
            "delete_binding",
            Empty(Method::DELETE, format!("/bindings/{}", things.binding)),
        ),
        ("get_evaluation", Empty(get.clone(), evaluation.clone())),
        ("retry_evaluation", Empty(post.clone(), format!("{evaluation}/retry"))),
        ("cancel_evaluation", Empty(post.clone(), format!("{evaluation}/cancel"))),
        ("get_samples", Empty(get, format!("{evaluation}/tasks/tiny/samples"))),
        (
            "heartbeat_evaluation",
            Json(
                post.clone(),
                format!("{evaluation}/heartbeat"),
                json!({"task": null, "n_done": 0, "n_total": 0}),
            ),
        ),
        (
            "post_task_scores",
            Json(post.clone(), format!("{evaluation}/tasks/tiny/scores"), json!([score])),
        ),
        (
            "put_samples",
            Bytes(put, format!("{evaluation}/tasks/tiny/samples"), b"{}\n".to_vec()),
        ),
        (
            "complete_evaluation",
            Json(post.clone(), format!("{evaluation}/complete"), result),
        ),
        (
            "fail_evaluation",
            Json(
                post.clone(),
                format!("{evaluation}/fail"),
                json!({"reason": "r", "retryable": false}),
            ),
        ),
        ("release_evaluation", Empty(post, format!("{evaluation}/release"))),
    ])
}

/// Operations that take an id of what belongs to no run.
pub(super) const NO_DOORS: [&str; 1] = ["delete_token"];

/// The operations of the OpenAPI document whose path or body names something by digest, reference or id.
pub(super) fn operations_that_name() -> BTreeSet<String> {
    const NAMES: [&str; 10] = [
        "digest",
        "digests",
        "manifest_digest",
        "reference",
        "ref",
        "suite",
        "blob",
        "chunks",
        "definition",
        "id",
    ];
    let document = serde_json::to_value(fineline_registry::openapi()).unwrap();
    let mut found = BTreeSet::new();
    for operation in document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|path| path.as_object().unwrap().values())
    {
        let mut names = BTreeSet::new();
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            names.insert(parameter["name"].as_str().unwrap().to_owned());
        }
        properties(&document, &operation["requestBody"], &mut BTreeSet::new(), &mut names);
        if NAMES.iter().any(|name| names.contains(*name)) {
            found.insert(operation["operationId"].as_str().unwrap().to_owned());
        }
    }
    found
}

fn properties(document: &Value, schema: &Value, seen: &mut BTreeSet<String>, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str)
                && seen.insert(reference.to_owned())
            {
                let target = document.pointer(reference.trim_start_matches('#')).unwrap();
                properties(document, target, seen, names);
            }
            if let Some(known) = fields.get("properties").and_then(Value::as_object) {
                names.extend(known.keys().cloned());
            }
            fields
                .values()
                .for_each(|field| properties(document, field, seen, names));
        }
        Value::Array(items) => items.iter().for_each(|item| properties(document, item, seen, names)),
        _ => {}
    }
}
