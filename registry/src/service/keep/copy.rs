//! Frames from one store to another under the ids that they have. No frame arrives that was not decoded and hashed to its
//! chunk on the way.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fineline_format::{Digest, frame};
use futures::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use super::{BadFrame, Copied, KeepError, KeepResult, Progress};
use crate::store::{Store, StoreError};

/// Frames on their way at once: 256 MiB at most with what they hold.
const AT_ONCE: usize = 8;

const TELL_EVERY: Duration = Duration::from_secs(5);

/// A frame that is to be copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) chunk: Digest,
    pub(super) size_bytes: u64,
    pub(super) id: Uuid,
    pub(super) stored_bytes: u64,
}

/// What is believed of a frame that is there already, and of one that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrived {
    /// One of the right size is the right one: ids are never used twice.
    BySize,
    /// It is read back, decoded and hashed.
    ByReading,
}

enum One {
    Copied,
    Held,
    Bad(String),
}

/// Copies what is not there, but for `done`, to which all that arrived is added. What can't be copied for what it is, is
/// named, and the rest goes on.
///
/// # Errors
/// When one of the stores fails.
pub(super) async fn copy(
    from: &Store,
    to: &Store,
    frames: &[Frame],
    arrived: Arrived,
    done: &mut HashSet<Uuid>,
    progress: Progress<'_>,
) -> KeepResult<Copied> {
    let mut copied = Copied::default();
    let waiting: Vec<Frame> = frames
        .iter()
        .filter(|frame| !done.contains(&frame.id))
        .copied()
        .collect();
    let (n_all, mut n_told, mut told) = (waiting.len(), 0, Instant::now());
    let mut copies = stream::iter(waiting)
        .map(|frame| async move { Ok::<_, KeepError>((frame, copy_one(from, to, frame, arrived).await?)) })
        .buffer_unordered(AT_ONCE);
    while let Some((frame, one)) = copies.try_next().await? {
        match one {
            One::Copied => {
                copied.n_copied += 1;
                copied.copied_bytes += frame.stored_bytes;
                fail_point!("keep.frame_copied");
            }
            One::Held => {
                copied.n_held += 1;
                copied.held_bytes += frame.stored_bytes;
            }
            One::Bad(message) => {
                copied.bad_frames.push(BadFrame {
                    chunk: frame.chunk,
                    frame: frame.id,
                    message,
                });
                continue;
            }
        }
        done.insert(frame.id);
        n_told += 1;
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            progress(&format!(
                "{n_told} of {n_all} frames are there, {} bytes were copied",
                copied.copied_bytes
            ));
        }
    }
    copied.bad_frames.sort_by_key(|bad| bad.chunk);
    Ok(copied)
}

async fn copy_one(from: &Store, to: &Store, frame: Frame, arrived: Arrived) -> KeepResult<One> {
    if to.frame_size(frame.id).await? == Some(frame.stored_bytes)
        && (arrived == Arrived::BySize || read(to, frame).await?.is_ok())
    {
        return Ok(One::Held);
    }
    let bytes = match read(from, frame).await? {
        Ok(bytes) => bytes,
        Err(message) => return Ok(One::Bad(message)),
    };
    to.check_room(bytes.len() as u64)?;
    to.put_frame(frame.id, bytes).await?;
    if arrived == Arrived::ByReading
        && let Err(message) = read(to, frame).await?
    {
        return Err(KeepError::Other(format!("what was put does not come back: {message}")));
    }
    Ok(One::Copied)
}

/// A frame that holds its chunk, or what is wrong with it.
async fn read(store: &Store, frame: Frame) -> KeepResult<Result<Bytes, String>> {
    let Frame {
        chunk,
        size_bytes,
        id,
        stored_bytes,
    } = frame;
    let bytes = match store.get_frame(id).await {
        Ok(bytes) => bytes,
        Err(StoreError::Missing(_)) => {
            return Ok(Err(format!(
                "the object of frame {id} (chunk {chunk}) is missing from the store"
            )));
        }
        Err(error) => return Err(error.into()),
    };
    let found = bytes.len();
    if found as u64 != stored_bytes {
        return Ok(Err(format!(
            "the object of frame {id} (chunk {chunk}) has {found} bytes, {stored_bytes} were put"
        )));
    }
    let body = bytes.clone();
    let decode = move || frame::decode(&body).map(|raw| (raw.len() as u64, Digest::of(&raw)));
    Ok(match tokio::task::spawn_blocking(decode).await? {
        Ok((size, digest)) if size == size_bytes && digest == chunk => Ok(bytes),
        Ok((size, digest)) => Err(format!("frame {id} of chunk {chunk} holds {size} bytes of {digest}")),
        Err(error) => Err(format!("frame {id} of chunk {chunk}: {error}")),
    })
}
