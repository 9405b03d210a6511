//! Random access to a stored file for the readers of `fineline_format`.

use std::io;
use std::sync::Mutex;

use bytes::Bytes;
use fineline_api::ChunkRef;
use fineline_format::{Digest, ReadAt};
use tokio::runtime::Handle;

use crate::app::App;
use crate::service::content::read_chunk;

/// A stored file, read chunk by chunk; the last chunk stays at hand. To be used off the async threads alone.
#[derive(Debug)]
pub(crate) struct StoredFile {
    app: App,
    handle: Handle,
    /// Each chunk behind its offset in the file.
    chunks: Vec<(u64, ChunkRef)>,
    size_bytes: u64,
    last: Mutex<Option<(Digest, Bytes)>>,
}

impl StoredFile {
    /// The file of that recipe; called on a thread of the runtime, which then does the reading.
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

    fn chunk(&self, chunk: ChunkRef) -> io::Result<Bytes> {
        let mut last = self.last.lock().map_err(|_| io::Error::other("a reader panicked"))?;
        if let Some((held, raw)) = &*last
            && *held == chunk.digest
        {
            return Ok(raw.clone());
        }
        let raw = self.handle.block_on(read_chunk(&self.app, chunk));
        let raw = raw.map_err(io::Error::other)?;
        *last = Some((chunk.digest, raw.clone()));
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
            let raw = self.chunk(*chunk)?;
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
