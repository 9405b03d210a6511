//! Stored content: reading files by their recipe, and keeping what the server is given whole (suites, sample logs).
//!
//! **Invariant:** no byte leaves [`read_range`], nor counts as a file's, that was not decoded and hashed just before. Only a
//! frame as it is stored ([`stored_frame`]) goes to whoever hashes it.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use fineline_api::ChunkRef;
use fineline_api::error::ErrorCode;
use fineline_format::frame::Decoder;
use fineline_format::{Digest, Element, FrameError, Hasher, MAX_CHUNK_BYTES, cdc_cuts, frame};
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use metrics::counter;
use sea_orm::{DatabaseTransaction, DbErr};

use crate::app::App;
use crate::db;
use crate::db::file::FileRow;
use crate::db::frame::ChunkRow;
use crate::error::{ApiError, ApiResult};
use crate::service::chunk;
use crate::store::StoreError;

/// Chunks of a file that are fetched ahead of the reader.
const READ_AHEAD: usize = 2;

/// The most bytes of content that is kept or read whole.
pub(crate) const MAX_WHOLE_BYTES: u64 = 256 << 20;

/// Why stored bytes can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// What a recipe names is gone from the store or not what it was; `scrub` finds it too.
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
        chunk::count_store_error(&error);
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

/// A store that does not answer, where what it holds was asked for.
pub(crate) fn store_down(error: StoreError) -> ApiError {
    ReadError::from(error).into()
}

/// A chunk as it is stored and as it is.
pub(crate) struct Chunk {
    pub(crate) frame: Bytes,
    pub(crate) raw: Bytes,
}

/// A chunk's frame, decoded and hashed. One that does not hold the chunk is written down as damaged, so that the chunk
/// counts as missing from then on and the next push that has it sends it again.
///
/// # Errors
/// [`ReadError::Damaged`] when the chunk is not held or what is stored is not its bytes.
pub(crate) async fn read_frame(app: &App, digest: Digest) -> Result<Chunk, ReadError> {
    let row = find(app, digest).await?;
    let read = decode(app, &row).await;
    note_damage(app, &row, read.as_ref().err()).await?;
    read
}

/// A chunk's row and its frame as it is stored, neither decoded nor hashed. One whose object is gone is written down as
/// damaged.
///
/// # Errors
/// [`ReadError::Damaged`] when the chunk is not held or its object is gone.
pub(crate) async fn stored_frame(app: &App, digest: Digest) -> Result<(ChunkRow, Bytes), ReadError> {
    let row = find(app, digest).await?;
    let frame = app.store.get_frame(row.frame_id).await.map_err(ReadError::from);
    note_damage(app, &row, frame.as_ref().err()).await?;
    Ok((row, frame?))
}

async fn find(app: &App, digest: Digest) -> Result<ChunkRow, ReadError> {
    let row = db::frame::find_chunk(app.db.reader(), &digest).await?;
    row.ok_or_else(|| ReadError::Damaged(format!("chunk {digest} is referenced and not held")))
}

async fn note_damage(app: &App, row: &ChunkRow, error: Option<&ReadError>) -> Result<(), DbErr> {
    let Some(ReadError::Damaged(what)) = error else {
        return Ok(());
    };
    if row.damaged {
        return Ok(());
    }
    tracing::error!(digest = %row.digest, frame = %row.frame_id, what, "a stored chunk is damaged");
    set_damaged(app, row, true).await
}

/// Writes down whether a frame holds its chunk.
pub(crate) async fn set_damaged(app: &App, chunk: &ChunkRow, damaged: bool) -> Result<(), DbErr> {
    let txn = db::write_txn(&app.db).await?;
    db::frame::set_damaged(&txn, &chunk.digest, chunk.frame_id, damaged).await?;
    txn.commit().await
}

/// Reads and decodes the frame that a chunk's row names.
pub(crate) async fn decode(app: &App, row: &ChunkRow) -> Result<Chunk, ReadError> {
    let (digest, frame_id) = (row.digest, row.frame_id);
    let frame = app.store.get_frame(frame_id).await?;
    let (body, mut raw) = (frame.clone(), app.store.buffers().empty(chunk_capacity(row)));
    let decode = move |decoder: &mut Decoder| {
        decoder.decode(&body, |piece| raw.extend_from_slice(piece))?;
        Ok::<_, FrameError>((Digest::of(&raw), raw))
    };
    let decoded = app.decoders.run(decode).await?;
    let (found, raw) = decoded.map_err(|error| undecodable(row, &error))?;
    if found != digest {
        return Err(ReadError::Damaged(format!(
            "frame {frame_id} of chunk {digest} holds {} bytes of {found}",
            raw.len()
        )));
    }
    count_verified(raw.len() as u64);
    let raw = Bytes::from_owner(raw);
    Ok(Chunk { frame, raw })
}

fn count_verified(size_bytes: u64) {
    counter!("fineline_chunks_verified_total").increment(1);
    counter!("fineline_chunk_verified_bytes_total").increment(size_bytes);
}

fn undecodable(row: &ChunkRow, error: &FrameError) -> ReadError {
    ReadError::Damaged(format!("frame {} of chunk {}: {error}", row.frame_id, row.digest))
}

/// What a row says of its chunk's size, within what a chunk can have.
fn chunk_capacity(row: &ChunkRow) -> usize {
    usize::try_from(row.size_bytes).map_or(MAX_CHUNK_BYTES, |size| size.min(MAX_CHUNK_BYTES))
}

/// A chunk's bytes, decoded and hashed.
///
/// # Errors
/// [`ReadError::Damaged`] when the chunk is not held, what is stored is not its bytes, or the recipe lies about its size.
pub(crate) async fn read_chunk(app: &App, chunk: ChunkRef) -> Result<Bytes, ReadError> {
    let raw = read_frame(app, chunk.digest).await?.raw;
    if raw.len() as u64 == chunk.size_bytes {
        return Ok(raw);
    }
    Err(other_size(chunk, raw.len() as u64))
}

fn other_size(chunk: ChunkRef, n_bytes: u64) -> ReadError {
    let (digest, said) = (chunk.digest, chunk.size_bytes);
    ReadError::Damaged(format!("chunk {digest} has {n_bytes} bytes, a recipe says {said}"))
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
    check_recipe(file)?;
    let parts = read_range(app, &file.chunks, 0..file.size_bytes);
    let parts: Vec<Bytes> = parts.try_collect().await?;
    Ok(parts.concat().into())
}

/// Reads a whole file back from the store and hashes it, as a whole: its chunks' own digests add nothing to that, and only
/// tell where the damage is ([`find_damage`]) when it is not what it should be.
///
/// # Errors
/// [`ReadError::Damaged`] for the chunk that can't be read or decoded, which is written down.
pub(crate) async fn hash_stored(app: &App, chunks: &[ChunkRef]) -> Result<Digest, ReadError> {
    let reader = app.clone();
    let fetch = move |chunk: ChunkRef| {
        let app = reader.clone();
        // On its own, so that it goes on while the one before is hashed.
        let fetched = tokio::spawn(async move { stored_frame(&app, chunk.digest).await });
        async move {
            let (row, frame) = fetched.await??;
            Ok::<_, ReadError>((row, chunk, frame))
        }
    };
    let mut frames = stream::iter(chunks.to_vec()).map(fetch).buffered(READ_AHEAD);
    let mut hasher = Hasher::new();
    while let Some((row, chunk, frame)) = frames.try_next().await? {
        let feed = move |decoder: &mut Decoder| {
            let size_bytes = decoder.decode(&frame, |piece| hasher.update(piece));
            (hasher, size_bytes)
        };
        let (fed, size_bytes) = app.decoders.run(feed).await?;
        hasher = fed;
        match size_bytes {
            Ok(size_bytes) if size_bytes == chunk.size_bytes => count_verified(size_bytes),
            Ok(size_bytes) => return Err(other_size(chunk, size_bytes)),
            Err(error) => {
                let error = undecodable(&row, &error);
                note_damage(app, &row, Some(&error)).await?;
                return Err(error);
            }
        }
    }
    Ok(hasher.finish())
}

/// Looks for a chunk that is not what its digest says, in a file that read back as another, and writes it down.
///
/// # Errors
/// [`ReadError::Damaged`] for the first that is found; none when the chunks are right and it is the recipe that is not.
pub(crate) async fn find_damage(app: &App, chunks: &[ChunkRef]) -> Result<(), ReadError> {
    for chunk in chunks {
        read_chunk(app, *chunk).await?;
    }
    Ok(())
}

/// Stores content that the server was given whole; nobody possesses its digests. It is collected unless it is adopted
/// by what needs it, in the transaction that says so.
///
/// # Errors
/// 413 above 256 MiB, 507 when the store is full.
pub(crate) async fn put_content(app: &App, bytes: Bytes) -> ApiResult<FileRow> {
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
    Ok(FileRow {
        digest,
        size_bytes: bytes.len() as u64,
        chunks,
        tensors: None,
    })
}

/// Keeps a file for what the same transaction writes: a suite, or a sample log.
///
/// # Errors
/// 503 when a chunk of it was collected since it was stored.
pub(crate) async fn adopt(txn: &DatabaseTransaction, file: &FileRow) -> ApiResult<()> {
    let kept = whole_row(txn, file).await?;
    let Some(kept) = kept else {
        return Err(chunk::unavailable(format!(
            "content {} was collected before it was needed",
            file.digest
        )));
    };
    let chunks: Vec<Digest> = kept.chunks.iter().map(|chunk| chunk.digest).collect();
    Ok(db::kept::insert(txn, &file.digest, &chunks).await?)
}

/// Makes sure that the row of a file names chunks that sound, live frames hold: its own where it has one, else those of
/// `file`. `None` when neither does.
pub(crate) async fn whole_row(txn: &DatabaseTransaction, file: &FileRow) -> ApiResult<Option<FileRow>> {
    if let Some(row) = db::file::find(txn, &file.digest).await?
        && is_whole(&row, &db::frame::revive_many(txn, &digests(&row)).await?)
    {
        db::file::insert(txn, file).await?;
        return Ok(Some(row));
    }
    if !is_whole(file, &db::frame::revive_many(txn, &digests(file)).await?) {
        return Ok(None);
    }
    db::file::replace(txn, file).await?;
    // Whoever holds the file holds it in this cut from now on.
    db::possession::share(txn, &file.digest, &digests(file)).await?;
    if db::kept::holds(txn, &file.digest).await? {
        db::kept::insert(txn, &file.digest, &digests(file)).await?;
    }
    Ok(Some(file.clone()))
}

/// A file whose recipe does not make its size is not read at all: what came of it would be a part.
///
/// # Errors
/// [`ReadError::Damaged`] for such a one.
pub(crate) fn check_recipe(file: &FileRow) -> Result<(), ReadError> {
    let sum: u64 = file.chunks.iter().map(|chunk| chunk.size_bytes).sum();
    if sum == file.size_bytes {
        return Ok(());
    }
    let (digest, size) = (file.digest, file.size_bytes);
    Err(ReadError::Damaged(format!(
        "the recipe of file {digest} makes {sum} bytes, the file has {size}"
    )))
}

fn digests(file: &FileRow) -> Vec<Digest> {
    file.chunks.iter().map(|chunk| chunk.digest).collect()
}

/// Whether a file's recipe adds up and every chunk of it is among those that are stored, with its size.
pub(crate) fn is_whole(file: &FileRow, stored: &HashMap<Digest, u64>) -> bool {
    let is_stored = |chunk: &ChunkRef| stored.get(&chunk.digest) == Some(&chunk.size_bytes);
    check_recipe(file).is_ok() && file.chunks.iter().all(is_stored)
}

/// Whether everything that a file needs is stored, as far as is known, and nothing of it is about to go.
pub(crate) async fn is_sound(app: &App, file: &FileRow) -> ApiResult<bool> {
    let (conn, digests) = (app.db.reader(), digests(file));
    let stored = db::frame::stored(conn, &digests).await?;
    Ok(is_whole(file, &stored) && !db::frame::any_condemned(conn, &digests).await?)
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
