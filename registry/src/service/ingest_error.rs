//! Why a file or a checkpoint of a source does not come in, and what that means for the next try.

use std::time::Duration;

use crate::error::ApiError;
use crate::source::SourceError;

/// Why a file or a checkpoint does not come in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IngestError {
    /// The place can't be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The registry can't keep it.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Something is missing that may still come.
    #[error("{0}")]
    Waiting(String),
    /// What was read is not what it should be.
    #[error("{0}")]
    Wrong(String),
    /// It goes on at the next look.
    #[error("other sources have their turn, then it goes on")]
    Later,
    /// The source is another server's by now, or paused, or removed, or its run was deleted: nothing more is done.
    #[error("the source is not looked at here any more")]
    Lost,
}

impl IngestError {
    /// Whether it may go well a moment later although nobody changes the source.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Source(error) => error.is_passing(),
            Self::Waiting(_) | Self::Api(_) | Self::Later => true,
            Self::Wrong(_) | Self::Lost => false,
        }
    }

    /// For how many milliseconds the place wants to be left alone.
    pub(crate) fn asked_ms(&self) -> i64 {
        match self {
            Self::Source(error) => in_ms(error.asked()),
            _ => 0,
        }
    }
}

impl From<sea_orm::DbErr> for IngestError {
    fn from(error: sea_orm::DbErr) -> Self {
        Self::Api(error.into())
    }
}

/// A time as rows have it.
pub(crate) fn in_ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2)
}
