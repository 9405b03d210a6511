//! What a folder's `trainer_state.json` says of its step: tokens and loss, where the caller of a push says neither.
//!
//! It never makes a push fail: what can't be read is told in a sentence.

use fineline_format::trainer_state::{MAX_BYTES, PATH, TrainerState, parse};

use crate::folder::LocalFile;

/// Reads the file when the folder has one; else, or when it can't be read, nothing and perhaps a sentence.
pub(crate) fn read(files: &[LocalFile]) -> (TrainerState, Option<String>) {
    let Some(local) = files.iter().find(|file| file.path == PATH) else {
        return (TrainerState::default(), None);
    };
    let refused = |why: String| (TrainerState::default(), Some(format!("`{PATH}` is not used: {why}")));
    if local.size_bytes > MAX_BYTES {
        return refused(format!("it has {} bytes", local.size_bytes));
    }
    match std::fs::read(&local.location) {
        Err(error) => refused(error.to_string()),
        Ok(json) => parse(&json).map_or_else(refused, |state| (state, None)),
    }
}
