//! Sources.

use super::connection::{Body, json};
use super::{Case, case};

const FOLDER: &str = r#"{"kind":"folder","path":"/none"}"#;

fn source(name: &str, location: &str, rest: &str) -> Body {
    json(format!(
        r#"{{"name":"{name}","run":"lab/run","location":{location}{rest}}}"#
    ))
}

fn hub(endpoint: &str, repositories: &str) -> String {
    format!(r#"{{"kind":"hub","endpoint":"{endpoint}","repositories":[{repositories}]}}"#)
}

pub(super) fn cases() -> Vec<Case> {
    let create = |name, body, answer| case("create_source", name, ("POST", "/sources"), body, answer);
    let preview = |name, body, answer| case("preview_source", name, ("POST", "/sources/preview"), body, answer);
    let many = vec!["\"a\""; 10_001].join(",");
    let mut cases = vec![
        create("nothing", json(""), (400, "no JSON object")),
        create(
            "no location",
            json(r#"{"name":"s","run":"lab/run"}"#),
            (400, "location"),
        ),
        create("an unknown field", source("s", FOLDER, r#","x":1"#), (400, "`x`")),
        create("an unknown kind", source("s", r#"{"kind":"ftp"}"#, ""), (400, "ftp")),
        create(
            "a run that is not there",
            json(format!(r#"{{"name":"s","run":"lab/none","location":{FOLDER}}}"#)),
            (404, "run `lab/none`"),
        ),
        create(
            "a name that is none",
            source("a/b", FOLDER, ""),
            (400, "source name `a/b`"),
        ),
        create(
            "a long name",
            source(&"x".repeat(1 << 20), FOLDER, ""),
            (400, "source name"),
        ),
        create("NUL in a name", source("a\\u0000", FOLDER, ""), (400, "NUL character")),
        create(
            "a folder outside",
            source("s", r#"{"kind":"folder","path":"/etc"}"#, ""),
            (422, "--source-root"),
        ),
        create(
            "the loopback",
            source("s", &hub("http://127.0.0.1:1", "\"a/b\""), ""),
            (422, "--source-allow"),
        ),
        create(
            "another scheme",
            source("s", &hub("file:///etc", "\"a/b\""), ""),
            (422, "http"),
        ),
        create(
            "no repository",
            source("s", &hub("https://example.org", ""), ""),
            (400, "0 repositories"),
        ),
        create(
            "many repositories",
            source("s", &hub("https://example.org", &many), ""),
            (400, "10001 repositories"),
        ),
        create(
            "no repository's name",
            source("s", &hub("https://example.org", "\"a/../b\""), ""),
            (422, "a/../b"),
        ),
        create(
            "no bucket",
            source("s", r#"{"kind":"s3","bucket":"a/b"}"#, ""),
            (422, "a/b"),
        ),
        create(
            "keys that are none",
            source("s", r#"{"kind":"s3","bucket":"b"}"#, r#","secret":"hush""#),
            (422, "ACCESS_KEY_ID:SECRET_ACCESS_KEY"),
        ),
        create(
            "a short interval",
            source("s", FOLDER, r#","interval_s":1"#),
            (400, "interval of 1 s"),
        ),
        create(
            "an endless wait",
            source("s", FOLDER, r#","settle_s":18446744073709551615"#),
            (400, "settle time"),
        ),
        create(
            "a marker that leaves",
            source("s", FOLDER, r#","marker":"../x""#),
            (400, "marker"),
        ),
        create(
            "a template of nothing",
            source("s", FOLDER, r#","mapping":{"template":"x"}"#),
            (400, "x"),
        ),
        create(
            "no tokens a step",
            source("s", FOLDER, r#","mapping":{"tokens_per_step":0}"#),
            (400, "1 at the least"),
        ),
        create(
            "many names",
            source("s", FOLDER, &format!(r#","mapping":{{"select":[{many}]}}"#)),
            (400, "10001 names"),
        ),
        create(
            "another's variable",
            source("s", FOLDER, r#","secret_env":"PATH""#),
            (400, "FINELINE_SOURCE_SECRET"),
        ),
        create(
            "a short webhook secret",
            source("s", FOLDER, r#","webhook_secret":"x""#),
            (400, "16 characters"),
        ),
        preview("nothing", json("[]"), (400, "no JSON object")),
        preview(
            "a folder outside",
            source("s", r#"{"kind":"folder","path":"/etc"}"#, ""),
            (422, "--source-root"),
        ),
        case(
            "hear_source",
            "no secret",
            ("POST", "/sources/s/events"),
            Body::None,
            (401, "secret of source `s`"),
        ),
        case(
            "hear_source",
            "a long name",
            ("POST", format!("/sources/{}/events", "x".repeat(8000))),
            Body::None,
            (401, "secret"),
        ),
    ];
    for (operation, method, rest) in [
        ("get_source", "GET", ""),
        ("delete_source", "DELETE", ""),
        ("list_source_steps", "GET", "/steps"),
        ("sync_source", "POST", "/sync"),
        ("pause_source", "POST", "/pause"),
    ] {
        let at = |name: &str| (method, format!("/sources/{name}{rest}"));
        cases.push(case(
            operation,
            "none of that name",
            at("none"),
            Body::None,
            (404, "source `none`"),
        ));
        cases.push(case(
            operation,
            "a long name",
            at(&"x".repeat(8000)),
            Body::None,
            (404, "source `xxx"),
        ));
        cases.push(case(operation, "NUL", at("a%00b"), Body::None, (400, "NUL")));
    }
    cases
}
