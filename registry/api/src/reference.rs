//! How a checkpoint of a run is named: by step, by the spelling it was pushed under, by tag or release, by digest.

use std::fmt;
use std::str::FromStr;

use fineline_format::Digest;
use serde::{Deserialize, Serialize};

use crate::text::{said, string_schema};

/// The longest tag, release or spelling, in bytes.
pub const MAX_REFERENCE_BYTES: usize = 128;

/// The part after the `@` of `namespace/name@REF`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Reference {
    /// `1000` or `step-1000`: the current revision of that step.
    Step(u64),
    /// `sha256:…`: any revision of the run with that manifest digest.
    Digest(Digest),
    /// A tag, a release, `latest`, or the spelling that a step was pushed under (`ckpt_100`).
    Name(String),
}

string_schema!(
    Reference,
    "step-1000",
    "A step, `step-N`, the spelling it was pushed under, a tag, a release or `sha256:…`"
);

/// The newest ready step; computed, never set.
pub const LATEST: &str = "latest";

/// Checks a name for a tag, a release or a spelling: `[A-Za-z0-9._/-]`, no empty, `.` or `..` part, at most 128 bytes.
///
/// # Errors
/// A sentence that names the value and the rule.
pub fn check_name(what: &str, name: &str) -> Result<(), String> {
    let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b));
    let parts = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if name.len() <= MAX_REFERENCE_BYTES && letters && parts {
        Ok(())
    } else {
        Err(format!(
            "{what} `{}` is refused: use letters, digits, `.`, `_`, `-` and single `/`, at most 128 bytes",
            said(name)
        ))
    }
}

/// Checks a name that a user gives to a checkpoint (tag or release): as [`check_name`], and never one that means
/// something else already.
///
/// # Errors
/// A sentence that names the value and the rule.
pub fn check_given_name(what: &str, name: &str) -> Result<(), String> {
    check_name(what, name)?;
    match name.parse() {
        Ok(Reference::Name(_)) if name != LATEST => Ok(()),
        _ => Err(format!(
            "{what} `{name}` is refused: it already means a step, a digest or the newest step"
        )),
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with(Digest::PREFIX) {
            return text
                .parse()
                .map(Self::Digest)
                .map_err(|error: fineline_format::digest::ParseDigestError| error.to_string());
        }
        let digits = text.strip_prefix("step-").unwrap_or(text);
        if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            return digits
                .parse()
                .map(Self::Step)
                .map_err(|_| format!("step `{}` is too large", said(digits)));
        }
        check_name("reference", text)?;
        Ok(Self::Name(text.to_owned()))
    }
}

impl TryFrom<String> for Reference {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(step) => write!(f, "step-{step}"),
            Self::Digest(digest) => write!(f, "{digest}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_reference_is_told_apart() {
        assert_eq!("1000".parse(), Ok(Reference::Step(1000)));
        assert_eq!("step-001000".parse(), Ok(Reference::Step(1000)));
        assert_eq!("ckpt_100".parse(), Ok(Reference::Name("ckpt_100".to_owned())));
        assert_eq!("best/arc_easy".parse(), Ok(Reference::Name("best/arc_easy".to_owned())));
        let digest = Digest::of(b"x");
        assert_eq!(digest.to_string().parse(), Ok(Reference::Digest(digest)));
        for bad in ["", "a//b", "../x", "sha256:12", "a b", "99999999999999999999999"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tag_cannot_take_a_name_that_means_something_else() {
        for bad in ["12", "step-12", "latest"] {
            assert!(check_given_name("tag", bad).is_err(), "{bad}");
        }
        assert!(check_given_name("tag", "best/copa").is_ok());
    }
}
