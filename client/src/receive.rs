//! One chunk of a pull: from the bucket or through the registry, decoded; hashed here only where the caller does not
//! hash it with its file.
//!
//! **Invariant:** the raw bytes in memory over all files of a pull are bounded: they come with a permit for their size.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fineline_api::ChunkRef;
use fineline_format::frame::{self, Decoder};
use fineline_format::{Buffer, Digest, MAX_CHUNK_BYTES};
use tokio::sync::OwnedSemaphorePermit;

use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::pull::Shared;

/// A chunk's bytes, and the permit to hold them. The registry's word for them is not enough: whoever takes them hashes
/// them, or asks for [`receive_verified`].
pub(crate) async fn receive(shared: &Shared, chunk: ChunkRef) -> Result<(Buffer, OwnedSemaphorePermit)> {
    let n = usize::try_from(chunk.size_bytes)
        .unwrap_or(usize::MAX)
        .min(MAX_CHUNK_BYTES);
    let permits = u32::try_from(n).expect("a chunk has at most 16 MiB");
    let permit = Arc::clone(&shared.held).acquire_many_owned(permits).await;
    let permit = permit.expect("the semaphore is never closed");
    Ok((fetch(shared, chunk, n).await?, permit))
}

/// The same, and they are the chunk's.
pub(crate) async fn receive_verified(shared: &Shared, chunk: ChunkRef) -> Result<(Buffer, OwnedSemaphorePermit)> {
    let (raw, permit) = receive(shared, chunk).await?;
    let (raw, digest) = blocking(move || {
        let digest = Digest::of(&raw);
        (raw, digest)
    })
    .await;
    if digest == chunk.digest {
        return Ok((raw, permit));
    }
    drop(raw);
    Ok((fetch_verified(shared, chunk).await?, permit))
}

/// A chunk's bytes, decoded into memory for `n`: from the bucket where that works, else through the registry. What the
/// registry sends is hashed with the file; what the bucket has is compared at once, and asked of the registry too where
/// it is wrong.
async fn fetch(shared: &Shared, chunk: ChunkRef, n: usize) -> Result<Buffer> {
    if let Some(frame) = shared.direct.get(chunk.digest, chunk.size_bytes).await {
        let frame_bytes = frame.len() as u64;
        shared.received_bytes.fetch_add(frame_bytes, Ordering::Relaxed);
        let mut raw = shared.client.buffers().empty(0);
        let unframed = blocking(move || {
            *raw = unframe(&frame, chunk)?;
            Ok(raw)
        });
        match unframed.await {
            Ok(raw) => {
                shared.direct.was_right(frame_bytes);
                return Ok(raw);
            }
            Err(error) => shared.direct.was_wrong(&error),
        }
        return fetch_verified(shared, chunk).await;
    }
    let frame = shared.client.get_chunk(&shared.run, chunk.digest, false).await?;
    shared.received_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
    let buffers = shared.client.buffers().clone();
    let decode = move |decoder: &mut Decoder| {
        let mut raw = buffers.empty(n);
        let decoded = decoder.decode(&frame, |piece| raw.extend_from_slice(piece));
        decoded
            .is_ok_and(|size_bytes| size_bytes == chunk.size_bytes)
            .then_some(raw)
    };
    match shared.decoders.work(decode).await {
        Some(raw) => Ok(raw),
        // A frame that can't be this chunk needs no hash to be found out.
        None => fetch_verified(shared, chunk).await,
    }
}

/// Fetches a chunk that did not come as it should: the registry decodes and hashes it first, so that it learns of
/// damage.
pub(crate) async fn fetch_verified(shared: &Shared, chunk: ChunkRef) -> Result<Buffer> {
    let frame = shared.client.get_chunk(&shared.run, chunk.digest, true).await?;
    shared.received_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
    let mut raw = shared.client.buffers().empty(0);
    blocking(move || {
        *raw = unframe(&frame, chunk)?;
        Ok(raw)
    })
    .await
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

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(bytes: &[u8]) -> ChunkRef {
        let (digest, size_bytes) = (Digest::of(bytes), bytes.len() as u64);
        ChunkRef { digest, size_bytes }
    }

    #[test]
    fn a_frame_of_other_bytes_is_refused() {
        let frame = frame::encode_raw(b"abc");
        assert_eq!(unframe(&frame, chunk(b"abc")).unwrap(), b"abc");
        assert!(unframe(&frame, chunk(b"abd")).is_err());
        assert!(unframe(b"nonsense", chunk(b"abc")).is_err());
    }
}
