//! Chunks, push sessions and their files.

use fineline_format::frame::{encode, encode_raw};
use fineline_format::{Digest, Element, MAX_FRAME_BYTES};

use super::connection::{Body, json};
use super::{Case, case};

const RUN: &str = "/runs/lab/run";
const NOWHERE: &str = "01900000-0000-7000-8000-000000000000";

pub(super) fn cases() -> Vec<Case> {
    [chunks(), sessions(), session_files()].into_iter().flatten().collect()
}

fn chunks() -> Vec<Case> {
    let missing = |name, body: String, answer| {
        case(
            "missing_chunks",
            name,
            ("POST", format!("{RUN}/chunks/missing")),
            json(body),
            answer,
        )
    };
    let put = |name, digest: &str, session: &str, frame: Vec<u8>, answer| {
        let path = format!("{RUN}/chunks/{digest}?session={session}");
        case(
            "put_chunk",
            name,
            ("PUT", path),
            Body::Typed("application/vnd.fineline.frame", frame),
            answer,
        )
    };
    let of = Digest::of(b"x").to_string();
    let said = |size: u32| {
        let mut frame = encode(&vec![0; 8 << 20], Element::Unknown);
        frame[8..12].copy_from_slice(&size.to_le_bytes());
        frame
    };
    let many: Vec<String> = (0..10_001)
        .map(|i: u32| format!("\"{}\"", Digest::of(&i.to_le_bytes())))
        .collect();
    vec![
        missing(
            "10,001 digests",
            format!("{{\"digests\":[{}]}}", many.join(",")),
            (413, "at most 10000"),
        ),
        missing(
            "a digest that is none",
            r#"{"digests":["sha256:1"]}"#.into(),
            (400, "is no digest"),
        ),
        missing(
            "a digest in capitals",
            r#"{"digests":["SHA256:AB"]}"#.into(),
            (400, "is no digest"),
        ),
        missing("a number", r#"{"digests":[1]}"#.into(), (400, "integer `1`")),
        put("nothing", &of, "SESSION", Vec::new(), (422, "no frame")),
        put("no frame", &of, "SESSION", b"x".to_vec(), (422, "no frame")),
        put(
            "a frame of other bytes",
            &of,
            "SESSION",
            encode_raw(b"y"),
            (422, "have the digest"),
        ),
        put(
            "a frame cut short",
            &of,
            "SESSION",
            encode(&[7; 4096], Element::Unknown)[..30].to_vec(),
            (422, "not exactly one"),
        ),
        put("a bomb by ratio", &of, "SESSION", said(1), (422, "does not decode")),
        put("4 GiB said", &of, "SESSION", said(u32::MAX), (422, "4294967295 bytes")),
        put(
            "a delta",
            &of,
            "SESSION",
            b"FLF1\x03\x01\0\0\x01\0\0\0x".to_vec(),
            (422, "codec 3"),
        ),
        put(
            "more than a frame may have",
            &of,
            "SESSION",
            vec![0; MAX_FRAME_BYTES + 1],
            (413, "larger than this door takes"),
        ),
        put(
            "a digest that is none",
            "sha256:zz",
            "SESSION",
            encode_raw(b"x"),
            (400, "is no digest"),
        ),
        put(
            "an unknown session",
            &of,
            NOWHERE,
            encode_raw(b"x"),
            (404, "push session"),
        ),
        put("a session that is none", &of, "1", encode_raw(b"x"), (400, "session")),
        case(
            "get_chunk",
            "dots",
            ("GET", format!("{RUN}/chunks/..%2f..")),
            Body::None,
            (400, "is no digest"),
        ),
        case(
            "get_chunk",
            "a digest of another kind",
            ("GET", format!("{RUN}/chunks/md5:00")),
            Body::None,
            (400, "is no digest"),
        ),
    ]
}

fn sessions() -> Vec<Case> {
    let create = |name, body: String, answer| {
        case(
            "create_push_session",
            name,
            ("POST", format!("{RUN}/push-sessions")),
            json(body),
            answer,
        )
    };
    let at = |operation, name, (method, rest): (&'static str, &str), answer| {
        case(
            operation,
            name,
            (method, format!("{RUN}/push-sessions/{rest}")),
            Body::None,
            answer,
        )
    };
    let commit = |name, body: &str, answer| {
        case(
            "commit_push_session",
            name,
            ("POST", format!("{RUN}/push-sessions/SESSION/commit")),
            json(body),
            answer,
        )
    };
    let tags: Vec<String> = (0..101).map(|i| format!("\"t{i}\"")).collect();
    vec![
        create("a negative step", r#"{"step":-1}"#.into(), (400, "integer `-1`")),
        create("half a step", r#"{"step":1.5}"#.into(), (400, "floating point `1.5`")),
        create(
            "a step beyond 63 bits",
            r#"{"step":9223372036854775808}"#.into(),
            (400, "beyond 2^63"),
        ),
        create(
            "a step beyond 64 bits",
            r#"{"step":18446744073709551616}"#.into(),
            (400, "this door takes"),
        ),
        create(
            "an infinite loss",
            r#"{"step":5,"loss":1e999}"#.into(),
            (400, "number out of range"),
        ),
        create("NaN as a loss", r#"{"step":5,"loss":NaN}"#.into(), (400, "expected")),
        create(
            "NaN as a text",
            r#"{"step":5,"loss":"NaN"}"#.into(),
            (400, "invalid type: string"),
        ),
        create(
            "NaN in the metadata",
            r#"{"step":5,"metadata":{"loss":NaN}}"#.into(),
            (400, "expected"),
        ),
        create(
            "a label that leaves",
            r#"{"step":5,"label":"../x"}"#.into(),
            (400, "label `../x` is refused"),
        ),
        create(
            "another step's label",
            r#"{"step":5,"label":"step-6"}"#.into(),
            (400, "`step-6` is refused"),
        ),
        create(
            "a tag that is a step",
            r#"{"step":5,"tags":["12"]}"#.into(),
            (400, "`12` is refused"),
        ),
        create(
            "101 tags",
            format!("{{\"step\":5,\"tags\":[{}]}}", tags.join(",")),
            (400, "100 tags"),
        ),
        create(
            "metadata of 1 MB",
            format!("{{\"step\":5,\"metadata\":{{\"a\":\"{}\"}}}}", "x".repeat(1 << 20)),
            (400, "16 KiB"),
        ),
        create(
            "a manifest that is none",
            r#"{"step":5,"manifest_digest":"latest"}"#.into(),
            (400, "is no digest"),
        ),
        at("get_push_session", "an id that is none", ("GET", "1"), (400, "UUID")),
        at(
            "get_push_session",
            "a wait that is none",
            ("GET", "SESSION?wait_s=1e9"),
            (400, "wait_s"),
        ),
        at(
            "heartbeat_push_session",
            "an id that is none",
            ("POST", "%2e%2e/heartbeat"),
            (400, "UUID"),
        ),
        at(
            "abort_push_session",
            "an unknown id",
            ("DELETE", NOWHERE),
            (404, "push session"),
        ),
        commit(
            "a digest that is none",
            r#"{"manifest_digest":"x"}"#,
            (400, "is no digest"),
        ),
        commit(
            "nothing to commit",
            &format!("{{\"manifest_digest\":\"{}\"}}", Digest::of(b"")),
            (422, "at least one file"),
        ),
    ]
}

fn session_files() -> Vec<Case> {
    let chunk = Digest::of(b"x");
    let file = |path: &str, size: &str, chunks: &[&str]| {
        let chunks: Vec<String> = chunks
            .iter()
            .map(|size| format!("{{\"digest\":\"{chunk}\",\"size_bytes\":{size}}}"))
            .collect();
        json(format!(
            "{{\"path\":\"{path}\",\"size_bytes\":{size},\"digest\":\"{chunk}\",\"chunks\":[{}]}}",
            chunks.join(",")
        ))
    };
    let add = |name, body, answer| {
        case(
            "add_push_session_file",
            name,
            ("POST", format!("{RUN}/push-sessions/SESSION/files")),
            body,
            answer,
        )
    };
    let path = |name, path: &str, expected| add(name, file(path, "1", &["1"]), (422, expected));
    vec![
        path("up", "../../etc/passwd", "empty, `.` or `..`"),
        path("absolute", "/etc/passwd", "must be relative"),
        path("a device", "CON", "name of a device"),
        path("a device with an extension", "a/aux.txt", "name of a device"),
        path("a drive", "c:/a", "colon"),
        path("backslashes", r"..\\..\\a", "backslash"),
        path("a line end", r"a\nb", "control character"),
        path("600 bytes", &"ab/".repeat(200), "longer than 512 bytes"),
        add("NUL", file(r"a\u0000b", "1", &["1"]), (400, "NUL character")),
        add("a negative size", file("a", "-1", &["1"]), (400, "integer `-1`")),
        add(
            "a size that is not its chunks'",
            file("a", "2", &["1"]),
            (422, "1 bytes together, the file 2"),
        ),
        add(
            "a size beyond what can be",
            file("a", "18446744073709551615", &["1"]),
            (422, "the file 18446744073709551615"),
        ),
        add("an empty chunk", file("a", "0", &["0"]), (422, "a chunk has 1 to")),
        add(
            "a chunk of 17 MiB",
            file("a", "17825792", &["17825792"]),
            (422, "a chunk has 1 to"),
        ),
        add(
            "sizes that overflow together",
            file("a", "1", &["18446744073709551615", "2"]),
            (422, "a chunk has 1 to"),
        ),
        add(
            "an empty file of another digest",
            file("a", "0", &[]),
            (422, "is empty"),
        ),
    ]
}
