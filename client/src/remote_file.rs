//! A file of a checkpoint read at any offset where it is stored, chunk by chunk, without having it here.
//!
//! **Invariant:** every byte that is read is of a chunk whose digest was compared.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Weak};

use fineline_api::{CheckpointFile, ChunkRef};
use fineline_format::{Buffer, Digest, FormatError, ReadAt};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;

use crate::error::{Error, Result};
use crate::pull::Shared;
use crate::receive::receive_verified;

/// What lies between large tensors is in chunks of their own: the headers that tell where they lie.
const SMALL_CHUNK_BYTES: u64 = 64 << 10;
/// Of those so many bytes are fetched at once and kept: one by one, each would take a round trip.
const MAX_AHEAD_BYTES: u64 = 8 << 20;
const N_AHEAD: usize = 16;

/// Where the chunks of a file lie in it.
#[derive(Debug)]
pub(crate) struct Chunks {
    chunks: Vec<ChunkRef>,
    offsets: Vec<u64>,
}

impl Chunks {
    pub(crate) fn of(file: &CheckpointFile) -> Self {
        let mut at = 0;
        let offset = |chunk: &ChunkRef| {
            at += chunk.size_bytes;
            at - chunk.size_bytes
        };
        Self {
            offsets: file.chunks.iter().map(offset).collect(),
            chunks: file.chunks.clone(),
        }
    }

    /// The chunks that hold some of these bytes, each with its place.
    pub(crate) fn within(&self, bytes: &Range<u64>) -> impl Iterator<Item = (u64, ChunkRef)> + '_ {
        let first = self.offsets.partition_point(|offset| *offset <= bytes.start);
        let end = self.offsets.partition_point(|offset| *offset < bytes.end);
        let within = if bytes.is_empty() {
            0..0
        } else {
            first.saturating_sub(1)..end
        };
        self.offsets[within.clone()]
            .iter()
            .copied()
            .zip(self.chunks[within].iter().copied())
    }
}

/// A stored file, for a thread that may block.
pub(crate) struct RemoteFile {
    shared: Arc<Shared>,
    runtime: Handle,
    /// Whoever waits for what is read; when nobody does any more, nothing is.
    reader: Weak<()>,
    size_bytes: u64,
    chunks: Chunks,
    ahead: HashMap<Digest, Buffer>,
    last: RefCell<Option<(Digest, Buffer, OwnedSemaphorePermit)>>,
}

impl RemoteFile {
    /// Opens a file for as long as `reader` is there.
    pub(crate) async fn open(shared: &Arc<Shared>, file: &CheckpointFile, reader: &Arc<()>) -> Result<Self> {
        let mut left_bytes = MAX_AHEAD_BYTES;
        let mut small: HashMap<Digest, ChunkRef> = HashMap::new();
        for chunk in file.chunks.iter().filter(|chunk| chunk.size_bytes <= SMALL_CHUNK_BYTES) {
            if chunk.size_bytes > left_bytes {
                break;
            }
            if small.insert(chunk.digest, *chunk).is_none() {
                left_bytes -= chunk.size_bytes;
            }
        }
        let fetches = small.into_values().map(|chunk| async move {
            let (raw, _permit) = receive_verified(shared, chunk).await?;
            Ok::<_, Error>((chunk.digest, raw))
        });
        let ahead = futures::stream::iter(fetches).buffer_unordered(N_AHEAD);
        Ok(Self {
            shared: Arc::clone(shared),
            runtime: Handle::current(),
            reader: Arc::downgrade(reader),
            size_bytes: file.size_bytes,
            chunks: Chunks::of(file),
            ahead: ahead.try_collect().await?,
            last: RefCell::new(None),
        })
    }

    /// Copies from a chunk's bytes, which are kept until another's are asked for.
    fn copy(&self, chunk: ChunkRef, begin: usize, buf: &mut [u8]) -> io::Result<()> {
        let mut copy = |raw: &[u8]| {
            buf.copy_from_slice(&raw[begin..begin + buf.len()]);
            Ok(())
        };
        if let Some(raw) = self.ahead.get(&chunk.digest) {
            return copy(raw);
        }
        let mut last = self.last.borrow_mut();
        match &*last {
            Some((digest, raw, _)) if *digest == chunk.digest => return copy(raw),
            // Its permit goes before another is asked for: those who wait for one hold none.
            _ => *last = None,
        }
        if self.reader.upgrade().is_none() {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        let (raw, permit) = self
            .runtime
            .block_on(receive_verified(&self.shared, chunk))
            .map_err(io::Error::other)?;
        copy(&raw)?;
        *last = Some((chunk.digest, raw, permit));
        Ok(())
    }
}

impl ReadAt for RemoteFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset
            .checked_add(buf.len() as u64)
            .filter(|end| *end <= self.size_bytes);
        let wanted = offset..end.ok_or(io::ErrorKind::UnexpectedEof)?;
        for (at, chunk) in self.chunks.within(&wanted) {
            let part = wanted.start.max(at)..wanted.end.min(at + chunk.size_bytes);
            if part.is_empty() {
                continue;
            }
            let place = |at: u64| usize::try_from(at).expect("inside of a chunk or a buffer");
            let target = place(part.start - wanted.start)..place(part.end - wanted.start);
            self.copy(chunk, place(part.start - at), &mut buf[target])?;
        }
        Ok(())
    }
}

/// What reading a [`RemoteFile`] failed with: a call's own error where there is one.
pub(crate) fn read_error(error: FormatError) -> Error {
    match error {
        FormatError::Io { file, source } => match source.downcast::<Error>() {
            Ok(error) => error,
            Err(source) => FormatError::Io { file, source }.into(),
        },
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chunks_of_a_part_are_those_that_it_touches() {
        let chunk = |n: u64| ChunkRef {
            digest: Digest::of(&n.to_le_bytes()),
            size_bytes: n,
        };
        let file = CheckpointFile {
            path: "f".to_owned(),
            size_bytes: 9,
            digest: Digest::of(b""),
            chunks: vec![chunk(2), chunk(3), chunk(4)],
        };
        let chunks = Chunks::of(&file);
        let within = |bytes: Range<u64>| chunks.within(&bytes).map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(within(0..9), [0, 2, 5]);
        assert_eq!(within(2..5), [2]);
        assert_eq!(within(1..3), [0, 2]);
        assert_eq!(within(4..6), [2, 5]);
        assert_eq!(within(8..9), [5]);
        assert!(within(5..5).is_empty());
    }
}
