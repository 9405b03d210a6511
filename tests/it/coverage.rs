//! Every operation of the API names its scope: 401 without a token, 404 where the token's runs are others, 403 where the
//! scope is lacking. An operation that is missing here fails the test.

use std::collections::BTreeSet;

use fineline_api::Scope::{self, Admin, Evaluate, Read, Write};
use harness::serve;
use reqwest::{Method, StatusCode};

use crate::web::Browser;

/// Operation, method, path, scope; a path with `lab/run` names a run.
const OPERATIONS: &[(&str, &str, &str, Scope)] = &[
    ("create_run", "POST", "/runs", Write),
    ("list_runs", "GET", "/runs", Read),
    ("get_run", "GET", "/runs/lab/run", Read),
    ("update_run", "PATCH", "/runs/lab/run", Write),
    ("set_run_tokenizer", "PUT", "/runs/lab/run/tokenizer", Write),
    ("delete_run", "DELETE", "/runs/lab/run?dry_run=true", Admin),
    ("set_retention", "PUT", "/runs/lab/run/retention", Write),
    ("delete_retention", "DELETE", "/runs/lab/run/retention", Write),
    ("list_checkpoints", "GET", "/runs/lab/run/checkpoints", Read),
    ("get_checkpoint", "GET", "/runs/lab/run/checkpoints/1", Read),
    ("delete_checkpoint", "DELETE", "/runs/lab/run/checkpoints/1", Write),
    ("get_manifest", "GET", "/runs/lab/run/checkpoints/1/manifest", Read),
    ("list_files", "GET", "/runs/lab/run/checkpoints/1/files", Read),
    ("get_file", "GET", "/runs/lab/run/checkpoints/1/files/config.json", Read),
    ("list_tensors", "GET", "/runs/lab/run/checkpoints/1/tensors", Read),
    ("list_events", "GET", "/runs/lab/run/events", Read),
    ("missing_chunks", "POST", "/runs/lab/run/chunks/missing", Write),
    ("put_chunk", "PUT", "/runs/lab/run/chunks/DIGEST?session=UUID", Write),
    ("get_chunk", "GET", "/runs/lab/run/chunks/DIGEST", Read),
    ("locate_chunks", "POST", "/runs/lab/run/chunks/locations", Read),
    (
        "stage_frames",
        "POST",
        "/runs/lab/run/push-sessions/UUID/staging",
        Write,
    ),
    ("create_push_session", "POST", "/runs/lab/run/push-sessions", Write),
    ("get_push_session", "GET", "/runs/lab/run/push-sessions/UUID", Write),
    (
        "add_push_session_file",
        "POST",
        "/runs/lab/run/push-sessions/UUID/files",
        Write,
    ),
    (
        "list_push_session_files",
        "GET",
        "/runs/lab/run/push-sessions/UUID/files",
        Write,
    ),
    (
        "commit_push_session",
        "POST",
        "/runs/lab/run/push-sessions/UUID/commit",
        Write,
    ),
    (
        "heartbeat_push_session",
        "POST",
        "/runs/lab/run/push-sessions/UUID/heartbeat",
        Write,
    ),
    (
        "abort_push_session",
        "DELETE",
        "/runs/lab/run/push-sessions/UUID",
        Write,
    ),
    ("list_tags", "GET", "/runs/lab/run/tags", Read),
    ("set_tag", "PUT", "/runs/lab/run/tags/best", Write),
    ("delete_tag", "DELETE", "/runs/lab/run/tags/best", Write),
    ("list_releases", "GET", "/runs/lab/run/releases", Read),
    ("create_release", "POST", "/runs/lab/run/releases", Write),
    ("create_suite", "POST", "/suites", Write),
    ("list_suites", "GET", "/suites", Read),
    ("get_suite", "GET", "/suites/DIGEST", Read),
    ("get_suite_blob", "GET", "/suites/DIGEST/blobs/DIGEST", Read),
    ("create_binding", "POST", "/bindings", Write),
    ("plan_binding", "POST", "/bindings/plan", Write),
    ("list_bindings", "GET", "/bindings", Read),
    ("delete_binding", "DELETE", "/bindings/UUID", Write),
    ("list_evaluations", "GET", "/evaluations", Read),
    ("get_evaluation", "GET", "/evaluations/UUID", Read),
    ("retry_evaluation", "POST", "/evaluations/UUID/retry", Write),
    ("cancel_evaluation", "POST", "/evaluations/UUID/cancel", Write),
    ("get_samples", "GET", "/evaluations/UUID/tasks/t/samples", Read),
    ("claim_evaluation", "POST", "/evaluations/claim", Evaluate),
    ("heartbeat_evaluation", "POST", "/evaluations/UUID/heartbeat", Evaluate),
    (
        "get_tokenizer_file",
        "GET",
        "/evaluations/UUID/tokenizer/tokenizer.json",
        Evaluate,
    ),
    ("post_task_scores", "POST", "/evaluations/UUID/tasks/t/scores", Evaluate),
    ("put_samples", "PUT", "/evaluations/UUID/tasks/t/samples", Evaluate),
    ("complete_evaluation", "POST", "/evaluations/UUID/complete", Evaluate),
    ("fail_evaluation", "POST", "/evaluations/UUID/fail", Evaluate),
    ("release_evaluation", "POST", "/evaluations/UUID/release", Evaluate),
    ("list_scores", "GET", "/runs/lab/run/scores", Read),
    ("post_scores", "POST", "/runs/lab/run/scores", Write),
    ("create_source", "POST", "/sources", Admin),
    ("list_sources", "GET", "/sources", Admin),
    ("preview_source", "POST", "/sources/preview", Admin),
    ("get_source", "GET", "/sources/s", Admin),
    ("delete_source", "DELETE", "/sources/s", Admin),
    ("list_source_steps", "GET", "/sources/s/steps", Admin),
    ("sync_source", "POST", "/sources/s/sync", Admin),
    ("pause_source", "POST", "/sources/s/pause", Admin),
    ("hear_source", "POST", "/sources/s/events", Admin),
    ("collect_garbage", "POST", "/storage/gc", Admin),
    ("create_token", "POST", "/tokens", Admin),
    ("list_tokens", "GET", "/tokens", Admin),
    ("delete_token", "DELETE", "/tokens/UUID", Admin),
];

/// Operations that answer 404 and not 403 where the scope is lacking: what they name by id or digest may not be known.
const HIDDEN: &[&str] = &[
    "get_suite",
    "get_suite_blob",
    "get_chunk",
    "delete_binding",
    "retry_evaluation",
    "cancel_evaluation",
];

/// Operations that a worker may ask without a lease: all that it names is unknown to it then, and that is no error.
const EMPTY: &[&str] = &["locate_chunks"];

/// Operations that no token opens but a secret of their own.
const SECRET: &[&str] = &["hear_source"];

/// A body that each operation can read, so that it gets as far as asking who calls.
fn body(operation: &str) -> &'static str {
    match operation {
        "create_run" => r#"{"run":"lab/other"}"#,
        "missing_chunks" | "locate_chunks" => r#"{"digests":[]}"#,
        "stage_frames" => r#"{"n":1}"#,
        "create_push_session" => r#"{"step":1}"#,
        "add_push_session_file" => {
            r#"{"path":"a","size_bytes":0,"digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","chunks":[]}"#
        }
        "commit_push_session" => {
            r#"{"manifest_digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}"#
        }
        "set_run_tokenizer" => r#"{"run":"lab/run","reference":"1"}"#,
        "set_tag" => r#"{"reference":"1"}"#,
        "create_release" => r#"{"release":"r","reference":"1"}"#,
        "create_binding" | "plan_binding" => {
            r#"{"pattern":"lab/run","suite":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","dtype":"float32"}"#
        }
        "claim_evaluation" => r#"{"worker":"w","device":"cpu","memory_bytes":1,"dtypes":[],"architectures":[]}"#,
        "heartbeat_evaluation" => r#"{"task":null,"n_done":0,"n_total":0}"#,
        "post_task_scores" => "[]",
        "complete_evaluation" => {
            r#"{"result_digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}"#
        }
        "fail_evaluation" => r#"{"reason":"r","retryable":false}"#,
        "post_scores" => r#"{"reference":"1","harness":"h","scores":[]}"#,
        "create_source" | "preview_source" => {
            r#"{"name":"s","run":"lab/run","location":{"kind":"folder","path":"/none"}}"#
        }
        "create_token" => r#"{"name":"n","scopes":["read"],"pattern":"*"}"#,
        "set_retention" => r#"{"keep_last":1}"#,
        "update_run" | "collect_garbage" => "{}",
        _ => "",
    }
}

async fn ask(url: &str, operation: &(&str, &str, &str, Scope), token: Option<&str>) -> StatusCode {
    let token = token.map(|token| ("authorization", format!("Bearer {token}")));
    ask_with(url, operation, token).await
}

async fn ask_with(url: &str, operation: &(&str, &str, &str, Scope), credential: Option<(&str, String)>) -> StatusCode {
    let path = operation
        .2
        .replace(
            "DIGEST",
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        )
        .replace("UUID", "01900000-0000-7000-8000-000000000000");
    let method: Method = operation.1.parse().unwrap();
    let mut request = reqwest::Client::new().request(method, format!("{url}/api/v1{path}"));
    request = match operation.0 {
        "create_suite" => request.multipart(reqwest::multipart::Form::new().text("x", "y")),
        name if body(name).is_empty() => request,
        name => request.header("content-type", "application/json").body(body(name)),
    };
    if let Some((header, value)) = credential {
        request = request.header(header, value);
    }
    request.header("fineline-lease", "x").send().await.unwrap().status()
}

#[tokio::test]
async fn every_operation_names_its_scope() {
    let document = serde_json::to_value(fineline_registry::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap().values();
    let methods = paths.flat_map(|path| path.as_object().unwrap().values());
    let documented: BTreeSet<_> = methods
        .filter_map(|method| method["operationId"].as_str().map(str::to_owned))
        .collect();
    let tested: BTreeSet<_> = OPERATIONS.iter().map(|operation| operation.0.to_owned()).collect();
    assert_eq!(documented, tested, "the table and the router have the same operations");

    let server = serve().await;
    server.run("lab/run").await;
    let (url, all) = (server.server.url.clone(), [Read, Write, Evaluate, Admin]);
    let cookie = Browser::logged_in(&url, &server.server.admin_token)
        .await
        .cookie_header();
    let elsewhere = server.token(&[Read, Write, Evaluate], "elsewhere/*").await;
    for operation in OPERATIONS {
        let (name, _, path, scope) = *operation;
        assert_eq!(
            ask(&url, operation, None).await,
            StatusCode::UNAUTHORIZED,
            "{name} without a token"
        );
        assert_eq!(
            ask(&url, operation, Some("fl_wrong")).await,
            StatusCode::UNAUTHORIZED,
            "{name} with a wrong token"
        );
        assert_eq!(
            ask_with(&url, operation, Some(("cookie", cookie.clone()))).await,
            StatusCode::UNAUTHORIZED,
            "{name} with a browser's cookie, which foreign pages can make it send"
        );
        if path.contains("lab/run") {
            let status = ask(&url, operation, Some(&elsewhere)).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{name} with a token for other runs");
        }
        // A token with every scope but those that hold this one.
        let lacking: Vec<Scope> = all
            .into_iter()
            .filter(|&held| held != scope && held != Admin && !(scope == Read && held == Write))
            .collect();
        let weak = server.token(&lacking, "*").await;
        let status = ask(&url, operation, Some(&weak)).await;
        let by_lease = scope == Read && (path.contains("/checkpoints/") || HIDDEN.contains(&name));
        if SECRET.contains(&name) {
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{name} with a token");
        } else if EMPTY.contains(&name) {
            assert_eq!(status, StatusCode::OK, "{name} without the scope {scope}");
        } else if by_lease || HIDDEN.contains(&name) {
            assert_eq!(status, StatusCode::NOT_FOUND, "{name} without the scope {scope}");
        } else {
            assert_eq!(status, StatusCode::FORBIDDEN, "{name} without the scope {scope}");
        }
    }
}
