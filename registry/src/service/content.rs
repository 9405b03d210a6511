//! Stored content: reading files by their recipe, and keeping what the server is given whole (suites, sample logs).
//!
//! **Invariant:** no byte leaves here whose chunk was not decoded and hashed to its digest just before.

use std::ops::Range;

use bytes::Bytes;
use fineline_api::ChunkRef;
use fineline_api::error::ErrorCode;
use fineline_format::{Digest, Element, Hasher, cdc_cuts, frame};
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use sea_orm::DbErr;

use crate::app::App;
use crate::db;
use crate::db::file::FileRow;
use crate::error::{ApiError, ApiResult};
use crate::service::chunk;
use crate::store::StoreError;

/// Chunks of a file that are fetched ahead of the reader.
const READ_AHEAD: usize = 3;

/// The most bytes of content that is kept or read whole.
pub(crate) const MAX_WHOLE_BYTES: u64 = 256 << 20;

/// Why stored bytes can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// What a recipe names is gone from the store or not what it was; `fsck --read-data` finds it too.
    #[error("{0}")]
    Damaged(String),
    /// Database or store do not answer now.
    #[error("{0}")]
    Unavailable(String),
}

impl From<DbErr> for ReadError {
    fn from(error: DbErr) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Missing(_) => Self::Damaged(error.to_string()),
            StoreError::Full(_) | StoreError::Other(_) => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<tokio::task::JoinError> for ReadError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged(_) => Self::internal(error),
            ReadError::Unavailable(_) => chunk::unavailable(error),
        }
    }
}

/// A chunk's bytes, decoded and hashed.
///
/// # Errors
/// [`ReadError::Damaged`] when the chunk is not held or what is stored is not its bytes.
pub(crate) async fn read_chunk(app: &App, chunk: ChunkRef) -> Result<Bytes, ReadError> {
    let digest = chunk.digest;
    let row = db::frame::find_chunk(app.db.reader(), &digest).await?;
    let row = row.ok_or_else(|| ReadError::Damaged(format!("chunk {digest} is referenced and not held")))?;
    let frame_id = row.frame_id;
    let body = app.store.get_frame(frame_id).await?;
    let decode = move || frame::decode(&body).map(|raw| (Digest::of(&raw), raw));
    let (found, raw) = tokio::task::spawn_blocking(decode)
        .await?
        .map_err(|error| ReadError::Damaged(format!("frame {frame_id} of chunk {digest}: {error}")))?;
    if found != digest || raw.len() as u64 != chunk.size_bytes {
        let n = raw.len();
        return Err(ReadError::Damaged(format!(
            "frame {frame_id} of chunk {digest} ({} bytes) holds {n} bytes of {found}",
            chunk.size_bytes
        )));
    }
    Ok(raw.into())
}

/// The bytes of a file in `range`, in memory of a few chunks. A chunk that is damaged ends the stream with an error.
pub(crate) fn read_range(
    app: &App,
    chunks: &[ChunkRef],
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, ReadError>> + use<> {
    let mut at = 0;
    let mut parts = Vec::new();
    for chunk in chunks {
        let (begin, end) = (range.start.max(at), range.end.min(at + chunk.size_bytes));
        if begin < end {
            parts.push((*chunk, (begin - at) as usize..(end - at) as usize));
        }
        at += chunk.size_bytes;
    }
    let app = app.clone();
    let fetch = move |(chunk, part): (ChunkRef, Range<usize>)| {
        let app = app.clone();
        async move { Ok(read_chunk(&app, chunk).await?.slice(part)) }
    };
    stream::iter(parts).map(fetch).buffered(READ_AHEAD)
}

/// The bytes of a small file at once; the caller has bounded its size.
pub(crate) async fn read_whole(app: &App, file: &FileRow) -> Result<Bytes, ReadError> {
    let parts = read_range(app, &file.chunks, 0..file.size_bytes);
    let parts: Vec<Bytes> = parts.try_collect().await?;
    Ok(parts.concat().into())
}

/// Reads a whole file back from the store and hashes it.
pub(crate) async fn hash_stored(app: &App, chunks: &[ChunkRef]) -> Result<Digest, ReadError> {
    let size: u64 = chunks.iter().map(|chunk| chunk.size_bytes).sum();
    let stream = read_range(app, chunks, 0..size);
    let hash = |mut hasher: Hasher, bytes: Bytes| async move {
        let feed = move || {
            hasher.update(&bytes);
            hasher
        };
        Ok(tokio::task::spawn_blocking(feed).await?)
    };
    Ok(stream.try_fold(Hasher::new(), hash).await?.finish())
}

/// Keeps content that the server was given whole; nobody possesses its digests. What is kept already stays.
///
/// # Errors
/// 413 above 256 MiB, 507 when the store is full.
pub(crate) async fn put_content(app: &App, bytes: Bytes) -> ApiResult<Digest> {
    if bytes.len() as u64 > MAX_WHOLE_BYTES {
        return Err(ApiError::new(
            ErrorCode::TooLarge,
            format!("{} bytes are more than 256 MiB", bytes.len()),
        ));
    }
    let whole = bytes.clone();
    let split = move || {
        let digest = Digest::of(&whole);
        let mut begin = 0;
        let frames = cdc_cuts(&whole).into_iter().map(|end| {
            let raw = &whole[begin..end];
            begin = end;
            let chunk = ChunkRef {
                digest: Digest::of(raw),
                size_bytes: raw.len() as u64,
            };
            (chunk, Bytes::from(frame::encode(raw, Element::Unknown)))
        });
        (digest, frames.collect::<Vec<_>>())
    };
    let (digest, frames) = tokio::task::spawn_blocking(split).await.map_err(ApiError::internal)?;
    let mut chunks = Vec::with_capacity(frames.len());
    for (chunk, body) in frames {
        chunk::keep(app, chunk, body).await?;
        chunks.push(chunk);
    }
    if hash_stored(app, &chunks).await? != digest {
        return Err(ApiError::internal(format!(
            "content {digest} reads back with another digest"
        )));
    }
    let file = FileRow {
        digest,
        size_bytes: bytes.len() as u64,
        chunks,
        tensors: None,
    };
    let txn = db::write_txn(&app.db).await?;
    db::file::insert(&txn, &file).await?;
    txn.commit().await?;
    Ok(digest)
}

/// Content that was kept by [`put_content`], or a small file.
///
/// # Errors
/// 500 when it is not there or damaged.
pub(crate) async fn read_content(app: &App, digest: &Digest) -> ApiResult<Bytes> {
    let file = db::file::find(app.db.reader(), digest).await?;
    let file = file.ok_or_else(|| ApiError::internal(format!("content {digest} is referenced and not held")))?;
    if file.size_bytes > MAX_WHOLE_BYTES {
        return Err(ApiError::internal(format!(
            "content {digest} is too large to be read whole"
        )));
    }
    Ok(read_whole(app, &file).await?)
}
