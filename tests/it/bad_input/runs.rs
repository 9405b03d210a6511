//! Runs and checkpoints.

use super::connection::{Body, json};
use super::{Case, case};

const RUN: &str = "/runs/lab/run";

pub(super) fn cases() -> Vec<Case> {
    [runs(), checkpoints()].into_iter().flatten().collect()
}

fn runs() -> Vec<Case> {
    let create = |name, body, answer| case("create_run", name, ("POST", "/runs"), body, answer);
    let list =
        |name, query: String, answer| case("list_runs", name, ("GET", format!("/runs?{query}")), Body::None, answer);
    let get = |name, path: &str, answer| case("get_run", name, ("GET", path), Body::None, answer);
    let update = |name, body: String, answer| case("update_run", name, ("PATCH", RUN), json(body), answer);
    let attributes = |fields: &str| json(format!("{{\"run\":\"lab/other\",\"attributes\":{{{fields}}}}}"));
    vec![
        create("nothing", json(""), (400, "no JSON object")),
        create(
            "another type",
            Body::Typed("text/plain", b"{\"run\":\"lab/other\"}".to_vec()),
            (400, "`application/json`"),
        ),
        create("no type", Body::None, (400, "`application/json`")),
        create(
            "no text",
            Body::Typed("application/json", b"{\"run\":\"\xff\"}".to_vec()),
            (400, "invalid unicode"),
        ),
        create("deep", json("[".repeat(1 << 20)), (400, "no JSON object")),
        create(
            "deep where anything may be",
            attributes(&format!("\"x\":{}", "[".repeat(1 << 20))),
            (400, "expected value"),
        ),
        create("9 MB", json(" ".repeat(9 << 20)), (413, "larger than this door takes")),
        create(
            "a name of 7 MB",
            json(format!("{{\"run\":\"lab/{}\"}}", "x".repeat(7 << 20))),
            (400, "longer than 96 bytes"),
        ),
        create("a name that leaves", json(r#"{"run":"lab/.."}"#), (400, "`--` or `..`")),
        create("three parts", json(r#"{"run":"a/b/c"}"#), (400, "other than letters")),
        create("a reserved name", json(r#"{"run":"api/b"}"#), (400, "reserved")),
        create("NUL", json(r#"{"run":"lab/a\u0000"}"#), (400, "NUL character")),
        create(
            "NUL in a text",
            attributes(r#""description":"a\u0000b""#),
            (400, "NUL character"),
        ),
        create(
            "half a surrogate",
            attributes(r#""description":"\ud800""#),
            (400, "this door takes"),
        ),
        create(
            "one field twice",
            json(r#"{"run":"lab/a","run":"lab/b"}"#),
            (400, "duplicate field `run`"),
        ),
        create("an unknown field", json(r#"{"run":"lab/a","rum":1}"#), (400, "`rum`")),
        create(
            "an unknown field of 7 MB",
            json(format!("{{\"{}\":1}}", "x".repeat(7 << 20))),
            (400, "unknown field `xxx"),
        ),
        create(
            "two values",
            json(r#"{"run":"lab/a"} {}"#),
            (400, "trailing characters"),
        ),
        create(
            "a negative number",
            attributes(r#""n_parameters":-1"#),
            (400, "integer `-1`"),
        ),
        create("NaN", attributes(r#""n_parameters":NaN"#), (400, "expected")),
        create(
            "a number beyond 63 bits",
            attributes(r#""tokens_per_step":9223372036854775808"#),
            (400, "beyond 2^63"),
        ),
        create(
            "a description of 1 MB",
            attributes(&format!("\"description\":\"{}\"", "x".repeat(1 << 20))),
            (400, "64 KiB"),
        ),
        create(
            "facts of 1 MB",
            attributes(&format!("\"metadata\":{{\"a\":\"{}\"}}", "x".repeat(1 << 20))),
            (400, "64 KiB"),
        ),
        create(
            "a fact that is a number",
            attributes("\"metadata\":{\"loss\":1.5}"),
            (400, "floating point `1.5`"),
        ),
        list("a negative limit", "limit=-1".into(), (400, "limit")),
        list(
            "a limit beyond 64 bits",
            "limit=99999999999999999999".into(),
            (400, "limit"),
        ),
        list("a cursor of no run", "cursor=%2e%2e".into(), (400, "`..` is no run")),
        list(
            "a pattern that is none",
            "pattern=*a".into(),
            (400, "no pattern of runs"),
        ),
        list("an unknown word", "patern=lab".into(), (400, "unknown field `patern`")),
        list(
            "one word twice",
            "limit=1&limit=2".into(),
            (400, "duplicate field `limit`"),
        ),
        list("NUL", "cursor=lab%2fa%00".into(), (400, "NUL character")),
        list("60 KB", format!("cursor={}", "x".repeat(60_000)), (400, "is no run")),
        get("dots", "/runs/lab/%2e%2e", (404, "run `lab/..`")),
        get("a slash within", "/runs/lab/a%2Fb", (404, "run `lab/a/b`")),
        get("no text", "/runs/lab/%ff", (400, "Invalid UTF-8")),
        get("NUL", "/runs/lab/a%00", (400, "NUL character")),
        get(
            "a name of 60 KB",
            &format!("/runs/lab/{}", "x".repeat(60_000)),
            (404, "there is no run"),
        ),
        update("a list", "[]".into(), (400, "no JSON object")),
        update(
            "a strategy of 1 MB",
            format!("{{\"strategy\":\"{}\"}}", "x".repeat(1 << 20)),
            (400, "64 KiB"),
        ),
    ]
}

fn checkpoints() -> Vec<Case> {
    let get = |operation, name, rest: &str, answer| {
        case(operation, name, ("GET", format!("{RUN}{rest}")), Body::None, answer)
    };
    vec![
        get(
            "list_checkpoints",
            "an unknown state",
            "/checkpoints?state=done",
            (400, "`done` is none of"),
        ),
        get(
            "list_checkpoints",
            "a negative step",
            "/checkpoints?step_min=-1",
            (400, "step_min"),
        ),
        get(
            "list_checkpoints",
            "half a step",
            "/checkpoints?step_max=1.5",
            (400, "step_max"),
        ),
        get(
            "list_checkpoints",
            "another's cursor",
            "/checkpoints?cursor=1",
            (400, "cursor `1` is none"),
        ),
        get(
            "get_checkpoint",
            "a step beyond 64 bits",
            "/checkpoints/99999999999999999999",
            (404, "99999999999999999999"),
        ),
        get(
            "get_checkpoint",
            "a digest that is none",
            "/checkpoints/sha256:12",
            (404, "`sha256:12`"),
        ),
        get("get_checkpoint", "white space", "/checkpoints/a%20b", (404, "`a b`")),
        get(
            "get_checkpoint",
            "a line end",
            "/checkpoints/a%0a%0db",
            (404, "`a\\n\\rb`"),
        ),
        get(
            "get_checkpoint",
            "60 KB",
            &format!("/checkpoints/{}", "x".repeat(60_000)),
            (404, "there is no checkpoint"),
        ),
        get(
            "get_manifest",
            "dots",
            "/checkpoints/..%2f..%2f1/manifest",
            (404, "`../../1`"),
        ),
        get(
            "list_files",
            "a word for a flag",
            "/checkpoints/1/files?recipes=perhaps",
            (400, "recipes"),
        ),
        get(
            "list_tensors",
            "NUL",
            "/checkpoints/1%00/tensors",
            (400, "NUL character"),
        ),
        get(
            "get_file",
            "dots",
            "/checkpoints/1/files/..%2f..%2f..%2fetc%2fpasswd",
            (404, "etc/passwd"),
        ),
        get(
            "get_file",
            "plain dots",
            "/checkpoints/1/files/../../admin.token",
            (404, "admin.token"),
        ),
        get("get_file", "a device", "/checkpoints/1/files/CON", (404, "`CON`")),
        get(
            "get_file",
            "no text",
            "/checkpoints/1/files/%ff%fe",
            (400, "Invalid UTF-8"),
        ),
        get("list_events", "a word for a number", "/events?after=x", (400, "after")),
        get("list_events", "a negative wait", "/events?wait_s=-1", (400, "wait_s")),
    ]
}
