//! One file of a pull: put together in `NAME.fineline-partial`, hashed as it comes in, then renamed.
//!
//! Chunks come in any order, within bounds, and are written where they belong; the file's SHA-256 takes them in order from
//! memory. That alone proves every byte, so a chunk's own digest is compared only to find out which one is wrong.
//!
//! **Invariant:** a file gets its name only when the SHA-256 of its bytes was compared; no link is followed on the way to
//! a file.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fineline_api::{CheckpointFile, ChunkRef};
use fineline_format::{Buffer, Digest, Hasher, MAX_CHUNK_BYTES, ReadAt as _};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::folder::{OpenFile, PARTIAL_SUFFIX, write_all_at};
use crate::pull::Shared;
use crate::receive::{fetch_verified, receive};

const READ_BYTES: usize = 1 << 20;
/// Chunks of one file that are fetched, or done before their turn; the pull's semaphore bounds their bytes over all files.
const N_AHEAD: usize = 16;
/// So much is written before the disk is told to begin with it: at the end it would have to do all at once.
const SYNC_EVERY_BYTES: u64 = 64 << 20;

/// What is where a file is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Nothing,
    /// The file itself.
    Same,
    Other,
}

/// A part of a file, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// To be fetched and written at these offsets, the first of which is its place in the order.
    Wanted { chunk: ChunkRef, offsets: Vec<u64> },
    /// In the partial file by the time that its turn comes.
    There { offset: u64, size_bytes: u64 },
}

/// A file that is being put together.
pub(crate) struct Partial {
    pub(crate) path: PathBuf,
    pub(crate) file: OpenFile,
    written_bytes: AtomicU64,
    /// What went wrong when the disk was told to begin: told at the end, since the system tells it once.
    sync_failure: Mutex<Option<io::Error>>,
}

/// Where the file goes, once it is sure that no link or file is in the way of its folders.
pub(crate) fn place(dir: &Path, path: &str) -> Result<PathBuf> {
    let mut to = dir.to_owned();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        to.push(part);
        if parts.peek().is_none() {
            break;
        }
        match fs::symlink_metadata(&to) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                return Err(Error::Folder(format!(
                    "`{}` is in the way of a folder: take it away",
                    to.display()
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read", &to)(error)),
        }
    }
    Ok(to)
}

/// What is at `to`; blocking.
pub(crate) fn look(to: &Path, file: &CheckpointFile) -> Result<Existing> {
    look_for(to, file.size_bytes, || {
        let digest = hash_file(to).map_err(Error::io("read", to))?;
        Ok(digest == file.digest)
    })
}

/// What is at `to`, where a file of so many bytes is the one that is meant if `is_same` says so; blocking.
pub(crate) fn look_for(to: &Path, size_bytes: u64, is_same: impl FnOnce() -> Result<bool>) -> Result<Existing> {
    match fs::symlink_metadata(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Existing::Nothing),
        Err(error) => Err(Error::io("read", to)(error)),
        Ok(metadata) if metadata.is_dir() => Err(Error::Folder(format!(
            "`{}` is a folder where a file is to go: take it away",
            to.display()
        ))),
        Ok(metadata) if metadata.is_file() && metadata.len() == size_bytes => {
            Ok(if is_same()? { Existing::Same } else { Existing::Other })
        }
        Ok(_) => Ok(Existing::Other),
    }
}

/// Fetches what is missing of a file and gives it its name.
pub(crate) async fn pull_file(shared: Arc<Shared>, file: CheckpointFile, to: PathBuf) -> Result<()> {
    let (there, listed) = (to.clone(), file.clone());
    let (partial, parts, kept_bytes) = work(&shared, move || open_partial(&there, &listed)).await?;
    let partial = Arc::new(partial);
    shared.kept_bytes.fetch_add(kept_bytes, Ordering::Relaxed);
    shared.meter.add(kept_bytes);
    let wanted = parts.iter().filter_map(|part| match part {
        Part::Wanted { chunk, .. } => Some((chunk.digest, chunk.size_bytes)),
        Part::There { .. } => None,
    });
    shared.direct.expect(wanted).await;
    let (in_order, parts_in_order) = mpsc::unbounded_channel();
    let hashed = Arc::clone(&partial);
    let hashing = work(&shared, move || hash_in_order(&hashed, parts_in_order));
    let fetching = async {
        let fetches = parts
            .into_iter()
            .map(|part| fetch_part(Arc::clone(&shared), Arc::clone(&partial), part));
        let mut fetched = futures::stream::iter(fetches).buffered(N_AHEAD);
        while let Some(part) = fetched.try_next().await? {
            // The hashing ends early only when it fails, and then it says so itself.
            drop(in_order.send(part));
        }
        drop(in_order);
        Ok(())
    };
    let (digest, ()) = tokio::try_join!(hashing, fetching)?;
    if digest != file.digest {
        mend(&shared, &partial, &file).await?;
    }
    work(&shared, move || finish(&partial, &to)).await
}

/// Works on a file where it may block; a pull that fails meanwhile waits for the end of it.
pub(crate) async fn work<T: Send + 'static>(shared: &Shared, work: impl FnOnce() -> T + Send + 'static) -> T {
    let working = Arc::clone(&shared.working).read_owned().await;
    blocking(move || {
        let result = work();
        drop(working);
        result
    })
    .await
}

impl Partial {
    /// Makes the partial file of `to`, or takes up one that is there, and says how many bytes it had; blocking.
    pub(crate) fn open(to: &Path, size_bytes: u64) -> Result<(Self, u64)> {
        let mut path = to.as_os_str().to_owned();
        path.push(PARTIAL_SUFFIX);
        let path = PathBuf::from(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::io("make folder", parent))?;
        }
        match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.is_file() => {
                return Err(Error::Folder(format!(
                    "`{}` is no plain file: take it away",
                    path.display()
                )));
            }
            _ => {}
        }
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let file = open.map_err(Error::io("write", &path))?;
        let held = file.metadata().map_err(Error::io("read", &path))?.len();
        file.set_len(size_bytes).map_err(Error::io("write", &path))?;
        let partial = Self {
            file: OpenFile { file, size_bytes },
            path,
            written_bytes: AtomicU64::new(0),
            sync_failure: Mutex::new(None),
        };
        Ok((partial, held))
    }

    /// Writes where these bytes belong.
    pub(crate) fn write(&self, raw: &[u8], offset: u64) -> Result<()> {
        write_all_at(&self.file.file, raw, offset).map_err(Error::io("write", &self.path))
    }
}

/// Opens the partial file: what of it has its chunk's digest is kept.
fn open_partial(to: &Path, file: &CheckpointFile) -> Result<(Partial, Vec<Part>, u64)> {
    let (partial, held) = Partial::open(to, file.size_bytes)?;
    let (parts, kept_bytes) = parts(&partial, file, held).map_err(Error::io("read", &partial.path))?;
    Ok((partial, parts, kept_bytes))
}

/// What is to be done for each chunk of a file of which `held` bytes were there; a chunk that stands in it twice is fetched
/// once.
fn parts(partial: &Partial, file: &CheckpointFile, held: u64) -> io::Result<(Vec<Part>, u64)> {
    let mut parts = Vec::with_capacity(file.chunks.len());
    let mut wanted: HashMap<Digest, usize> = HashMap::new();
    let (mut kept_bytes, mut offset) = (0, 0);
    for chunk in &file.chunks {
        let size_bytes = chunk.size_bytes;
        let there = Part::There { offset, size_bytes };
        if offset + size_bytes <= held && holds(&partial.file, offset, chunk)? {
            kept_bytes += size_bytes;
            parts.push(there);
        } else if let Some(Part::Wanted { offsets, .. }) = wanted.get(&chunk.digest).map(|at| &mut parts[*at]) {
            offsets.push(offset);
            parts.push(there);
        } else {
            wanted.insert(chunk.digest, parts.len());
            parts.push(Part::Wanted {
                chunk: *chunk,
                offsets: vec![offset],
            });
        }
        offset += size_bytes;
    }
    Ok((parts, kept_bytes))
}

fn holds(file: &OpenFile, offset: u64, chunk: &ChunkRef) -> io::Result<bool> {
    let size = usize::try_from(chunk.size_bytes).unwrap_or(usize::MAX);
    if size > MAX_CHUNK_BYTES {
        return Ok(false);
    }
    let mut raw = vec![0; size];
    file.read_exact_at(offset, &mut raw)?;
    Ok(Digest::of(&raw) == chunk.digest)
}

/// A part whose bytes are in the file.
enum Done {
    /// And still in memory.
    Raw(Buffer, OwnedSemaphorePermit),
    There {
        offset: u64,
        size_bytes: u64,
    },
}

/// Hashes a file's parts as they come, in order; blocking.
fn hash_in_order(partial: &Partial, mut parts: mpsc::UnboundedReceiver<Done>) -> Result<Digest> {
    let mut hasher = Hasher::new();
    while let Some(part) = parts.blocking_recv() {
        match part {
            Done::Raw(raw, _permit) => hasher.update(&raw),
            Done::There { offset, size_bytes } => {
                feed(&mut hasher, &partial.file, offset, size_bytes).map_err(Error::io("read", &partial.path))?;
            }
        }
    }
    Ok(hasher.finish())
}

fn feed(hasher: &mut Hasher, file: &OpenFile, mut offset: u64, size_bytes: u64) -> io::Result<()> {
    let end = offset + size_bytes;
    let mut buf = vec![0; READ_BYTES];
    while offset < end {
        let n = READ_BYTES.min(usize::try_from(end - offset).unwrap_or(READ_BYTES));
        file.read_exact_at(offset, &mut buf[..n])?;
        hasher.update(&buf[..n]);
        offset += n as u64;
    }
    Ok(())
}

/// Fetches a chunk, unless it is there, and writes it wherever the file has it.
async fn fetch_part(shared: Arc<Shared>, partial: Arc<Partial>, part: Part) -> Result<Done> {
    let (chunk, offsets) = match part {
        Part::There { offset, size_bytes } => return Ok(Done::There { offset, size_bytes }),
        Part::Wanted { chunk, offsets } => (chunk, offsets),
    };
    let (mut raw, permit) = receive(&shared, chunk).await?;
    let n_bytes = chunk.size_bytes * offsets.len() as u64;
    let to = Arc::clone(&partial);
    raw = work(&shared, move || write(&to, &raw, &offsets).map(|()| raw)).await?;
    begin_sync(&shared, &partial, n_bytes).await;
    fail_point!("pull.chunk_written");
    shared.meter.add(n_bytes);
    Ok(Done::Raw(raw, permit))
}

fn write(partial: &Partial, raw: &[u8], offsets: &[u64]) -> Result<()> {
    offsets.iter().try_for_each(|offset| partial.write(raw, *offset))
}

/// Tells the disk now and then to begin with what was written, and does not wait for it.
pub(crate) async fn begin_sync(shared: &Shared, partial: &Arc<Partial>, n_bytes: u64) {
    let before = partial.written_bytes.fetch_add(n_bytes, Ordering::Relaxed);
    if before / SYNC_EVERY_BYTES == (before + n_bytes) / SYNC_EVERY_BYTES {
        return;
    }
    let working = Arc::clone(&shared.working).read_owned().await;
    let partial = Arc::clone(partial);
    tokio::task::spawn_blocking(move || {
        // The system tells of a failure once: whoever hears it has to have it written down before `finish` asks.
        let mut failure = partial.sync_failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = partial.file.file.sync_data() {
            failure.get_or_insert(error);
        }
        drop(failure);
        drop(working);
    });
}

/// Fetches the chunks again that are not in a file as their digests say, verified, and compares the whole once more.
async fn mend(shared: &Shared, partial: &Arc<Partial>, file: &CheckpointFile) -> Result<()> {
    let (looked_at, listed) = (Arc::clone(partial), file.clone());
    for (offset, chunk) in work(shared, move || wrong_chunks(&looked_at, &listed)).await? {
        let raw = fetch_verified(shared, chunk).await?;
        let to = Arc::clone(partial);
        work(shared, move || write(&to, &raw, &[offset])).await?;
    }
    let (whole, size_bytes) = (Arc::clone(partial), file.size_bytes);
    let digest = work(shared, move || {
        let mut hasher = Hasher::new();
        feed(&mut hasher, &whole.file, 0, size_bytes).map_err(Error::io("read", &whole.path))?;
        Ok::<_, Error>(hasher.finish())
    });
    let digest = digest.await?;
    if digest == file.digest {
        return Ok(());
    }
    Err(Error::Corrupt {
        what: format!("`{}`", partial.path.display()),
        digest: file.digest,
        reason: format!("its own is `{digest}`; something else wrote to it, or the registry's recipe is wrong"),
    })
}

fn wrong_chunks(partial: &Partial, file: &CheckpointFile) -> Result<Vec<(u64, ChunkRef)>> {
    let mut wrong = Vec::new();
    let mut offset = 0;
    for chunk in &file.chunks {
        if !holds(&partial.file, offset, chunk).map_err(Error::io("read", &partial.path))? {
            wrong.push((offset, *chunk));
        }
        offset += chunk.size_bytes;
    }
    Ok(wrong)
}

/// Makes a file whose bytes were compared last, and gives it its name.
pub(crate) fn finish(partial: &Partial, to: &Path) -> Result<()> {
    fail_point!("pull.whole");
    let mut failure = partial.sync_failure.lock().unwrap_or_else(PoisonError::into_inner);
    let last = match failure.take() {
        Some(error) => Err(error),
        None => partial.file.file.sync_all(),
    };
    last.and_then(|()| fs::rename(&partial.path, to))
        .map_err(Error::io("write", to))
}

fn hash_file(path: &Path) -> io::Result<Digest> {
    let mut handle = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut buf = vec![0; READ_BYTES];
    loop {
        match handle.read(&mut buf)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buf[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(bytes: &[u8]) -> ChunkRef {
        let (digest, size_bytes) = (Digest::of(bytes), bytes.len() as u64);
        ChunkRef { digest, size_bytes }
    }

    #[test]
    fn what_a_partial_file_holds_is_not_asked_for_again() {
        // Given a file of four chunks, two of them the same, whose first and last were written.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.fineline-partial");
        let chunks = vec![chunk(b"aaa"), chunk(b"bb"), chunk(b"bb"), chunk(b"cccc")];
        let file = CheckpointFile {
            path: "f".to_owned(),
            size_bytes: 11,
            digest: Digest::of(b"aaabbbbcccc"),
            chunks,
        };
        fs::write(&path, b"aaa\0\0\0\0cccc").unwrap();
        // When it is taken up, only the middle is wanted, once, for both places.
        let (partial, parts, kept_bytes) = open_partial(&dir.path().join("f"), &file).unwrap();
        assert_eq!(kept_bytes, 7);
        let there = |offset, size_bytes| Part::There { offset, size_bytes };
        let wanted = Part::Wanted {
            chunk: chunk(b"bb"),
            offsets: vec![3, 5],
        };
        assert_eq!(parts, [there(0, 3), wanted, there(5, 2), there(7, 4)]);
        // And once it is written, the parts in order are the file.
        write(&partial, b"bb", &[3, 5]).unwrap();
        let (in_order, parts) = mpsc::unbounded_channel();
        for (offset, size_bytes) in [(0, 3), (3, 4), (7, 4)] {
            assert!(in_order.send(Done::There { offset, size_bytes }).is_ok());
        }
        drop(in_order);
        assert_eq!(hash_in_order(&partial, parts).unwrap(), file.digest);
        assert_eq!(wrong_chunks(&partial, &file).unwrap(), []);
        let to = dir.path().join("f");
        finish(&partial, &to).unwrap();
        assert_eq!(look(&to, &file).unwrap(), Existing::Same);
        assert!(!path.exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_on_the_way_is_refused() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(outside.path(), dir.path().join("sub")).unwrap();
        assert!(place(dir.path(), "sub/f").is_err());
        assert_eq!(place(dir.path(), "new/f").unwrap(), dir.path().join("new/f"));
    }
}
