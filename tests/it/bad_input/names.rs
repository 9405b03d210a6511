//! Tags, releases, scores and tokens.

use fineline_format::Digest;

use super::connection::{Body, json};
use super::{Case, case};

const RUN: &str = "/runs/lab/run";
const NOWHERE: &str = "01900000-0000-7000-8000-000000000000";

pub(super) fn cases() -> Vec<Case> {
    [names(), scores(), tokens()].into_iter().flatten().collect()
}

fn names() -> Vec<Case> {
    let set = |name, tag: &str, body: &str, answer| {
        case(
            "set_tag",
            name,
            ("PUT", format!("{RUN}/tags/{tag}")),
            json(body),
            answer,
        )
    };
    let release = |name, body: String, answer| {
        case(
            "create_release",
            name,
            ("POST", format!("{RUN}/releases")),
            json(body),
            answer,
        )
    };
    const ONE: &str = r#"{"reference":"1"}"#;
    vec![
        set("a name that is a step", "12", ONE, (400, "`12` is refused")),
        set("the newest step's name", "latest", ONE, (400, "`latest` is refused")),
        set("dots", "..%2fx", ONE, (400, "`../x` is refused")),
        set("no ASCII", "b%C3%A4st", ONE, (400, "`bäst` is refused")),
        set("a name of 60 KB", &"x".repeat(60_000), ONE, (400, "is refused")),
        set(
            "a reference that is none",
            "best",
            r#"{"reference":"a b"}"#,
            (400, "`a b` is refused"),
        ),
        set(
            "an unknown checkpoint",
            "best",
            r#"{"reference":"99"}"#,
            (404, "`step-99`"),
        ),
        case(
            "delete_tag",
            "NUL",
            ("DELETE", format!("{RUN}/tags/a%00b")),
            Body::None,
            (400, "NUL character"),
        ),
        case(
            "delete_tag",
            "an unknown one",
            ("DELETE", format!("{RUN}/tags/nope")),
            Body::None,
            (404, "tag `nope`"),
        ),
        case(
            "list_tags",
            "a run that is none",
            ("GET", "/runs/-/-/tags"),
            Body::None,
            (404, "run `-/-`"),
        ),
        case(
            "list_releases",
            "a run that is none",
            ("GET", "/runs/lab/a--b/releases"),
            Body::None,
            (404, "run `lab/a--b`"),
        ),
        release(
            "a name that is a digest",
            format!("{{\"release\":\"{}\",\"reference\":\"1\"}}", Digest::of(b"")),
            (400, "is refused"),
        ),
        release(
            "notes of 1 MB",
            format!(
                "{{\"release\":\"v1\",\"reference\":\"1\",\"notes\":\"{}\"}}",
                "x".repeat(1 << 20)
            ),
            (400, "64 KiB"),
        ),
        release(
            "NUL in the notes",
            r#"{"release":"v1","reference":"1","notes":"\u0000"}"#.into(),
            (400, "NUL character"),
        ),
    ]
}

fn scores() -> Vec<Case> {
    let list = |name, query: &str, answer| {
        case(
            "list_scores",
            name,
            ("GET", format!("{RUN}/scores?{query}")),
            Body::None,
            answer,
        )
    };
    let post = |name, harness: &str, scores: String, answer| {
        let body = format!("{{\"reference\":\"1\",\"harness\":\"{harness}\",\"scores\":[{scores}]}}");
        case(
            "post_scores",
            name,
            ("POST", format!("{RUN}/scores")),
            json(body),
            answer,
        )
    };
    let score = |rest: &str| format!("{{\"task\":\"t\",\"metric\":\"acc\",\"value\":1{rest}}}");
    vec![
        list("another format", "format=xml", (400, "format `xml` is none")),
        list("another's cursor", "cursor=%5B%5D", (400, "none of ours")),
        list(
            "a deep cursor",
            &format!("cursor={}", "%5B".repeat(10_000)),
            (400, "none of ours"),
        ),
        list("half a step", "step_min=1.5", (400, "step_min")),
        list("NUL", "task=a%00b", (400, "NUL character")),
        post("none", "h", String::new(), (400, "1 to 10000 scores")),
        post(
            "10,001",
            "h",
            vec![score(""); 10_001].join(","),
            (400, "1 to 10000 scores"),
        ),
        post("our own name", "fineline", score(""), (400, "is ours")),
        post(
            "a harness that leaves",
            "../h",
            score(""),
            (400, "harness `../h` is refused"),
        ),
        post("NaN", "h", score("").replace(":1}", ":NaN}"), (400, "expected")),
        post(
            "infinity",
            "h",
            score("").replace(":1}", ":-1e999}"),
            (400, "number out of range"),
        ),
        post(
            "null",
            "h",
            score("").replace(":1}", ":null}"),
            (400, "invalid type: null"),
        ),
        post(
            "a negative error",
            "h",
            score(",\"stderr\":-0.5"),
            (422, "standard error below 0"),
        ),
        post(
            "shots beyond 31 bits",
            "h",
            score(",\"n_shot\":2147483648"),
            (422, "beyond 2^31"),
        ),
        post(
            "samples beyond 63 bits",
            "h",
            score(",\"n\":9223372036854775808"),
            (422, "beyond 2^63"),
        ),
        post(
            "a filter of 1 MB",
            "h",
            score(&format!(",\"filter\":\"{}\"", "x".repeat(1 << 20))),
            (422, "128 at most"),
        ),
        post(
            "a task of 1 MB",
            "h",
            score("").replace("\"t\"", &format!("\"{}\"", "x".repeat(1 << 20))),
            (422, "1 to 256 bytes"),
        ),
    ]
}

fn tokens() -> Vec<Case> {
    let create = |name, body: String, answer| case("create_token", name, ("POST", "/tokens"), json(body), answer);
    let token = |name: &str, scopes: &str, rest: &str| {
        format!("{{\"name\":\"{name}\",\"scopes\":[{scopes}],\"pattern\":\"lab/*\"{rest}}}")
    };
    vec![
        create("no scope", token("t", "", ""), (400, "needs a scope")),
        create("an unknown scope", token("t", "\"root\"", ""), (400, "`root`")),
        create("no name", token(" ", "\"read\"", ""), (400, "1 to 128 bytes")),
        create(
            "a name of 1 MB",
            token(&"x".repeat(1 << 20), "\"read\"", ""),
            (400, "1 to 128 bytes"),
        ),
        create("NUL", token(r"a\u0000", "\"read\"", ""), (400, "NUL character")),
        create(
            "a life before now",
            token("t", "\"read\"", ",\"expires_in_s\":-1"),
            (400, "integer `-1`"),
        ),
        create(
            "a pattern that is none",
            token("t", "\"read\"", "").replace("lab/*", "**"),
            (400, "no pattern of runs"),
        ),
        case(
            "delete_token",
            "an id that is none",
            ("DELETE", "/tokens/..%2f.."),
            Body::None,
            (400, "UUID"),
        ),
        case(
            "delete_token",
            "an unknown id",
            ("DELETE", format!("/tokens/{NOWHERE}")),
            Body::None,
            (404, "token"),
        ),
    ]
}
