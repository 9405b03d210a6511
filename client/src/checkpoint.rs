//! Checkpoints of a run: by step range, by reference; their manifest, files and tensors.
//!
//! Whole checkpoints are fetched by `pull`; [`Client::get_file`] is for one small file or a part of a large one.

use std::ops::Range;

use bytes::Bytes;
use fineline_api::{Checkpoint, CheckpointFile, CheckpointState, Page, Reference, RunName, Tensor, path};
use fineline_format::Digest;
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderValue, RANGE};

use crate::call::Call;
use crate::error::{Error, Result};
use crate::http::Client;

/// Which checkpoints of a run are listed.
#[derive(Debug, Clone, Default)]
pub struct CheckpointQuery {
    /// The first step.
    pub step_min: Option<u64>,
    /// The last step, included.
    pub step_max: Option<u64>,
    /// In which states.
    pub state: StateFilter,
    /// Replaced revisions too.
    pub all_revisions: bool,
}

/// States to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StateFilter {
    /// Those that can be read.
    #[default]
    Ready,
    /// All that is there.
    Any,
    /// One state.
    Only(CheckpointState),
}

/// A file of a checkpoint, or a part of it.
#[derive(Debug, Clone)]
pub struct FileBytes {
    /// What was asked for.
    pub bytes: Bytes,
    /// The whole file's size.
    pub size_bytes: u64,
    /// The strong entity tag, `"sha256:…"`.
    pub etag: Option<String>,
}

impl Client {
    /// One page of a run's checkpoints, by step.
    ///
    /// # Errors
    /// As every call.
    pub async fn list_checkpoints(
        &self,
        run: &RunName,
        query: &CheckpointQuery,
        cursor: Option<&str>,
        limit: Option<u64>,
    ) -> Result<Page<Checkpoint>> {
        let state = match query.state {
            StateFilter::Ready => None,
            StateFilter::Any => Some("any"),
            StateFilter::Only(state) => Some(state.as_str()),
        };
        let call = Call::get(path::run(run, "/checkpoints"))
            .query("step_min", query.step_min)
            .query("step_max", query.step_max)
            .query("state", state)
            .query("all_revisions", query.all_revisions.then_some(true))
            .query("cursor", cursor)
            .query("limit", limit);
        self.json(call).await
    }

    /// A checkpoint by step, label, tag, release or digest.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the run has none by that reference.
    pub async fn get_checkpoint(&self, run: &RunName, reference: &Reference) -> Result<Checkpoint> {
        self.json(Call::get(path::checkpoint(run, reference, ""))).await
    }

    /// A checkpoint's canonical manifest; its SHA-256 is the checkpoint's digest.
    ///
    /// # Errors
    /// As [`Client::get_checkpoint`].
    pub async fn get_manifest(&self, run: &RunName, reference: &Reference) -> Result<Bytes> {
        let call = Call::get(path::checkpoint(run, reference, "/manifest"));
        Ok(self.send(&call).await?.body)
    }

    /// A checkpoint's files, by path; their chunks only with `recipes`.
    ///
    /// # Errors
    /// As [`Client::get_checkpoint`].
    pub async fn list_files(&self, run: &RunName, reference: &Reference, recipes: bool) -> Result<Vec<CheckpointFile>> {
        let call = Call::get(path::checkpoint(run, reference, "/files"));
        self.json(call.query("recipes", recipes.then_some(true))).await
    }

    /// A file of a checkpoint, or the given bytes of it; at most 256 MiB at a time.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the checkpoint has no such file, [`Error::Refused`] when the range lies outside of it.
    pub async fn get_file(
        &self,
        run: &RunName,
        reference: &Reference,
        file: &str,
        range: Option<Range<u64>>,
    ) -> Result<FileBytes> {
        let mut call = Call::get(path::file(run, reference, file));
        if let Some(range) = &range {
            if range.is_empty() {
                return Err(Error::Configuration(format!(
                    "range {range:?} of `{file}` is empty: ask for a byte at least"
                )));
            }
            let text = format!("bytes={}-{}", range.start, range.end - 1);
            call = call.header(
                RANGE,
                HeaderValue::from_str(&text).expect("digits, `=` and `-` are a header's letters"),
            );
        }
        let answer = self.send(&call).await?;
        let text = |name| answer.headers.get(name)?.to_str().ok();
        let size_bytes = match text(CONTENT_RANGE) {
            Some(given) => given
                .rsplit('/')
                .next()
                .and_then(|size| size.parse().ok())
                .ok_or_else(|| Error::Protocol {
                    url: answer.url.clone(),
                    reason: format!("its content range is `{given}`"),
                })?,
            None => answer.body.len() as u64,
        };
        Ok(FileBytes {
            etag: text(ETAG).map(str::to_owned),
            size_bytes,
            bytes: answer.body,
        })
    }

    /// The tensors of a checkpoint's weights, by name.
    ///
    /// # Errors
    /// As [`Client::get_checkpoint`].
    pub async fn list_tensors(&self, run: &RunName, reference: &Reference) -> Result<Vec<Tensor>> {
        self.json(Call::get(path::checkpoint(run, reference, "/tensors"))).await
    }
}

/// The digest of a checkpoint that must be ready to be read.
pub(crate) fn ready_digest(checkpoint: &Checkpoint) -> Result<Digest> {
    match (checkpoint.state, checkpoint.digest) {
        (CheckpointState::Ready, Some(digest)) => Ok(digest),
        (state, _) => Err(Error::NotReady {
            step: checkpoint.step,
            state: state.as_str(),
            reason: checkpoint
                .failure
                .clone()
                .unwrap_or_else(|| "it can't be read in that state".to_owned()),
        }),
    }
}
