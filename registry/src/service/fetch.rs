//! Reading a file of a source into the store: in ranges, a few ahead of what is cut, hashed and kept. Nothing of it is on the
//! disk but in the store.
//!
//! **Invariant:** what is written down as read was kept and is possessed by the run, so a fetch that was cut off at any byte
//! goes on behind it; a file's digest is of all of its bytes in order, whether they were read now or come from the store.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use fineline_api::ChunkRef;
use fineline_format::{Digest, Element, FormatError, Hasher, Segment, segments, settled_cdc_cuts};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use metrics::counter;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::source_file::FileRead;
use crate::error::{ApiError, ApiResult};
use crate::service::ingest_error::IngestError;
use crate::service::{chunk, content, possession};
use crate::source::{Object, Origin, RemoteFile, SourceError};

/// What is read at once: the largest chunk.
const WINDOW_BYTES: u64 = 16 << 20;
/// The same of what is cut by its content.
const CDC_WINDOW_BYTES: u64 = 8 << 20;
/// Windows that are read ahead, and chunks that are on their way into the store: with them the memory of a fetch is bounded.
const READ_AHEAD: usize = 3;
const MAX_PUTS: usize = 3;
/// How much is read between two times that it is written down how far the fetch is: what a crash reads again at the most.
const NOTE_EVERY_BYTES: u64 = 64 << 20;

/// Whose file is read, and into which push session.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    pub(crate) source_id: i64,
    pub(crate) run_id: i64,
    pub(crate) session: Uuid,
    /// Where in the source the checkpoint lies.
    pub(crate) place: String,
    /// What the source acts as.
    pub(crate) caller: Caller,
}

impl Destination {
    /// What a file is remembered by: the same for the same path of any commit.
    fn key(&self, object: &Object) -> String {
        format!("{}/{}", self.place, object.path)
    }
}

/// A file of a source, kept and possessed by the run: at once where it is known and held, else read.
///
/// # Errors
/// [`IngestError::Wrong`] when its bytes are not those of the digest that the place tells, or no container of its name.
pub(crate) async fn fetch(
    app: &App,
    to: &Destination,
    origin: &Arc<Origin>,
    object: &Object,
) -> Result<FileRead, IngestError> {
    let before = db::source_file::find(app.db.reader(), to.source_id, &to.key(object)).await?;
    let before = before.filter(|read| read.version == object.version && read.size_bytes == object.size_bytes);
    if let Some(held) = find_held(app, to, object, before.as_ref()).await? {
        counter!("fineline_source_linked_bytes_total").increment(object.size_bytes);
        note(app, to, &held).await?;
        return Ok(held);
    }
    let mut read = match before {
        Some(before) if holds(app, &to.caller, &before.chunks).await? => before,
        _ => FileRead {
            key: to.key(object),
            version: object.version.clone(),
            size_bytes: object.size_bytes,
            chunks: Vec::new(),
            digest: None,
        },
    };
    read.digest = None;
    let digest = read_on(app, to, origin, object, &mut read).await?;
    let (path, n_bytes, size_bytes) = (&object.path, size_of(&read.chunks), object.size_bytes);
    let wrong = match object.sha256 {
        _ if n_bytes != size_bytes => Some(format!(
            "{n_bytes} bytes of file `{path}` were read of its {size_bytes}"
        )),
        Some(said) if said != digest => Some(format!(
            "file `{path}` was read as `{digest}`, the source says `{said}`"
        )),
        _ => None,
    };
    if let Some(wrong) = wrong {
        // Not read on from here: which of its bytes are wrong can't be told.
        read.chunks.clear();
        note(app, to, &read).await?;
        return Err(IngestError::Wrong(format!("{wrong}: it is read again")));
    }
    read.digest = Some(digest);
    note(app, to, &read).await?;
    fail_point!("ingest.fetched");
    Ok(read)
}

/// The file without reading it: by the digest that the place tells, or that it had when it was read, where the source may
/// name all of its chunks.
async fn find_held(
    app: &App,
    to: &Destination,
    object: &Object,
    before: Option<&FileRead>,
) -> Result<Option<FileRead>, IngestError> {
    if let Some(before) = before
        && before.digest.is_some()
        && object.sha256.is_none_or(|said| before.digest == Some(said))
        && holds(app, &to.caller, &before.chunks).await?
    {
        return Ok(Some(before.clone()));
    }
    let Some(digest) = object.sha256 else { return Ok(None) };
    let Some(file) = db::file::find(app.db.reader(), &digest).await? else {
        return Ok(None);
    };
    if file.size_bytes != object.size_bytes || !holds(app, &to.caller, &file.chunks).await? {
        return Ok(None);
    }
    Ok(Some(FileRead {
        key: to.key(object),
        version: object.version.clone(),
        size_bytes: object.size_bytes,
        chunks: file.chunks,
        digest: Some(digest),
    }))
}

/// Whether the source may name all of these chunks; from then on they stay for a grace.
async fn holds(app: &App, caller: &Caller, chunks: &[ChunkRef]) -> ApiResult<bool> {
    let held = possession::name_chunks(app, caller, &digests(chunks)).await?;
    Ok(are_all(chunks, &held))
}

/// The same without making them stay.
pub(crate) async fn may_name(app: &App, caller: &Caller, chunks: &[ChunkRef]) -> ApiResult<bool> {
    let held = possession::held_chunks(app, caller, &digests(chunks)).await?;
    Ok(are_all(chunks, &held))
}

fn digests(chunks: &[ChunkRef]) -> Vec<Digest> {
    chunks.iter().map(|chunk| chunk.digest).collect()
}

fn are_all(chunks: &[ChunkRef], held: &HashMap<Digest, u64>) -> bool {
    chunks
        .iter()
        .all(|chunk| held.get(&chunk.digest) == Some(&chunk.size_bytes))
}

fn size_of(chunks: &[ChunkRef]) -> u64 {
    chunks.iter().map(|chunk| chunk.size_bytes).sum()
}

async fn note(app: &App, to: &Destination, read: &FileRead) -> Result<(), IngestError> {
    let txn = db::write_txn(&app.db).await?;
    db::source_file::put(&txn, to.source_id, read).await?;
    Ok(txn.commit().await?)
}

/// A chunk that is on its way into the store.
struct Put {
    chunk: ChunkRef,
    done: JoinHandle<ApiResult<()>>,
}

/// Reads what is still to be read of a file; gives the digest of all of it.
async fn read_on(
    app: &App,
    to: &Destination,
    origin: &Arc<Origin>,
    object: &Object,
    read: &mut FileRead,
) -> Result<Digest, IngestError> {
    let mut hasher = hash_of(app, &read.chunks).await?;
    let done = size_of(&read.chunks);
    let (windows, whole) = windows_of(origin, object, done).await?;
    let read_window = |window: Window| {
        let (origin, object, whole) = (Arc::clone(origin), object.clone(), whole.clone());
        // On its own, so that it goes on while the one before is cut and kept.
        tokio::spawn(async move {
            let range = window.range.clone();
            let bytes = match whole {
                Some(whole) => whole.slice(range.start as usize..range.end as usize),
                None => origin.read(&object, range).await?,
            };
            Ok::<_, SourceError>((window, bytes))
        })
    };
    let mut windows = stream::iter(windows).map(read_window).buffered(READ_AHEAD);
    let mut rest = Bytes::new();
    let (mut puts, mut noted) = (VecDeque::new(), done);
    let mut at = done;
    while let Some(next) = windows.next().await {
        let (window, bytes) = next.map_err(ApiError::internal)??;
        counter!("fineline_source_read_bytes_total").increment(bytes.len() as u64);
        let cut = tokio::task::spawn_blocking(move || {
            hasher.update(&bytes);
            let (pieces, rest) = window.cut(&rest, bytes);
            (hasher, pieces, rest)
        });
        let (fed, pieces, left) = cut.await.map_err(ApiError::internal)?;
        (hasher, rest) = (fed, left);
        for (chunk, raw, element) in pieces {
            if puts.len() >= MAX_PUTS {
                at += take(&mut puts, read).await?;
            }
            let (app, run_id, session) = (app.clone(), to.run_id, to.session);
            let put = async move { chunk::take_raw(&app, run_id, session, chunk, raw, element).await };
            puts.push_back(Put {
                chunk,
                done: tokio::spawn(put),
            });
        }
        if at - noted >= NOTE_EVERY_BYTES {
            note(app, to, read).await?;
            noted = at;
            fail_point!("ingest.noted");
        }
    }
    while !puts.is_empty() {
        take(&mut puts, read).await?;
    }
    Ok(hasher.finish())
}

/// Waits until the oldest chunk on its way is kept, and writes it to what was read; its bytes.
async fn take(puts: &mut VecDeque<Put>, read: &mut FileRead) -> Result<u64, IngestError> {
    let Some(put) = puts.pop_front() else { return Ok(0) };
    put.done.await.map_err(ApiError::internal)??;
    read.chunks.push(put.chunk);
    Ok(put.chunk.size_bytes)
}

/// A hasher that was fed what the store has of a file.
async fn hash_of(app: &App, chunks: &[ChunkRef]) -> Result<Hasher, IngestError> {
    let size_bytes = size_of(chunks);
    let mut stored = std::pin::pin!(content::read_range(app, chunks, 0..size_bytes));
    let mut hasher = Hasher::new();
    while let Some(bytes) = stored.try_next().await.map_err(ApiError::from)? {
        let feed = tokio::task::spawn_blocking(move || {
            hasher.update(&bytes);
            hasher
        });
        hasher = feed.await.map_err(ApiError::internal)?;
    }
    Ok(hasher)
}

/// What is read at once, and where it is cut.
#[derive(Debug, Clone, PartialEq)]
struct Window {
    range: Range<u64>,
    cuts: Cuts,
}

#[derive(Debug, Clone, PartialEq)]
enum Cuts {
    /// In chunks of these sizes.
    At(Vec<(usize, Element)>),
    /// By the content; whether nothing of it comes behind.
    ByContent { is_last: bool },
}

/// A chunk with its bytes.
type Piece = (ChunkRef, Bytes, Element);

impl Window {
    /// The chunks of what was left over and what was read, and what is left over now.
    fn cut(&self, rest: &Bytes, bytes: Bytes) -> (Vec<Piece>, Bytes) {
        match &self.cuts {
            Cuts::At(sizes) => {
                let mut begin = 0;
                let pieces = sizes.iter().map(|&(size, element)| {
                    let raw = bytes.slice(begin..begin + size);
                    begin += size;
                    piece(raw, element)
                });
                (pieces.collect(), Bytes::new())
            }
            Cuts::ByContent { is_last } => {
                let data = match rest.is_empty() {
                    true => bytes,
                    false => [rest.as_ref(), &bytes].concat().into(),
                };
                let mut begin = 0;
                let pieces = settled_cdc_cuts(&data, *is_last).into_iter().map(|end| {
                    let raw = data.slice(begin..end);
                    begin = end;
                    piece(raw, Element::Unknown)
                });
                let pieces = pieces.collect();
                (pieces, data.slice(begin..))
            }
        }
    }
}

fn piece(raw: Bytes, element: Element) -> Piece {
    let chunk = ChunkRef {
        digest: Digest::of(&raw),
        size_bytes: raw.len() as u64,
    };
    (chunk, raw, element)
}

/// The windows of a file behind what was read, and the file itself where it is so small that it is read whole at once.
async fn windows_of(
    origin: &Arc<Origin>,
    object: &Object,
    done: u64,
) -> Result<(Vec<Window>, Option<Bytes>), IngestError> {
    if object.size_bytes <= WINDOW_BYTES {
        let whole = match object.size_bytes {
            0 => Bytes::new(),
            size => origin.read(object, 0..size).await?,
        };
        let (bytes, path) = (whole.to_vec(), object.path.clone());
        let found = tokio::task::spawn_blocking(move || segments(&bytes, &path));
        let (_, found) = found.await.map_err(ApiError::internal)?.map_err(refused)?;
        return Ok((windows(&found, done), Some(whole)));
    }
    let remote = RemoteFile::new(Arc::clone(origin), object.clone(), Handle::current());
    let path = object.path.clone();
    let found = tokio::task::spawn_blocking(move || segments(&remote, &path));
    let (_, found) = found.await.map_err(ApiError::internal)?.map_err(refused)?;
    Ok((windows(&found, done), None))
}

/// A container that can't be read: for what the place did not give, or for what it gave.
fn refused(error: FormatError) -> IngestError {
    match error {
        FormatError::Io { source, .. } => match RemoteFile::source_error(&source) {
            Some(error) => IngestError::Source(error.clone()),
            None => IngestError::Wrong(source.to_string()),
        },
        error => IngestError::Wrong(error.to_string()),
    }
}

/// What is read at once of a file that is cut so, from `done` on, where a chunk begins.
fn windows(segments: &[Segment], done: u64) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for segment in segments {
        match *segment {
            Segment::Fixed { offset, .. } if offset < done => {}
            Segment::Fixed {
                offset,
                size_bytes,
                element,
            } => {
                let cut = (
                    usize::try_from(size_bytes).expect("a chunk has at most 16 MiB"),
                    element,
                );
                match windows.last_mut() {
                    Some(Window {
                        range,
                        cuts: Cuts::At(sizes),
                    }) if offset + size_bytes - range.start <= WINDOW_BYTES => {
                        range.end = offset + size_bytes;
                        sizes.push(cut);
                    }
                    _ => windows.push(Window {
                        range: offset..offset + size_bytes,
                        cuts: Cuts::At(vec![cut]),
                    }),
                }
            }
            Segment::Cdc { offset, size_bytes } => {
                let (mut begin, end) = (offset.max(done), offset + size_bytes);
                while begin < end {
                    let range = begin..end.min(begin + CDC_WINDOW_BYTES);
                    begin = range.end;
                    windows.push(Window {
                        range,
                        cuts: Cuts::ByContent { is_last: begin == end },
                    });
                }
            }
        }
    }
    windows
}

#[cfg(test)]
mod tests {
    use fineline_format::cdc_cuts;

    use super::*;

    fn chunks(windows: &[Window], bytes: &[u8]) -> Vec<(Digest, u64)> {
        let mut rest = Bytes::new();
        let mut chunks = Vec::new();
        for window in windows {
            let range = window.range.start as usize..window.range.end as usize;
            let (pieces, left) = window.cut(&rest, Bytes::copy_from_slice(&bytes[range]));
            rest = left;
            chunks.extend(pieces.into_iter().map(|(chunk, ..)| (chunk.digest, chunk.size_bytes)));
        }
        assert!(rest.is_empty());
        chunks
    }

    #[test]
    fn a_file_that_is_read_in_windows_has_the_chunks_of_one_that_is_read_whole() {
        let mut state = 7u32;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(21 << 20)
        .collect();
        let size_bytes = bytes.len() as u64;
        let segments = [Segment::Cdc { offset: 0, size_bytes }];
        let mut begin = 0;
        let whole: Vec<_> = cdc_cuts(&bytes)
            .into_iter()
            .map(|end| {
                let chunk = (Digest::of(&bytes[begin..end]), (end - begin) as u64);
                begin = end;
                chunk
            })
            .collect();
        assert!(whole.len() > 5);
        assert_eq!(chunks(&windows(&segments, 0), &bytes), whole);
        // Cut off behind any chunk, the rest is the same.
        let done: u64 = whole[..3].iter().map(|(_, size)| size).sum();
        assert_eq!(chunks(&windows(&segments, done), &bytes), whole[3..]);
    }

    #[test]
    fn chunks_of_tensors_are_read_together_up_to_a_window() {
        let mib = 1 << 20;
        let sizes = [1, 9 * mib, 6 * mib, 2 * mib, 16 * mib];
        let mut offset = 0;
        let segments = sizes.map(|size_bytes| {
            let segment = Segment::Fixed {
                offset,
                size_bytes,
                element: Element::Unknown,
            };
            offset += size_bytes;
            segment
        });
        let ends = |windows: Vec<Window>| windows.into_iter().map(|window| window.range.end).collect::<Vec<_>>();
        let all = ends(windows(&segments, 0));
        assert_eq!(all, [15 * mib + 1, 17 * mib + 1, 33 * mib + 1]);
        assert_eq!(ends(windows(&segments, 1 + 9 * mib)), [17 * mib + 1, 33 * mib + 1]);
        assert!(windows(&segments, offset).is_empty());
    }
}
