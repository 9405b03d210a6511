//! An object of a source as the format readers take files: bytes at any offset, read when they are asked for.
//!
//! The readers look at a header or a directory, again and again and a few bytes at a time. Beginning and end of the object
//! are therefore read once each and kept, and what lies between them a window at a time.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fineline_format::ReadAt;
use tokio::runtime::Handle;

use super::{Object, Origin, SourceError};

/// What is read and kept of the beginning and of the end.
const EDGE_BYTES: u64 = 1 << 20;

/// What is read where a few bytes between them are wanted: the next ones are often wanted next.
const WINDOW_BYTES: u64 = 16 << 10;

/// An object of a source, for code that blocks: it may not be read from within an async task.
#[derive(Debug)]
pub(crate) struct RemoteFile {
    origin: Arc<Origin>,
    object: Object,
    runtime: Handle,
    kept: Mutex<Kept>,
}

/// Parts of the object, and where each begins.
#[derive(Debug, Default)]
struct Kept {
    head: Option<Bytes>,
    tail: Option<Bytes>,
    window: Option<(u64, Bytes)>,
    /// All that came from the source.
    n_bytes: u64,
    n_reads: u64,
}

impl RemoteFile {
    /// Nothing is read yet.
    pub(crate) fn new(origin: Arc<Origin>, object: Object, runtime: Handle) -> Self {
        Self {
            origin,
            object,
            runtime,
            kept: Mutex::default(),
        }
    }

    /// How many bytes came from the source, and in how many reads.
    #[cfg(test)]
    pub(crate) fn n_read(&self) -> (u64, u64) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.n_bytes, kept.n_reads)
    }

    /// What stopped a reader, where it was the source.
    pub(crate) fn source_error(error: &io::Error) -> Option<&SourceError> {
        error.get_ref()?.downcast_ref()
    }

    fn fetch(&self, kept: &mut Kept, range: Range<u64>) -> io::Result<Bytes> {
        let bytes = self.runtime.block_on(self.origin.read(&self.object, range));
        let bytes = bytes.map_err(io::Error::other)?;
        kept.n_bytes += bytes.len() as u64;
        kept.n_reads += 1;
        Ok(bytes)
    }

    /// Copies the bytes from `offset` on out of a part that holds them all.
    fn part(&self, kept: &mut Kept, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let size = self.object.size_bytes;
        let end = offset + buf.len() as u64;
        let head_end = if size <= 2 * EDGE_BYTES { size } else { EDGE_BYTES };
        let tail_begin = size - EDGE_BYTES.min(size);
        let (begin, part) = if end <= head_end {
            let head = match kept.head.clone() {
                Some(head) => head,
                None => self.fetch(kept, 0..head_end)?,
            };
            (0, kept.head.insert(head).clone())
        } else if offset >= tail_begin {
            let tail = match kept.tail.clone() {
                Some(tail) => tail,
                None => self.fetch(kept, tail_begin..size)?,
            };
            (tail_begin, kept.tail.insert(tail).clone())
        } else if end - offset >= WINDOW_BYTES {
            (offset, self.fetch(kept, offset..end)?)
        } else {
            let holds = |(begin, part): &(u64, Bytes)| *begin <= offset && end <= begin + part.len() as u64;
            match kept.window.clone().filter(holds) {
                Some(window) => window,
                None => {
                    let window = self.fetch(kept, offset..size.min(offset + WINDOW_BYTES))?;
                    kept.window.insert((offset, window)).clone()
                }
            }
        };
        let at = usize::try_from(offset - begin).map_err(io::Error::other)?;
        buf.copy_from_slice(&part[at..at + buf.len()]);
        Ok(())
    }
}

impl ReadAt for RemoteFile {
    fn size_bytes(&self) -> u64 {
        self.object.size_bytes
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.object.size_bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Held while it is read: who wants the same part waits for it.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        self.part(&mut kept, offset, buf)
    }
}
