//! Stored content: reading files by their recipe, and keeping what the server is given whole (suites, sample logs).
//!
//! **Invariant:** no byte leaves here whose chunk was not decoded and hashed to its digest just before.

use std::io;
use std::ops::Range;
use std::sync::Mutex;

use bytes::Bytes;
use fineline_api::ChunkRef;
use fineline_api::error::ErrorCode;
use fineline_format::{Digest, Element, Hasher, ReadAt, cdc_cuts, frame};
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use tokio::runtime::Handle;

use crate::app::App;
use crate::db;
use crate::db::file::FileRow;
use crate::error::{ApiError, ApiResult};
use crate::service::chunk;

/// Chunks of a file that are fetched ahead of the reader.
const READ_AHEAD: usize = 3;

/// The most bytes of content that is kept or read whole.
pub(crate) const MAX_WHOLE_BYTES: u64 = 256 << 20;

/// A chunk's bytes, decoded and hashed.
///
/// # Errors
/// 500 when the chunk is not held, or what is stored is damaged: the log says which frame.
pub(crate) async fn read_chunk(app: &App, digest: Digest) -> ApiResult<Bytes> {
    let row = db::frame::find_chunk(app.db.reader(), &digest).await?;
    let row = row.ok_or_else(|| ApiError::internal(format!("chunk {digest} is referenced and not held")))?;
    let body = app.store.get_frame(row.frame_id).await.map_err(chunk::store_error)?;
    let decode = move || frame::decode(&body).map(|raw| (Digest::of(&raw), raw));
    let decoded = tokio::task::spawn_blocking(decode).await.map_err(ApiError::internal)?;
    match decoded {
        Ok((found, raw)) if found == digest => Ok(raw.into()),
        Ok((found, _)) => {
            let frame = row.frame_id;
            Err(ApiError::internal(format!(
                "frame {frame} of chunk {digest} holds the bytes of {found}"
            )))
        }
        Err(error) => Err(ApiError::internal(format!(
            "frame {} of chunk {digest}: {error}",
            row.frame_id
        ))),
    }
}

/// The bytes of a file in `range`, in memory of a few chunks. A chunk that is damaged ends the stream with an error.
pub(crate) fn read_range(
    app: &App,
    chunks: &[ChunkRef],
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, io::Error>> + use<> {
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
        async move {
            let raw = read_chunk(&app, chunk.digest).await.map_err(io::Error::other_display)?;
            if raw.len() as u64 == chunk.size_bytes {
                Ok(raw.slice(part))
            } else {
                Err(io::Error::other(format!(
                    "chunk {} has another size than its recipe says",
                    chunk.digest
                )))
            }
        }
    };
    stream::iter(parts).map(fetch).buffered(READ_AHEAD)
}

/// An [`io::Error`] of what can be shown.
trait OtherDisplay {
    fn other_display(error: impl std::fmt::Display) -> Self;
}

impl OtherDisplay for io::Error {
    fn other_display(error: impl std::fmt::Display) -> Self {
        Self::other(error.to_string())
    }
}

/// Reads a whole file back from the store and hashes it.
///
/// # Errors
/// As [`read_chunk`].
pub(crate) async fn hash_stored(app: &App, chunks: &[ChunkRef]) -> ApiResult<Digest> {
    let size: u64 = chunks.iter().map(|chunk| chunk.size_bytes).sum();
    let stream = read_range(app, chunks, 0..size);
    let hash = |mut hasher: Hasher, bytes: Bytes| async move {
        let feed = move || {
            hasher.update(&bytes);
            hasher
        };
        tokio::task::spawn_blocking(feed).await.map_err(io::Error::other)
    };
    let hasher = stream.try_fold(Hasher::new(), hash).await.map_err(ApiError::internal)?;
    Ok(hasher.finish())
}

/// Random access to a stored file for the readers of `fineline_format`, to be used off the async threads.
#[derive(Debug)]
pub(crate) struct StoredFile {
    app: App,
    handle: Handle,
    chunks: Vec<(u64, ChunkRef)>,
    size_bytes: u64,
    last: Mutex<Option<(Digest, Bytes)>>,
}

impl StoredFile {
    pub(crate) fn new(app: &App, chunks: &[ChunkRef]) -> Self {
        let mut at = 0;
        let place = |chunk: &ChunkRef| {
            let offset = at;
            at += chunk.size_bytes;
            (offset, *chunk)
        };
        let chunks = chunks.iter().map(place).collect();
        Self {
            app: app.clone(),
            handle: Handle::current(),
            chunks,
            size_bytes: at,
            last: Mutex::new(None),
        }
    }

    /// The digest of the chunk that covers exactly these bytes.
    pub(crate) fn chunk_at(&self, offset: u64, size_bytes: u64) -> Option<Digest> {
        let at = self.chunks.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        let (_, chunk) = self.chunks.get(at)?;
        (chunk.size_bytes == size_bytes).then_some(chunk.digest)
    }

    fn chunk(&self, digest: Digest) -> io::Result<Bytes> {
        let mut last = self.last.lock().map_err(|_| io::Error::other("a reader panicked"))?;
        if let Some((held, raw)) = &*last
            && *held == digest
        {
            return Ok(raw.clone());
        }
        let raw = self
            .handle
            .block_on(read_chunk(&self.app, digest))
            .map_err(io::Error::other_display)?;
        *last = Some((digest, raw.clone()));
        Ok(raw)
    }
}

impl ReadAt for StoredFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        let mut at = self
            .chunks
            .partition_point(|(begin, chunk)| begin + chunk.size_bytes <= offset);
        while filled < buf.len() {
            let (begin, chunk) = self.chunks.get(at).ok_or(io::ErrorKind::UnexpectedEof)?;
            let raw = self.chunk(chunk.digest)?;
            let from = usize::try_from(offset + filled as u64 - begin).map_err(io::Error::other)?;
            let part = raw
                .get(from..)
                .filter(|part| !part.is_empty())
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            let n = part.len().min(buf.len() - filled);
            buf[filled..filled + n].copy_from_slice(&part[..n]);
            filled += n;
            at += 1;
        }
        Ok(())
    }
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
        if db::frame::find_chunk(app.db.reader(), &chunk.digest).await?.is_none() {
            chunk::store(app, chunk.digest, chunk.size_bytes, body).await?;
        }
        chunks.push(chunk);
    }
    if hash_stored(app, &chunks).await? != digest {
        return Err(ApiError::internal(format!(
            "content {digest} reads back with another digest"
        )));
    }
    let txn = db::write_txn(&app.db).await?;
    let file = FileRow {
        digest,
        size_bytes: bytes.len() as u64,
        chunks,
        tensors: None,
    };
    db::file::insert(&txn, &file).await?;
    txn.commit().await?;
    Ok(digest)
}

/// Content that was kept by [`put_content`].
///
/// # Errors
/// 500 when it is not there or damaged.
pub(crate) async fn read_content(app: &App, digest: &Digest) -> ApiResult<Bytes> {
    let file = db::file::find(app.db.reader(), digest).await?;
    let file = file.ok_or_else(|| ApiError::internal(format!("content {digest} is referenced and not held")))?;
    let parts: Vec<Bytes> = read_range(app, &file.chunks, 0..file.size_bytes)
        .try_collect()
        .await
        .map_err(ApiError::internal)?;
    Ok(parts.concat().into())
}
