//! What makes a step evaluable, or evaluated, later; and what a session of several ranks holds.

use fineline_format::Digest;

use super::connection::{Body, json};
use super::{Case, case};

const RUN: &str = "/runs/lab/run";

pub(super) fn cases() -> Vec<Case> {
    [tokenizers(), back_fills(), sessions()].into_iter().flatten().collect()
}

fn tokenizers() -> Vec<Case> {
    let set = |name, body: &str, answer| {
        let at = ("PUT", format!("{RUN}/tokenizer"));
        case("set_run_tokenizer", name, at, json(body.to_owned()), answer)
    };
    let file = |name, path: &str, answer| {
        let at = ("GET", format!("/evaluations/EVALUATION/tokenizer/{path}"));
        case("get_tokenizer_file", name, at, Body::None, answer)
    };
    vec![
        set("nothing", "", (400, "no JSON object")),
        set("no checkpoint", r#"{"run":"lab/run"}"#, (400, "reference")),
        set(
            "an unknown run",
            r#"{"run":"lab/nope","reference":"1"}"#,
            (404, "lab/nope"),
        ),
        set(
            "an unknown step",
            r#"{"run":"lab/run","reference":"77"}"#,
            (404, "`step-77`"),
        ),
        set(
            "a name that leaves",
            r#"{"run":"lab/..","reference":"1"}"#,
            (400, "`--` or `..`"),
        ),
        set(
            "NUL",
            r#"{"run":"lab/run","reference":"a\u0000"}"#,
            (400, "NUL character"),
        ),
        set(
            "an unknown field",
            r#"{"run":"lab/run","reference":"1","x":1}"#,
            (400, "`x`"),
        ),
        file("a file that was not lent", "tokenizer.json", (404, "tokenizer.json")),
        file("dots", "..%2f..%2fconfig.json", (404, "there is no")),
        file("NUL", "a%00b", (400, "NUL character")),
    ]
}

fn back_fills() -> Vec<Case> {
    let none = Digest::of(b"none");
    let plan = |name, back_fill: &str, answer| {
        let body = format!(r#"{{"pattern":"lab/run","suite":"{none}","dtype":"float32","backfill":{back_fill}}}"#);
        case("plan_binding", name, ("POST", "/bindings/plan"), json(body), answer)
    };
    vec![
        plan("the newest none", "\"newest=0\"", (400, "newest")),
        plan(
            "the newest of beyond 64 bits",
            "\"newest=99999999999999999999\"",
            (400, "newest"),
        ),
        plan("another word", "\"some\"", (400, "`some`")),
        plan("a number", "3", (400, "this door takes")),
    ]
}

fn sessions() -> Vec<Case> {
    let list = |name, session: &str, answer| {
        let at = ("GET", format!("{RUN}/push-sessions/{session}/files"));
        case("list_push_session_files", name, at, Body::None, answer)
    };
    vec![
        list(
            "an unknown session",
            "01900000-0000-7000-8000-000000000000",
            (404, "push session"),
        ),
        list("no id", "x", (400, "UUID")),
    ]
}
