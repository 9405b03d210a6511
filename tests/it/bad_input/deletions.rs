//! Deleting, retention and collection.

use super::connection::{Body, json};
use super::{Case, case};

const RUN: &str = "/runs/lab/run";

pub(super) fn cases() -> Vec<Case> {
    let delete = |name, path: &str, answer| {
        let at = format!("{RUN}/checkpoints/{path}");
        case("delete_checkpoint", name, ("DELETE", at), Body::None, answer)
    };
    let delete_run = |name, path: &str, answer| case("delete_run", name, ("DELETE", path), Body::None, answer);
    let retain = |name, query: &str, body: &str, answer| {
        let at = format!("{RUN}/retention{query}");
        case("set_retention", name, ("PUT", at), json(body.to_owned()), answer)
    };
    let collect = |name, body: &str, answer| {
        case(
            "collect_garbage",
            name,
            ("POST", "/storage/gc"),
            json(body.to_owned()),
            answer,
        )
    };
    vec![
        delete("an unknown step", "77", (404, "`step-77`")),
        delete("dots", "..%2f1", (404, "there is no checkpoint")),
        delete("an unknown field", "77?forced=true", (400, "forced")),
        delete("no truth value", "77?force=maybe", (400, "force")),
        delete("NUL", "a%00b", (400, "NUL character")),
        delete_run("an unknown run", "/runs/lab/nope", (404, "run `lab/nope`")),
        delete_run("a name that is none", "/runs/lab/a..b", (404, "run `lab/a..b`")),
        delete_run("an unknown field", "/runs/lab/nope?scores=true", (400, "scores")),
        retain(
            "nothing is kept",
            "",
            r#"{"keep_last":0}"#,
            (400, "keeps its newest step"),
        ),
        retain(
            "divided by nothing",
            "",
            r#"{"keep_last":1,"keep_every":0}"#,
            (400, "divides no step"),
        ),
        retain("below nothing", "", r#"{"keep_last":-1}"#, (400, "`-1`")),
        retain(
            "beyond 64 bits",
            "",
            r#"{"keep_last":99999999999999999999}"#,
            (400, "expected u64"),
        ),
        retain("a fraction", "", r#"{"keep_last":1.5}"#, (400, "`1.5`")),
        retain("no rule", "", "{}", (400, "keep_last")),
        retain("a list", "", "[1]", (400, "no JSON object")),
        retain(
            "an unknown field",
            "",
            r#"{"keep_last":1,"keep_first":1}"#,
            (400, "keep_first"),
        ),
        retain("an unknown question", "?dry=true", r#"{"keep_last":1}"#, (400, "dry")),
        case(
            "delete_retention",
            "an unknown run",
            ("DELETE", "/runs/lab/nope/retention"),
            Body::None,
            (404, "run `lab/nope`"),
        ),
        collect("an unknown field", r#"{"now":true}"#, (400, "now")),
        collect("a list", "[]", (400, "no JSON object")),
        collect("nothing", "", (400, "no JSON object")),
    ]
}
