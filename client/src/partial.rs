//! One file of a pull: put together in `NAME.fineline-partial`, compared with its digest, then renamed.
//!
//! **Invariant:** a chunk is written only after its own SHA-256 was compared; no link is followed on the way to a file.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fineline_api::{CheckpointFile, ChunkRef};
use fineline_format::{Digest, Hasher, MAX_CHUNK_BYTES, frame};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::folder::PARTIAL_SUFFIX;
use crate::pull::Shared;

const READ_BYTES: usize = 1 << 20;
/// Fetches begun at once for one file; the pull's semaphore bounds them over all files.
const N_AHEAD: usize = 8;

/// What is where a file is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Nothing,
    /// The file itself.
    Same,
    Other,
}

/// Where in a file a chunk is wanted; a chunk that stands in it twice is fetched once.
type Wanted = BTreeMap<Digest, (u64, Vec<u64>)>;

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
    match fs::symlink_metadata(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Existing::Nothing),
        Err(error) => Err(Error::io("read", to)(error)),
        Ok(metadata) if metadata.is_dir() => Err(Error::Folder(format!(
            "`{}` is a folder where a file is to go: take it away",
            to.display()
        ))),
        Ok(metadata) if metadata.is_file() && metadata.len() == file.size_bytes => {
            let same = hash_file(to).map_err(Error::io("read", to))? == file.digest;
            Ok(if same { Existing::Same } else { Existing::Other })
        }
        Ok(_) => Ok(Existing::Other),
    }
}

/// Fetches what is missing of a file and gives it its name.
pub(crate) async fn pull_file(shared: Arc<Shared>, file: CheckpointFile, to: PathBuf) -> Result<()> {
    let part = Arc::new(partial_path(&to));
    let (opened, listed) = (Arc::clone(&part), file.clone());
    let (wanted, kept_bytes) = work(&shared, move || open_partial(&opened, &listed)).await?;
    shared.kept_bytes.fetch_add(kept_bytes, Ordering::Relaxed);
    shared.meter.add(kept_bytes);
    let expected = wanted.iter().map(|(digest, (size_bytes, _))| (*digest, *size_bytes));
    shared.direct.expect(expected).await;
    let fetches = wanted.into_iter().map(|(digest, (size_bytes, offsets))| {
        let chunk = ChunkRef { digest, size_bytes };
        fetch(Arc::clone(&shared), Arc::clone(&part), chunk, offsets)
    });
    futures::stream::iter(fetches)
        .buffer_unordered(N_AHEAD)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    work(&shared, move || finish(&part, &to, &file)).await
}

/// Works on a file where it may block; a pull that fails meanwhile waits for the end of it.
async fn work<T: Send + 'static>(shared: &Shared, work: impl FnOnce() -> T + Send + 'static) -> T {
    let working = Arc::clone(&shared.working).read_owned().await;
    blocking(move || {
        let result = work();
        drop(working);
        result
    })
    .await
}

fn partial_path(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(PARTIAL_SUFFIX);
    PathBuf::from(name)
}

/// Makes the partial file, or takes up one that is there: what of it has its chunk's digest is kept.
fn open_partial(part: &Path, file: &CheckpointFile) -> Result<(Wanted, u64)> {
    if let Some(parent) = part.parent() {
        fs::create_dir_all(parent).map_err(Error::io("make folder", parent))?;
    }
    match fs::symlink_metadata(part) {
        Ok(metadata) if !metadata.is_file() => {
            return Err(Error::Folder(format!(
                "`{}` is no plain file: take it away",
                part.display()
            )));
        }
        _ => {}
    }
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(part);
    let mut handle = open.map_err(Error::io("write", part))?;
    let held = handle.metadata().map_err(Error::io("read", part))?.len();
    handle.set_len(file.size_bytes).map_err(Error::io("write", part))?;
    let mut wanted = Wanted::new();
    let (mut kept_bytes, mut offset) = (0, 0);
    for chunk in &file.chunks {
        let end = offset + chunk.size_bytes;
        if end <= held && holds(&mut handle, offset, chunk).map_err(Error::io("read", part))? {
            kept_bytes += chunk.size_bytes;
        } else {
            wanted
                .entry(chunk.digest)
                .or_insert_with(|| (chunk.size_bytes, Vec::new()))
                .1
                .push(offset);
        }
        offset = end;
    }
    Ok((wanted, kept_bytes))
}

fn holds(handle: &mut File, offset: u64, chunk: &ChunkRef) -> io::Result<bool> {
    let size = usize::try_from(chunk.size_bytes).unwrap_or(usize::MAX);
    if size > MAX_CHUNK_BYTES {
        return Ok(false);
    }
    let mut raw = vec![0; size];
    handle.seek(SeekFrom::Start(offset))?;
    handle.read_exact(&mut raw)?;
    Ok(Digest::of(&raw) == chunk.digest)
}

/// Fetches a chunk and writes it wherever the file has it.
async fn fetch(shared: Arc<Shared>, part: Arc<PathBuf>, chunk: ChunkRef, offsets: Vec<u64>) -> Result<()> {
    let _permit = shared.fetching.acquire().await.expect("the semaphore is never closed");
    let raw = receive(&shared, chunk).await?;
    let n_bytes = chunk.size_bytes * offsets.len() as u64;
    work(&shared, move || -> Result<()> {
        let mut handle = OpenOptions::new()
            .write(true)
            .open(&*part)
            .map_err(Error::io("write", &part))?;
        for offset in offsets {
            let written = handle
                .seek(SeekFrom::Start(offset))
                .and_then(|_| handle.write_all(&raw));
            written.map_err(Error::io("write", &part))?;
        }
        Ok(())
    })
    .await?;
    fail_point!("pull.chunk_written");
    shared.meter.add(n_bytes);
    Ok(())
}

/// A chunk's bytes, compared with its digest: from the bucket where that works, else through the registry. A frame that
/// the bucket has wrong is asked of the registry too, which reads it there by itself and knows of the damage from then on.
async fn receive(shared: &Shared, chunk: ChunkRef) -> Result<Vec<u8>> {
    if let Some(frame) = shared.direct.get(chunk.digest, chunk.size_bytes).await {
        let frame_bytes = frame.len() as u64;
        shared.received_bytes.fetch_add(frame_bytes, Ordering::Relaxed);
        match work(shared, move || unframe(&frame, chunk)).await {
            Ok(raw) => {
                shared.direct.was_right(frame_bytes);
                return Ok(raw);
            }
            Err(error) => shared.direct.was_wrong(&error),
        }
    }
    let frame = shared.client.get_chunk(&shared.run, chunk.digest).await?;
    shared.received_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
    work(shared, move || unframe(&frame, chunk)).await
}

fn unframe(bytes: &[u8], chunk: ChunkRef) -> Result<Vec<u8>> {
    let corrupt = |reason: String| Error::Corrupt {
        what: "a chunk that the registry sent".to_owned(),
        digest: chunk.digest,
        reason,
    };
    let raw = frame::decode(bytes).map_err(|error| corrupt(error.to_string()))?;
    let digest = Digest::of(&raw);
    if digest != chunk.digest || raw.len() as u64 != chunk.size_bytes {
        return Err(corrupt(format!("its {} bytes have `{digest}`", raw.len())));
    }
    Ok(raw)
}

/// Compares the whole with its digest, makes it last, and gives it its name.
fn finish(part: &Path, to: &Path, file: &CheckpointFile) -> Result<()> {
    let digest = hash_file(part).map_err(Error::io("read", part))?;
    if digest != file.digest {
        return Err(Error::Corrupt {
            what: format!("`{}`", part.display()),
            digest: file.digest,
            reason: format!("its own is `{digest}`; something else wrote to it, or the registry's recipe is wrong"),
        });
    }
    fail_point!("pull.whole");
    let last = File::open(part)
        .and_then(|handle| handle.sync_all())
        .and_then(|()| fs::rename(part, to));
    last.map_err(Error::io("write", to))
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
        let part = dir.path().join("f.fineline-partial");
        let chunks = vec![chunk(b"aaa"), chunk(b"bb"), chunk(b"bb"), chunk(b"cccc")];
        let file = CheckpointFile {
            path: "f".to_owned(),
            size_bytes: 11,
            digest: Digest::of(b"aaabbbbcccc"),
            chunks,
        };
        fs::write(&part, b"aaa\0\0\0\0cccc").unwrap();
        // When it is taken up, only the middle is wanted, once, for both places.
        let (wanted, kept_bytes) = open_partial(&part, &file).unwrap();
        assert_eq!(kept_bytes, 7);
        assert_eq!(wanted, Wanted::from([(Digest::of(b"bb"), (2, vec![3, 5]))]));
        // And it only gets its name when the whole is right.
        let to = dir.path().join("f");
        assert!(matches!(finish(&part, &to, &file), Err(Error::Corrupt { .. })));
        fs::write(&part, b"aaabbbbcccc").unwrap();
        finish(&part, &to, &file).unwrap();
        assert_eq!(look(&to, &file).unwrap(), Existing::Same);
        assert!(!part.exists());
    }

    #[test]
    fn a_frame_of_other_bytes_is_refused() {
        let frame = frame::encode_raw(b"abc");
        assert_eq!(unframe(&frame, chunk(b"abc")).unwrap(), b"abc");
        assert!(unframe(&frame, chunk(b"abd")).is_err());
        assert!(unframe(b"nonsense", chunk(b"abc")).is_err());
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
