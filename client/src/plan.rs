//! What a push will send: every file checked, split and hashed, before a byte moves.
//!
//! **Invariant:** chunk digests and the file's digest come from the same bytes of one pass; at most
//! [`N_FILES_AT_ONCE`] x 2 batches of [`BATCH_BYTES`] (and one chunk over) are in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use fineline_api::{CheckpointFile, ChunkRef};
use fineline_format::weights::{MAX_INDEX_BYTES, check_index, index_path, read_tensors, weight_files};
use fineline_format::{
    Container, Digest, Element, FileEntry, FormatError, Hasher, Manifest, ReadAt as _, Segment, cdc_chunks, segments,
};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::folder::{LocalFile, OpenFile};
use crate::progress::Meter;

const N_FILES_AT_ONCE: usize = 4;
const BATCH_BYTES: usize = 16 << 20;

/// A folder, split and hashed.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) manifest: Manifest,
    /// By path, as in the manifest.
    pub(crate) files: Vec<CheckpointFile>,
    /// Where each different chunk lies, in the order of the files.
    pub(crate) chunks: Vec<PlannedChunk>,
}

/// Where a chunk lies on disk.
#[derive(Debug, Clone)]
pub(crate) struct PlannedChunk {
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
    /// Which of the folder's files.
    pub(crate) file: usize,
    pub(crate) offset: u64,
    pub(crate) element: Element,
}

/// A file that is split and hashed.
struct Hashed {
    digest: Digest,
    chunks: Vec<(ChunkRef, Element)>,
}

/// Checks the files of a folder. One without weights is in order: the registry says why it can't be evaluated.
pub(crate) fn check(files: &[LocalFile]) -> Result<()> {
    // Only paths and sizes are looked at here: the digests are not known before everything was read.
    let nothing = Digest::of(b"");
    let manifest = manifest(files.iter().map(|file| (file, nothing)))?;
    let by_path: HashMap<&str, &LocalFile> = files.iter().map(|file| (file.path.as_str(), file)).collect();
    let index = index_path(&manifest);
    let index_json = index.as_deref().map(|path| read_index(by_path[path])).transpose()?;
    let mut names = BTreeMap::new();
    let Some(weights) = weight_files(&manifest, index_json.as_deref())? else {
        return Ok(());
    };
    for path in &weights.shards {
        let open = by_path[path.as_str()].open()?;
        let container = Container::of(&open, path)?;
        match read_tensors(&open, container, path) {
            Ok(tensors) => {
                let tensors: BTreeSet<String> = tensors.into_iter().map(|tensor| tensor.name).collect();
                names.insert(path.clone(), tensors);
            }
            // Its bytes can be kept all the same.
            Err(FormatError::LegacyTorch(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    if let (Some(index), Some(json)) = (index, index_json) {
        check_index(&index, &json, &names)?;
    }
    Ok(())
}

/// Checks the files of a folder that is a part of a checkpoint: what an index says of them shows at the commit.
pub(crate) fn check_part(files: &[LocalFile]) -> Result<()> {
    for local in files.iter().filter(|local| local.path.ends_with(".safetensors")) {
        read_tensors(&local.open()?, Container::Safetensors, &local.path)?;
    }
    Ok(())
}

/// Splits and hashes the files of a folder; blocking, on all cores.
pub(crate) fn plan(files: &[LocalFile], meter: &Meter) -> Result<Plan> {
    let cuts = files.iter().map(|local| {
        let (_, segments) = segments(&local.open()?, &local.path)?;
        Ok((local, segments))
    });
    // All headers are read before the first long file is: a lie in the last one shows at once.
    let cuts: Vec<_> = cuts.collect::<Result<_>>()?;
    let hashed = in_order(&cuts, |(local, segments)| hash(local, segments, meter))?;
    let manifest = manifest(files.iter().zip(&hashed).map(|(file, hashed)| (file, hashed.digest)))?;
    let mut seen = BTreeSet::new();
    let mut chunks = Vec::new();
    for (file, hashed) in hashed.iter().enumerate() {
        let mut offset = 0;
        for &(ChunkRef { digest, size_bytes }, element) in &hashed.chunks {
            if seen.insert(digest) {
                chunks.push(PlannedChunk {
                    digest,
                    size_bytes,
                    file,
                    offset,
                    element,
                });
            }
            offset += size_bytes;
        }
    }
    let files = files.iter().zip(hashed).map(|(local, hashed)| CheckpointFile {
        path: local.path.clone(),
        size_bytes: local.size_bytes,
        digest: hashed.digest,
        chunks: hashed.chunks.into_iter().map(|(chunk, _)| chunk).collect(),
    });
    Ok(Plan {
        manifest,
        files: files.collect(),
        chunks,
    })
}

/// Reads a planned chunk again.
pub(crate) fn read_chunk(local: &LocalFile, chunk: &PlannedChunk) -> Result<Vec<u8>> {
    let open = local.open()?;
    let mut raw = vec![0; usize::try_from(chunk.size_bytes).expect("a chunk has at most 16 MiB")];
    open.read_exact_at(chunk.offset, &mut raw)
        .map_err(|error| local.read_error(error))?;
    Ok(raw)
}

fn manifest<'a>(files: impl Iterator<Item = (&'a LocalFile, Digest)>) -> Result<Manifest> {
    let entries = files.map(|(file, digest)| FileEntry {
        path: file.path.clone(),
        size_bytes: file.size_bytes,
        digest,
    });
    Ok(Manifest::new(entries.collect())?)
}

fn read_index(local: &LocalFile) -> Result<Vec<u8>> {
    if local.size_bytes > MAX_INDEX_BYTES {
        let (path, size) = (&local.path, local.size_bytes);
        return Err(Error::Folder(format!(
            "index `{path}` has {size} bytes and may have {MAX_INDEX_BYTES}"
        )));
    }
    std::fs::read(&local.location).map_err(Error::io("read", &local.location))
}

/// Does `work` for each item, a few at once, and gives the results in the items' order. Threads of its own and not a
/// parallel iterator: there a thread that waits inside of one file would begin another, and memory had no bound.
fn in_order<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..N_FILES_AT_ONCE.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    let result = work(item);
                    if result.is_err() {
                        next.store(items.len(), Ordering::Relaxed);
                    }
                    results
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(at, result);
                }
            });
        }
    });
    // Items behind a failed one may be missing; then the failure is among those that are there.
    results
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .into_values()
        .collect()
}

/// Hashes one file: while a batch is hashed, chunk by chunk and as part of the file, the next one is read.
fn hash(local: &LocalFile, segments: &[Segment], meter: &Meter) -> Result<Hashed> {
    let open = local.open()?;
    let mut chunks = segments.iter().flat_map(|segment| read_segment(&open, *segment));
    let mut file_hasher = Hasher::new();
    let mut done = Vec::new();
    let mut batch = next_batch(&mut chunks).map_err(|error| local.read_error(error))?;
    while !batch.is_empty() {
        let (next, digests) = rayon::join(
            || next_batch(&mut chunks),
            || {
                let feed = || batch.iter().for_each(|(raw, _)| file_hasher.update(raw));
                let digests = || batch.par_iter().map(|(raw, _)| Digest::of(raw)).collect::<Vec<_>>();
                rayon::join(feed, digests).1
            },
        );
        for ((raw, element), digest) in batch.iter().zip(digests) {
            let size_bytes = raw.len() as u64;
            done.push((ChunkRef { digest, size_bytes }, *element));
            meter.add(size_bytes);
        }
        batch = next.map_err(|error| local.read_error(error))?;
    }
    local.check(&open)?;
    Ok(Hashed {
        digest: file_hasher.finish(),
        chunks: done,
    })
}

type Raw = (Vec<u8>, Element);

fn next_batch(chunks: &mut impl Iterator<Item = io::Result<Raw>>) -> io::Result<Vec<Raw>> {
    let mut batch = Vec::new();
    let mut size = 0;
    while size < BATCH_BYTES {
        let Some(chunk) = chunks.next().transpose()? else { break };
        size += chunk.0.len();
        batch.push(chunk);
    }
    Ok(batch)
}

fn read_segment(open: &OpenFile, segment: Segment) -> Box<dyn Iterator<Item = io::Result<Raw>> + Send + '_> {
    match segment {
        Segment::Fixed {
            offset,
            size_bytes,
            element,
        } => Box::new(std::iter::once_with(move || {
            let mut raw = vec![0; usize::try_from(size_bytes).map_err(io::Error::other)?];
            open.read_exact_at(offset, &mut raw)?;
            Ok((raw, element))
        })),
        Segment::Cdc { offset, size_bytes } => {
            let section = Section {
                open,
                offset,
                end: offset + size_bytes,
            };
            Box::new(cdc_chunks(section).map(|chunk| Ok((chunk?, Element::Unknown))))
        }
    }
}

/// A part of a file as a stream; one that ends early is an error, not an end.
struct Section<'a> {
    open: &'a OpenFile,
    offset: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let n = buf.len().min(left);
        self.open.read_exact_at(self.offset, &mut buf[..n])?;
        self.offset += n as u64;
        Ok(n)
    }
}
