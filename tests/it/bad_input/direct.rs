//! Locations, staging places, and frames that are said to be staged.

use fineline_format::Digest;
use fineline_format::frame::encode_raw;

use super::connection::{Body, json};
use super::{Case, case};

const RUN: &str = "/runs/lab/run";
const NOWHERE: &str = "01900000-0000-7000-8000-000000000000";

pub(super) fn cases() -> Vec<Case> {
    let locate = |name, body: String, answer| {
        let path = format!("{RUN}/chunks/locations");
        case("locate_chunks", name, ("POST", path), json(body), answer)
    };
    let stage = |name, session: &str, body: &str, answer| {
        let path = format!("{RUN}/push-sessions/{session}/staging");
        case("stage_frames", name, ("POST", path), json(body.to_owned()), answer)
    };
    let take = |name, staged: &str, body: Body, answer| {
        let path = format!("{RUN}/chunks/{}?session=SESSION&staged={staged}", Digest::of(b"x"));
        case("put_chunk", name, ("PUT", path), body, answer)
    };
    let many = vec![format!("\"{}\"", Digest::of(b"x")); 1001];
    let frame = Body::Typed("application/vnd.fineline.frame", encode_raw(b"x"));
    vec![
        locate(
            "1,001 digests",
            format!("{{\"digests\":[{}]}}", many.join(",")),
            (413, "at most 1000"),
        ),
        locate(
            "a digest that is none",
            r#"{"digests":["sha256:1"]}"#.into(),
            (400, "is no digest"),
        ),
        locate("no digests", "{}".into(), (400, "digests")),
        locate(
            "another field",
            r#"{"digests":[],"base":"x"}"#.into(),
            (400, "unknown field"),
        ),
        stage("101 places", "SESSION", r#"{"n":101}"#, (413, "at most 100")),
        stage("less than none", "SESSION", r#"{"n":-1}"#, (400, "integer `-1`")),
        stage("no number", "SESSION", r#"{"n":"1"}"#, (400, "string")),
        stage("an id that is none", "1", r#"{"n":1}"#, (400, "UUID")),
        stage("an unknown session", NOWHERE, r#"{"n":1}"#, (404, "push session")),
        take("a place that is none", "1", Body::None, (400, "staged")),
        take("an unknown place", NOWHERE, Body::None, (404, "staging place")),
        take("a place and a body", NOWHERE, frame, (400, "without a body")),
    ]
}
