//! The one pass over a folder's bytes: each piece is read once, hashed as a chunk and as a part of its file, and handed on
//! to be sent, where it is to be.
//!
//! **Invariant:** a chunk's digest, its file's and what is sent of it come from the same bytes in memory; at most
//! [`HELD_BYTES`] of them are there at a time.

use std::io::{self, Read};
use std::iter::Peekable;
use std::sync::Arc;

use fineline_api::{CheckpointFile, ChunkRef};
use fineline_format::{Buffer, Buffers, Digest, Element, Hasher, PIECE_BYTES, ReadAt as _, Segment, cdc_chunks};
use futures::{StreamExt as _, TryStreamExt as _};
use rayon::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::folder::{LocalFile, OpenFile};
use crate::plan::{Plan, manifest};
use crate::progress::Meter;
use crate::send::Sender;

/// Files that are read at the same time.
const N_FILES_AT_ONCE: usize = 4;
/// Batches that are asked about, encoded or sent; the bytes bound them before this does.
const N_BATCHES: usize = 16;
/// Raw bytes of chunks that are read, encoded or on their way.
const HELD_BYTES: u32 = 80 << 20;
/// What is hashed twice while it is in a core's cache.
const BLOCK_BYTES: usize = 128 << 10;
/// The most that one batch holds: the largest chunk.
const BATCH_BYTES: u32 = PIECE_BYTES as u32;

/// Chunks that were read and hashed together.
pub(crate) struct Batch {
    pub(crate) pieces: Vec<Piece>,
    /// Given back when the last of them is gone.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// A chunk in memory.
pub(crate) struct Piece {
    pub(crate) chunk: ChunkRef,
    pub(crate) element: Element,
    pub(crate) raw: Raw,
}

/// The bytes of a chunk.
pub(crate) enum Raw {
    Buffer(Buffer),
    Vec(Vec<u8>),
}

impl AsRef<[u8]> for Raw {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Buffer(bytes) => bytes,
            Self::Vec(bytes) => bytes,
        }
    }
}

/// Where a folder's files are cut.
pub(crate) type Cuts = Arc<Vec<(LocalFile, Vec<Segment>)>>;

/// Reads, splits and hashes the files of a folder, and sends what is missing of them where there is a `sender`.
pub(crate) async fn pass(cuts: &Cuts, sender: Option<&Sender>, buffers: &Buffers, meter: &Meter) -> Result<Plan> {
    let held = Arc::new(Semaphore::new(HELD_BYTES as usize));
    let (batches, mut waiting) = mpsc::unbounded_channel();
    let hand_on = sender.map(|_| batches);
    let n_long = cuts
        .iter()
        .filter(|(local, _)| local.size_bytes > u64::from(HELD_BYTES))
        .count();
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores_are_busy = n_long.min(N_FILES_AT_ONCE) >= n_cores;
    let reading = async {
        let reads = (0..cuts.len()).map(|at| {
            let (cuts, meter) = (Arc::clone(cuts), meter.clone());
            let reader = Reader {
                handle: Handle::current(),
                held: Arc::clone(&held),
                buffers: buffers.clone(),
                hand_on: hand_on.clone(),
                meter,
                cores_are_busy,
            };
            blocking(move || reader.read(&cuts[at].0, &cuts[at].1))
        });
        let files = futures::stream::iter(reads)
            .buffered(N_FILES_AT_ONCE)
            .try_collect()
            .await;
        // The sending ends when nobody can hand on any more.
        drop(hand_on);
        files
    };
    let sending = async {
        let Some(sender) = sender else { return Ok(()) };
        futures::stream::poll_fn(|context| waiting.poll_recv(context))
            .map(|batch| sender.clone().offer(batch, meter.clone()))
            .buffer_unordered(N_BATCHES)
            .try_for_each(|()| async { Ok(()) })
            .await
    };
    let passed = tokio::try_join!(reading, sending);
    // Threads that still read for a pass that failed stop at their next batch.
    held.close();
    let files: Vec<CheckpointFile> = passed?.0;
    let manifest = manifest(cuts.iter().zip(&files).map(|((local, _), file)| (local, file.digest)))?;
    Ok(Plan { manifest, files })
}

/// What one thread reads with.
struct Reader {
    handle: Handle,
    held: Arc<Semaphore>,
    buffers: Buffers,
    hand_on: Option<mpsc::UnboundedSender<Batch>>,
    meter: Meter,
    /// Whether there are as many long files as cores.
    cores_are_busy: bool,
}

/// A chunk that was read and not yet hashed.
type Read1 = (Raw, Element);

impl Reader {
    /// Reads one file to its end: the chunks of a batch are hashed each on a core, and beside them the file, in order.
    fn read(&self, local: &LocalFile, segments: &[Segment]) -> Result<CheckpointFile> {
        let open = local.open()?;
        let mut cuts = segments.iter().flat_map(|segment| cuts(&open, segment)).peekable();
        let mut file_hasher = Hasher::new();
        let mut chunks = Vec::new();
        while cuts.peek().is_some() {
            let permit = self
                .handle
                .block_on(Arc::clone(&self.held).acquire_many_owned(BATCH_BYTES));
            // Closed when the push has failed elsewhere; what is told of it stands there.
            let Ok(permit) = permit else {
                return Err(Error::Changed(local.location.clone()));
            };
            let read = next_batch(&mut cuts, &open, &self.buffers).map_err(|error| local.read_error(error))?;
            let digests = self.hash(&read, &mut file_hasher);
            let pieces: Vec<Piece> = read.into_iter().zip(digests).map(piece).collect();
            chunks.extend(pieces.iter().map(|piece| piece.chunk));
            self.pass_on(pieces, permit);
        }
        local.check(&open)?;
        Ok(CheckpointFile {
            path: local.path.clone(),
            size_bytes: local.size_bytes,
            digest: file_hasher.finish(),
            chunks,
        })
    }

    /// Hashes a batch as chunks and as the next part of their file. Where the cores have files of their own each does both
    /// by blocks, the second time out of its cache; else both go on beside each other.
    fn hash(&self, read: &[Read1], file_hasher: &mut Hasher) -> Vec<Digest> {
        if !self.cores_are_busy {
            let feed = || read.iter().for_each(|(raw, _)| file_hasher.update(raw.as_ref()));
            let digest = || read.par_iter().map(|(raw, _)| Digest::of(raw.as_ref())).collect();
            let ((), digests) = rayon::join(feed, digest);
            return digests;
        }
        let both = |(raw, _): &Read1| {
            let mut hasher = Hasher::new();
            for block in raw.as_ref().chunks(BLOCK_BYTES) {
                hasher.update(block);
                file_hasher.update(block);
            }
            hasher.finish()
        };
        read.iter().map(both).collect()
    }

    fn pass_on(&self, pieces: Vec<Piece>, mut permit: OwnedSemaphorePermit) {
        let size_bytes: u64 = pieces.iter().map(|piece| piece.chunk.size_bytes).sum();
        match &self.hand_on {
            Some(batches) => {
                let unused = u64::from(BATCH_BYTES).saturating_sub(size_bytes);
                drop(permit.split(usize::try_from(unused).expect("less than a batch")));
                // Nobody takes it when the sending has failed.
                drop(batches.send(Batch { pieces, permit }));
            }
            None => self.meter.add(size_bytes),
        }
    }
}

fn piece(((raw, element), digest): (Read1, Digest)) -> Piece {
    let size_bytes = raw.as_ref().len() as u64;
    Piece {
        chunk: ChunkRef { digest, size_bytes },
        element,
        raw,
    }
}

/// The next chunk of a file.
enum Cut {
    /// Still to be read.
    Fixed {
        offset: u64,
        size_bytes: usize,
        element: Element,
    },
    /// Read, since only its bytes said where it ends.
    Cdc(io::Result<Vec<u8>>),
}

impl Cut {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Fixed { size_bytes, .. } => *size_bytes,
            Self::Cdc(read) => read.as_ref().map_or(0, Vec::len),
        }
    }

    fn read(self, open: &OpenFile, buffers: &Buffers) -> io::Result<Read1> {
        match self {
            Self::Fixed {
                offset,
                size_bytes,
                element,
            } => {
                let mut raw = buffers.filled(size_bytes);
                open.read_exact_at(offset, &mut raw)?;
                Ok((Raw::Buffer(raw), element))
            }
            Self::Cdc(read) => Ok((Raw::Vec(read?), Element::Unknown)),
        }
    }
}

fn cuts<'a>(open: &'a OpenFile, segment: &Segment) -> Box<dyn Iterator<Item = Cut> + 'a> {
    match *segment {
        Segment::Fixed {
            offset,
            size_bytes,
            element,
        } => Box::new(std::iter::once(Cut::Fixed {
            offset,
            size_bytes: usize::try_from(size_bytes).expect("a chunk has at most 16 MiB"),
            element,
        })),
        Segment::Cdc { offset, size_bytes } => {
            let section = Section {
                open,
                offset,
                end: offset + size_bytes,
            };
            Box::new(cdc_chunks(section).map(Cut::Cdc))
        }
    }
}

/// The next chunks that fit into a batch; one at least, since none is larger than that.
fn next_batch(
    cuts: &mut Peekable<impl Iterator<Item = Cut>>,
    open: &OpenFile,
    buffers: &Buffers,
) -> io::Result<Vec<Read1>> {
    let mut batch = Vec::new();
    let mut left = BATCH_BYTES as usize;
    while let Some(cut) = cuts.next_if(|cut| cut.size_bytes() <= left) {
        left -= cut.size_bytes();
        batch.push(cut.read(open, buffers)?);
    }
    Ok(batch)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Phase;

    #[tokio::test]
    async fn a_batch_is_hashed_the_same_beside_each_other_and_by_blocks() {
        let bytes: Vec<u8> = (0..3 * BLOCK_BYTES + 5).map(|n| (n / 3) as u8).collect();
        let raw = |range: std::ops::Range<usize>| (Raw::Vec(bytes[range].to_vec()), Element::Unknown);
        let read = [raw(0..7), raw(7..2 * BLOCK_BYTES), raw(2 * BLOCK_BYTES..bytes.len())];
        for cores_are_busy in [false, true] {
            let reader = Reader {
                handle: Handle::current(),
                held: Arc::new(Semaphore::new(0)),
                buffers: Buffers::new(0),
                hand_on: None,
                meter: Meter::new(|_| {}, Phase::Hashing, 0),
                cores_are_busy,
            };
            let mut file_hasher = Hasher::new();
            let digests = reader.hash(&read, &mut file_hasher);
            assert_eq!(file_hasher.finish(), Digest::of(&bytes), "{cores_are_busy}");
            let each: Vec<_> = read.iter().map(|(raw, _)| Digest::of(raw.as_ref())).collect();
            assert_eq!(digests, each, "{cores_are_busy}");
        }
    }
}
