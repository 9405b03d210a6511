//! A file's recipe: its chunks in order, packed for its column: 40 bytes a chunk, digest then raw size (u64,
//! little-endian).

use fineline_api::ChunkRef;
use fineline_format::{Digest, MAX_CHUNK_BYTES};

const ENTRY_BYTES: usize = 40;

/// The most chunks of one file: 64 TiB of 16 MiB pieces would not fit a manifest's bounds anyway.
const MAX_CHUNKS: usize = 1 << 20;

/// Packs a recipe.
pub(crate) fn pack(chunks: &[ChunkRef]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(chunks.len() * ENTRY_BYTES);
    for chunk in chunks {
        packed.extend_from_slice(chunk.digest.as_bytes());
        packed.extend_from_slice(&chunk.size_bytes.to_le_bytes());
    }
    packed
}

/// Unpacks a recipe; what is left of a damaged one is dropped, which its sizes then show.
pub(crate) fn unpack(packed: &[u8]) -> Vec<ChunkRef> {
    let (entries, _) = packed.as_chunks::<ENTRY_BYTES>();
    let unpack = |entry: &[u8; ENTRY_BYTES]| {
        let (digest, size) = entry.split_at(32);
        ChunkRef {
            digest: Digest::from_bytes(digest.try_into().expect("32 of 40 bytes")),
            size_bytes: u64::from_le_bytes(size.try_into().expect("8 of 40 bytes")),
        }
    };
    entries.iter().map(unpack).collect()
}

/// Checks a recipe that a client sent: each chunk 1 byte to 16 MiB, together the file.
///
/// # Errors
/// A sentence that names the path and the rule.
pub(crate) fn check(path: &str, size_bytes: u64, chunks: &[ChunkRef]) -> Result<(), String> {
    if chunks.len() > MAX_CHUNKS {
        return Err(format!(
            "file `{path}` has {} chunks and may have {MAX_CHUNKS}",
            chunks.len()
        ));
    }
    if let Some(at) = chunks
        .iter()
        .position(|chunk| !(1..=MAX_CHUNK_BYTES as u64).contains(&chunk.size_bytes))
    {
        let size = chunks[at].size_bytes;
        return Err(format!(
            "chunk {at} of file `{path}` has {size} bytes: a chunk has 1 to {MAX_CHUNK_BYTES}"
        ));
    }
    let total: u64 = chunks.iter().map(|chunk| chunk.size_bytes).sum();
    if total == size_bytes {
        Ok(())
    } else {
        Err(format!(
            "the chunks of file `{path}` have {total} bytes together, the file {size_bytes}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_survives_its_column() {
        let chunks: Vec<_> = (0..5u64)
            .map(|i| ChunkRef {
                digest: Digest::of(&i.to_le_bytes()),
                size_bytes: i * 1000 + 1,
            })
            .collect();
        assert_eq!(unpack(&pack(&chunks)), chunks);
    }

    #[test]
    fn sizes_that_lie_are_refused() {
        let chunk = |size_bytes| ChunkRef {
            digest: Digest::of(b"x"),
            size_bytes,
        };
        assert!(check("a", 3, &[chunk(1), chunk(2)]).is_ok());
        assert!(check("a", 0, &[]).is_ok());
        for (size, chunks) in [
            (4, vec![chunk(3)]),
            (0, vec![chunk(0)]),
            (17 << 20, vec![chunk(17 << 20)]),
        ] {
            assert!(check("a", size, &chunks).unwrap_err().contains("`a`"));
        }
    }
}
