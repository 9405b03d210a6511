//! Suites, bindings, evaluations, and what a worker says under its lease.

use fineline_format::Digest;
use harness::{TASK, documents_about};

use super::connection::{Body, Parts, json};
use super::{Case, case};

const NOWHERE: &str = "01900000-0000-7000-8000-000000000000";

pub(super) fn cases() -> Vec<Case> {
    [suites(), bindings(), evaluations(), leases(), task_scores()]
        .into_iter()
        .flatten()
        .collect()
}

/// A suite of one task: its definition, and its files by digest.
fn upload(yaml: &str) -> Parts {
    let files = [yaml.to_owned(), documents_about("bad")];
    let digests = files.clone().map(|file| Digest::of(file.as_bytes()).to_string());
    let blobs = [0, 1].map(|i| format!("{{\"digest\":\"{}\",\"size_bytes\":{}}}", digests[i], files[i].len()));
    let definition = format!(
        "{{\"suite\":\"s\",\"tasks\":[{{\"task\":\"tiny\",\"yaml\":{},\"data\":{{\"test\":[{}]}}}}]}}",
        blobs[0], blobs[1]
    );
    let mut parts = vec![
        ("pattern".to_owned(), b"lab/run".to_vec()),
        ("definition".to_owned(), definition.into_bytes()),
    ];
    parts.extend(digests.into_iter().zip(files.map(String::into_bytes)));
    parts
}

fn suites() -> Vec<Case> {
    let create = |name, body, answer| case("create_suite", name, ("POST", "/suites"), body, answer);
    let form = |name, edit: &dyn Fn(&mut Parts), answer| {
        let mut parts = upload(TASK);
        edit(&mut parts);
        create(name, Body::Form(parts), answer)
    };
    let task = |name, yaml: &str, expected| create(name, Body::Form(upload(yaml)), (422, expected));
    let part = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    let get = |operation, name, path: String, answer| case(operation, name, ("GET", path), Body::None, answer);
    let aliases = format!("a: &a [{}]\nb: [{}]\n", "1,".repeat(50_000), "*a,".repeat(50_000));
    vec![
        create("JSON", json("{}"), (400, "is no form")),
        create(
            "no boundary",
            Body::Typed("multipart/form-data", Vec::new()),
            (400, "is no form"),
        ),
        create(
            "nothing",
            Body::Typed("multipart/form-data; boundary=XX", Vec::new()),
            (400, "form can't be read"),
        ),
        create(
            "cut in the middle of a part",
            Body::Typed(
                "multipart/form-data; boundary=XX",
                b"--XX\r\ncontent-disposition: form-data; name=\"pattern\"\r\n\r\nla".to_vec(),
            ),
            (400, "form can't be read"),
        ),
        form(
            "no definition",
            &|parts| drop(parts.remove(1)),
            (400, "no part `definition`"),
        ),
        form("no pattern", &|parts| drop(parts.remove(0)), (400, "no part `pattern`")),
        form(
            "a pattern that is none",
            &|parts| parts[0].1 = b"lab".to_vec(),
            (400, "no pattern of runs"),
        ),
        form(
            "a pattern of 1 MB",
            &|parts| parts[0].1 = vec![b'x'; 1 << 20],
            (413, "more than 1024 bytes"),
        ),
        form(
            "a definition of 9 MB",
            &|parts| parts[1].1 = vec![b' '; 9 << 20],
            (413, "more than 8388608 bytes"),
        ),
        form(
            "a definition twice",
            &|parts| parts.push(parts[1].clone()),
            (400, "`definition` twice"),
        ),
        form(
            "a deep definition",
            &|parts| parts[1].1 = vec![b'['; 1 << 20],
            (400, "part `definition`"),
        ),
        form(
            "NaN as a limit",
            &|parts| parts[1].1 = b"{\"suite\":\"s\",\"tasks\":[],\"limit\":NaN}".to_vec(),
            (400, "expected"),
        ),
        form(
            "no tasks",
            &|parts| parts[1].1 = b"{\"suite\":\"s\",\"tasks\":[]}".to_vec(),
            (422, "needs 1 to 1000 tasks"),
        ),
        form("a file twice", &|parts| parts.push(parts[2].clone()), (400, "twice")),
        form(
            "a file that is not named",
            &|parts| parts.push(part(&Digest::of(b"x").to_string(), b"x")),
            (422, "does not name it"),
        ),
        form(
            "a file that is missing",
            &|parts| drop(parts.pop()),
            (422, "was not sent"),
        ),
        form(
            "a file of other bytes",
            &|parts| parts[3].1.push(b'x'),
            (422, "are others"),
        ),
        form(
            "a part of no digest",
            &|parts| parts.push(part("../x", b"x")),
            (400, "`../x` is no digest"),
        ),
        form(
            "20,001 parts",
            &|parts| {
                parts.extend((0..20_000_u32).map(|i| part(&Digest::of(&i.to_le_bytes()).to_string(), b"")));
            },
            (413, "more than 20000 files"),
        ),
        task("a list named 50,000 times", &aliases, "means more than 4 MiB"),
        task("deep YAML", &"[".repeat(10_000), "recursion limit"),
        task("YAML with NUL", "task: tiny\0", "no YAML"),
        task(
            "Python",
            &TASK.replace("doc_to_text: q", "doc_to_text: !function os.system"),
            "never run here",
        ),
        task(
            "another name",
            &TASK.replace("task: tiny", "task: huge"),
            "its YAML calls it `huge`",
        ),
        task(
            "a split without data",
            &TASK.replace("{test:", "{train: a.jsonl, test:"),
            "no data for its split `train`",
        ),
        get("get_suite", "dots", "/suites/..%2f..".into(), (400, "is no digest")),
        get(
            "get_suite_blob",
            "no digest",
            "/suites/SUITE/blobs/x".into(),
            (400, "`x` is no digest"),
        ),
        get(
            "get_suite_blob",
            "another's",
            format!("/suites/SUITE/blobs/{}", Digest::of(b"x")),
            (404, "in suite"),
        ),
    ]
}

fn bindings() -> Vec<Case> {
    let create = |name, pattern: &str, suite: &str, dtype: &str, answer| {
        let body = format!("{{\"pattern\":\"{pattern}\",\"suite\":\"{suite}\",\"dtype\":\"{dtype}\"}}");
        case("create_binding", name, ("POST", "/bindings"), json(body), answer)
    };
    let none = Digest::of(b"none").to_string();
    vec![
        create("an unknown suite", "lab/run", &none, "float32", (404, "suite")),
        create(
            "a suite that is none",
            "lab/run",
            "s",
            "float32",
            (400, "`s` is no digest"),
        ),
        create(
            "a pattern that is none",
            "*x",
            &none,
            "float32",
            (400, "no pattern of runs"),
        ),
        create("NUL", "lab/run", &none, r"f\u0000", (400, "NUL character")),
        case(
            "delete_binding",
            "an id that is none",
            ("DELETE", "/bindings/x"),
            Body::None,
            (400, "UUID"),
        ),
        case(
            "delete_binding",
            "an unknown id",
            ("DELETE", format!("/bindings/{NOWHERE}")),
            Body::None,
            (404, "binding"),
        ),
    ]
}

fn evaluations() -> Vec<Case> {
    let list = |name, query: &str, answer| {
        case(
            "list_evaluations",
            name,
            ("GET", format!("/evaluations?{query}")),
            Body::None,
            answer,
        )
    };
    let at = |operation, name, method, rest: &str, answer| {
        case(
            operation,
            name,
            (method, format!("/evaluations/{rest}")),
            Body::None,
            answer,
        )
    };
    vec![
        list("an unknown state", "state=running", (400, "`running` is none of")),
        list("a run that is none", "run=lab", (400, "`lab` is no run")),
        list("a reference without a run", "ref=1", (400, "`ref` needs `run`")),
        list(
            "a reference that is none",
            "run=lab/run&ref=a%20b",
            (400, "`a b` is refused"),
        ),
        list("another's cursor", "cursor=1", (400, "none of ours")),
        at("get_evaluation", "an id that is none", "GET", "%2e%2e", (400, "UUID")),
        at(
            "get_evaluation",
            "an id of 10 KB",
            "GET",
            &"0".repeat(10_000),
            (400, "Cannot parse `id`"),
        ),
        at(
            "retry_evaluation",
            "an unknown id",
            "POST",
            &format!("{NOWHERE}/retry"),
            (404, "evaluation"),
        ),
        at(
            "cancel_evaluation",
            "an id that is none",
            "POST",
            "1/cancel",
            (400, "UUID"),
        ),
        at(
            "get_samples",
            "NUL",
            "GET",
            "EVALUATION/tasks/a%00b/samples",
            (400, "NUL character"),
        ),
        at(
            "get_samples",
            "dots",
            "GET",
            "EVALUATION/tasks/..%2f..%2fx/samples",
            (404, "`../../x`"),
        ),
    ]
}

fn leases() -> Vec<Case> {
    let at = |operation, name, method, rest: &str, body, answer| {
        case(operation, name, (method, format!("/evaluations/{rest}")), body, answer)
    };
    let claim = |name, worker: &str, dtypes: &str, rest: &str, answer| {
        let body =
            format!("{{\"worker\":\"{worker}\",\"device\":\"cpu\",\"dtypes\":[{dtypes}],\"architectures\":[],{rest}}}");
        at("claim_evaluation", name, "POST", "claim", json(body), answer)
    };
    let beat = |name, body: String, answer| {
        at(
            "heartbeat_evaluation",
            name,
            "POST",
            "EVALUATION/heartbeat",
            json(body),
            answer,
        )
    };
    const MEMORY: &str = "\"memory_bytes\":1";
    vec![
        claim(
            "201 dtypes",
            "w",
            &vec!["\"f\""; 201].join(","),
            MEMORY,
            (400, "at most 200"),
        ),
        claim(
            "a worker of 1 MB",
            &"w".repeat(1 << 20),
            "",
            MEMORY,
            (400, "128 bytes each"),
        ),
        claim("NUL", r"\u0000", "", MEMORY, (400, "NUL character")),
        claim("negative memory", "w", "", "\"memory_bytes\":-1", (400, "integer `-1`")),
        claim(
            "a negative wait",
            "w",
            "",
            "\"memory_bytes\":1,\"wait_s\":-1",
            (400, "integer `-1`"),
        ),
        beat(
            "a task of 1 MB",
            format!("{{\"task\":\"{}\",\"n_done\":0,\"n_total\":0}}", "x".repeat(1 << 20)),
            (400, "256 bytes at most"),
        ),
        beat(
            "a negative number",
            r#"{"task":null,"n_done":-1,"n_total":0}"#.into(),
            (400, "integer `-1`"),
        ),
        at(
            "put_samples",
            "an unknown task",
            "PUT",
            "EVALUATION/tasks/..%2fx/samples",
            Body::Typed("application/jsonl", b"{}".to_vec()),
            (422, "no task `../x`"),
        ),
        at(
            "complete_evaluation",
            "without its scores",
            "POST",
            "EVALUATION/complete",
            json(format!("{{\"result_digest\":\"{}\"}}", Digest::of(b""))),
            (422, "has no scores yet"),
        ),
        at(
            "complete_evaluation",
            "a digest that is none",
            "POST",
            "EVALUATION/complete",
            json(r#"{"result_digest":1}"#),
            (400, "integer `1`"),
        ),
        at(
            "fail_evaluation",
            "a word for a flag",
            "POST",
            "EVALUATION/fail",
            json(r#"{"reason":"r","retryable":"no"}"#),
            (400, "expected a boolean"),
        ),
        at(
            "fail_evaluation",
            "NUL",
            "POST",
            "EVALUATION/fail",
            json(r#"{"reason":"\u0000","retryable":true}"#),
            (400, "NUL character"),
        ),
        at(
            "release_evaluation",
            "an id that is none",
            "POST",
            "x/release",
            Body::None,
            (400, "UUID"),
        ),
        at(
            "release_evaluation",
            "an unknown id",
            "POST",
            &format!("{NOWHERE}/release"),
            Body::None,
            (409, "lease"),
        ),
        at(
            "fail_evaluation",
            "an unknown id",
            "POST",
            &format!("{NOWHERE}/fail"),
            json(r#"{"reason":"r","retryable":true}"#),
            (409, "lease"),
        ),
    ]
}

fn task_scores() -> Vec<Case> {
    let post = |name, task: &str, scores: String, answer| {
        let path = format!("/evaluations/EVALUATION/tasks/{task}/scores");
        case(
            "post_task_scores",
            name,
            ("POST", path),
            json(format!("[{scores}]")),
            answer,
        )
    };
    let score = |value: &str, rest: &str| {
        format!(
            "{{\"metric\":\"acc\",\"filter\":\"none\",\"value\":{value},\"n\":1,\"n_shot\":0,\"harness_version\":\"0\"{rest}}}"
        )
    };
    let long = "x".repeat(1 << 20);
    vec![
        post("none", "tiny", String::new(), (422, "needs 1 to 1000 scores")),
        post(
            "1,001",
            "tiny",
            vec![score("1", ""); 1001].join(","),
            (422, "needs 1 to 1000 scores"),
        ),
        post("an unknown task", "huge", score("1", ""), (422, "no task `huge`")),
        post("NaN", "tiny", score("NaN", ""), (400, "expected")),
        post("infinity", "tiny", score("1e999", ""), (400, "number out of range")),
        post(
            "a text for a value",
            "tiny",
            score("\"Infinity\"", ""),
            (400, "invalid type: string"),
        ),
        post(
            "a negative error",
            "tiny",
            score("1", ",\"stderr\":-1"),
            (422, "standard error below 0"),
        ),
        post(
            "a method of 1 MB",
            "tiny",
            score("1", &format!(",\"stderr_method\":\"{long}\"")),
            (422, "128 at most"),
        ),
        post(
            "provenance of 1 MB",
            "tiny",
            score("1", &format!(",\"provenance\":{{\"a\":\"{long}\"}}")),
            (422, "16 KiB"),
        ),
        post(
            "an unknown field",
            "tiny",
            score("1", ",\"x\":1"),
            (400, "unknown field `x`"),
        ),
    ]
}
