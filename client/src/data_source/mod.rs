//! Where the data of the library's tasks come from: a folder, a bucket, the Hugging Face Hub. What is fetched becomes one file
//! of JSON lines (or CSV) a split, so that the same documents are the same bytes wherever they came from.
//!
//! **Invariant:** a split is scored or it is missing; no other split and no part of it ever stands for it.

#[cfg(feature = "s3")]
mod bucket;
mod convert;
mod fetch;
mod folder;
mod hub;
mod layout;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

pub(crate) use fetch::{TaskData, fetch};
pub use hub::HubOptions;

use crate::error::Error;

/// Where the data of the library's tasks come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSource {
    /// A folder, or a file for the one task that takes any text.
    Local(PathBuf),
    /// `s3://BUCKET/PREFIX`.
    Bucket {
        /// The bucket.
        bucket: String,
        /// What the keys begin with, without slashes around it.
        prefix: String,
    },
    /// The Hub: each task's own data set, or one for all.
    Hub {
        /// `OWNER/NAME`; each task's own where there is none.
        dataset: Option<String>,
        /// A branch, a tag or a commit; the branch that holds every public data set as Parquet where there is none.
        revision: Option<String>,
    },
}

impl DataSource {
    /// Each task's own data set.
    pub const HUB: Self = Self::Hub {
        dataset: None,
        revision: None,
    };
}

impl FromStr for DataSource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = |what: &str| Err(Error::Configuration(format!("data source `{text}` {what}")));
        if text == "hf" {
            return Ok(Self::HUB);
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return refused("names no bucket: write it as `s3://BUCKET/PREFIX`");
            }
            return Ok(Self::Bucket {
                bucket: bucket.to_owned(),
                prefix: prefix.trim_matches('/').to_owned(),
            });
        }
        if let Some(rest) = text.strip_prefix("hf://") {
            let (dataset, revision) = match rest.strip_prefix("datasets/").map(|rest| rest.split_once('@')) {
                Some(Some((dataset, revision))) => (dataset, Some(revision.to_owned())),
                Some(None) => (&rest["datasets/".len()..], None),
                None => ("", None),
            };
            let is_part = |part: &str| !part.is_empty() && !part.contains(['?', '#', '%']) && part != "..";
            let is_id = dataset
                .split_once('/')
                .is_some_and(|(owner, name)| is_part(owner) && is_part(name) && !name.contains('/'));
            if !is_id || revision.as_deref() == Some("") {
                return refused(
                    "names no data set: write it as `hf://datasets/OWNER/NAME` or `hf://datasets/OWNER/NAME@REVISION`",
                );
            }
            return Ok(Self::Hub {
                dataset: Some(dataset.to_owned()),
                revision,
            });
        }
        if text.is_empty() || text.contains("://") {
            return refused(
                "is none that is known: give a folder, `s3://BUCKET/PREFIX`, `hf://datasets/OWNER/NAME` or `hf`",
            );
        }
        Ok(Self::Local(text.into()))
    }
}

impl fmt::Display for DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Bucket { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Hub { dataset: None, .. } => f.write_str("hf"),
            Self::Hub {
                dataset: Some(dataset),
                revision,
            } => {
                let at = if revision.is_some() { "@" } else { "" };
                write!(
                    f,
                    "hf://datasets/{dataset}{at}{}",
                    revision.as_deref().unwrap_or_default()
                )
            }
        }
    }
}

/// What was fetched for a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataOrigin {
    /// The task.
    pub task: String,
    /// The source.
    pub source: String,
    /// The commit, where the source has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The files, by their paths in it.
    pub files: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_read_and_written_the_same() {
        for text in [
            "hf",
            "hf://datasets/a/b",
            "hf://datasets/a/b@refs/convert/parquet",
            "s3://bucket/a/b",
            "../data",
            "data.txt",
        ] {
            assert_eq!(text.parse::<DataSource>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "hf://a/b",
            "hf://datasets/a",
            "hf://datasets/a/b/c",
            "hf://datasets/a/..",
            "hf://datasets/a/b@",
            "s3:///x",
            "http://x",
        ] {
            let error = bad.parse::<DataSource>().unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
    }
}
