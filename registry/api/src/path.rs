//! URL paths of the API, so that a client and a server can't differ in them.
//!
//! Segments that a user names are percent-encoded; a file's path keeps its slashes.

use std::fmt::Display;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::run::RunName;

/// Where the API lives.
pub const API: &str = "/api/v1";

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');
const PATH: &AsciiSet = &SEGMENT.remove(b'/');

/// One segment, encoded.
pub fn segment(value: impl Display) -> String {
    utf8_percent_encode(&value.to_string(), SEGMENT).to_string()
}

/// `/api/v1/runs/NS/NAME` and what follows it.
pub fn run(run: &RunName, rest: &str) -> String {
    format!("{API}/runs/{}/{}{rest}", segment(run.namespace()), segment(run.name()))
}

/// A checkpoint by reference, and what follows it.
pub fn checkpoint(name: &RunName, reference: impl Display, rest: &str) -> String {
    run(name, &format!("/checkpoints/{}{rest}", segment(reference)))
}

/// A file of a checkpoint.
pub fn file(name: &RunName, reference: impl Display, path: &str) -> String {
    checkpoint(name, reference, &format!("/files/{}", utf8_percent_encode(path, PATH)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_names_is_encoded_and_a_files_slashes_are_kept() {
        let name: RunName = "lab/a".parse().unwrap();
        assert_eq!(
            checkpoint(&name, "best/copa", "/tensors"),
            "/api/v1/runs/lab/a/checkpoints/best%2Fcopa/tensors"
        );
        assert_eq!(
            file(&name, "step-1", "a b/c#d"),
            "/api/v1/runs/lab/a/checkpoints/step-1/files/a%20b/c%23d"
        );
    }
}
