//! Keeping and moving: a backup is one moment of the database with every frame that it names, beside a running server;
//! a restore puts it into an empty place; a move is both at once, and the old place serves no more.
//!
//! All three are the same parts: `snapshot` (rows between a database and objects), `copy` (frames from store to store, each
//! decoded and hashed on the way), `hold` (nothing is deleted meanwhile).

pub(crate) mod backup;
mod copy;
mod hold;
pub(crate) mod place;
pub(crate) mod relocate;
pub(crate) mod restore;
mod snapshot;

use fineline_format::Digest;
use sea_orm::DbErr;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::StoreError;

/// Why something can't be kept, restored or moved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    /// Whoever asked can mend it.
    #[error("{message}")]
    Refused { message: String, hint: String },
    /// The rows of a backup are not what was written.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// The database failed.
    #[error("the database failed: {0}")]
    Db(#[from] DbErr),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl KeepError {
    fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused {
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// Text that should be ours and can't be read.
    #[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` asks for")]
    fn unreadable(error: serde_json::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<std::io::Error> for KeepError {
    fn from(error: std::io::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<tokio::task::JoinError> for KeepError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Other(error.to_string())
    }
}

type KeepResult<T> = Result<T, KeepError>;

/// Told a sentence now and then.
pub(crate) type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// A frame that does not hold its chunk, or that is not there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BadFrame {
    pub(crate) chunk: Digest,
    pub(crate) frame: Uuid,
    /// A sentence.
    pub(crate) message: String,
}

/// Frames in numbers: those that were copied, and those that were there already.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Copied {
    pub(crate) n_copied: u64,
    pub(crate) copied_bytes: u64,
    pub(crate) n_held: u64,
    pub(crate) held_bytes: u64,
    /// What could not be copied for what it is.
    pub(crate) bad_frames: Vec<BadFrame>,
}
