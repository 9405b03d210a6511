//! `NAMESPACE/NAME[@REF]` on the command line, and `KEY=VALUE`.

use std::str::FromStr;

use fineline_api::{Reference, RunName};

/// A run, or a checkpoint of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) run: RunName,
    pub(crate) reference: Option<Reference>,
}

/// A checkpoint of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckpointTarget {
    pub(crate) run: RunName,
    pub(crate) reference: Reference,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (run, reference) = match text.split_once('@') {
            Some((run, reference)) => (run, Some(reference.parse()?)),
            None => (text, None),
        };
        let run = run.parse()?;
        Ok(Self { run, reference })
    }
}

impl FromStr for CheckpointTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse()? {
            Target {
                run,
                reference: Some(reference),
            } => Ok(Self { run, reference }),
            _ => Err(format!(
                "`{text}` names a run and no checkpoint: write `{text}@REF`, for example `{text}@latest`"
            )),
        }
    }
}

/// A step as a number or `step-N`.
pub(crate) fn step(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(Reference::Step(step)) => Ok(step),
        _ => Err(format!(
            "`{text}` is no step: write a number; another spelling goes into `--label`"
        )),
    }
}

/// `KEY=VALUE`.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is no fact: write it as KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_run_with_or_without_a_reference() {
        let target: Target = "lab/a".parse().unwrap();
        assert_eq!(target.reference, None);
        let target: CheckpointTarget = "lab/a@best/copa".parse().unwrap();
        assert_eq!(
            (target.run.to_string(), target.reference.to_string()),
            ("lab/a".into(), "best/copa".into())
        );
        for bad in ["lab", "lab/a@", "lab/a@x@y", "@1", ""] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
        let error = "lab/a".parse::<CheckpointTarget>().unwrap_err();
        assert!(error.contains("lab/a@latest"), "{error}");
    }

    #[test]
    fn steps_and_facts() {
        assert_eq!(step("step-000512"), Ok(512));
        assert_eq!(step("512"), Ok(512));
        assert!(step("ckpt_512").unwrap_err().contains("--label"));
        assert_eq!(key_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(key_value("=x").is_err() && key_value("x").is_err());
    }
}
