//! One PyTorch file written as safetensors while its chunks come in.
//!
//! Where the tensors lie in it is read from its directory and its pickle where it is stored. Chunks end where storages
//! do, so most are written as they are, wherever a tensor has them; views that are not in row-major order are gathered
//! in memory, a block at a time.
//!
//! **Invariant:** every value that is written is of a chunk whose digest was compared, and the file is read back whole:
//! header by the reader, each tensor by its digest.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fineline_api::{CheckpointFile, ChunkRef};
use fineline_format::weights::{read_tensors, tensor_digest};
use fineline_format::{Container, Digest, Dtype, FormatError, Layout, ReadAt as _, Tensor, TensorLayout, gather};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::error::{Error, Result};
use crate::folder::OpenFile;
use crate::partial::{Partial, begin_sync, work};
use crate::pull::Shared;
use crate::receive::receive_verified;
use crate::remote_file::{Chunks, RemoteFile, read_error};

/// Chunks of one file that are fetched at once; the pull's semaphore bounds their bytes over all files.
const N_AHEAD: usize = 16;
/// So much of the views that are gathered is held in memory, over all files. Chunks are fetched once for each so many
/// bytes.
const GATHERED_BYTES: u64 = 64 << 20;

/// What a tensor adds to the weights digest.
pub(crate) type Row = (String, Dtype, Vec<u64>, Digest);

/// A file as it is stored and as it is written.
pub(crate) struct Shard {
    /// As it is stored.
    file: CheckpointFile,
    /// As what it is written.
    pub(crate) path: String,
    pub(crate) layout: Layout,
    /// The tensors' digests, in the order of the layout.
    digests: Vec<Digest>,
}

impl Shard {
    pub(crate) fn new(file: CheckpointFile, path: String, tensors: Vec<Row>) -> Result<Self> {
        let digests: HashMap<String, Digest> = tensors
            .iter()
            .map(|(name, _, _, digest)| (name.clone(), *digest))
            .collect();
        let tensors = tensors.into_iter().map(|(name, dtype, shape, _)| (name, dtype, shape));
        let layout = Layout::new(&file.path, tensors)?;
        Ok(Self {
            digests: layout.tensors.iter().map(|tensor| digests[&tensor.name]).collect(),
            file,
            path,
            layout,
        })
    }

    /// What its tensors add to the weights digest.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        let tensors = self.layout.tensors.iter().zip(&self.digests);
        tensors.map(|(tensor, digest)| (tensor.name.clone(), tensor.dtype, tensor.shape.clone(), *digest))
    }

    /// Whether the file at `to`, which has its size, is it; blocking.
    pub(crate) fn is_at(&self, to: &Path) -> Result<bool> {
        let open = || {
            let file = std::fs::File::open(to)?;
            let size_bytes = file.metadata()?.len();
            Ok(OpenFile { file, size_bytes })
        };
        let file = open().map_err(Error::io("read", to))?;
        let mut header = vec![0; self.layout.header.len()];
        let read = file.read_exact_at(0, &mut header);
        match read {
            Ok(()) if header != self.layout.header => Ok(false),
            Ok(()) => Ok(self.held(&file, file.size_bytes)?.into_iter().all(|is_held| is_held)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(Error::io("read", to)(error)),
        }
    }

    /// Which tensors a file has where they belong, of which `n_bytes` are worth a look; blocking.
    fn held(&self, file: &OpenFile, n_bytes: u64) -> Result<Vec<bool>, FormatError> {
        let is_held = |(tensor, digest): (&Tensor, &Digest)| {
            if span(tensor).end > n_bytes {
                return Ok(false);
            }
            Ok(tensor_digest(file, tensor, &|_, _| None)? == *digest)
        };
        self.layout.tensors.iter().zip(&self.digests).map(is_held).collect()
    }
}

/// Where a tensor lies, with what lies between its values.
fn span(tensor: &Tensor) -> Range<u64> {
    let (TensorLayout::Contiguous { offset, size_bytes } | TensorLayout::Strided { offset, size_bytes, .. }) =
        tensor.layout;
    offset..offset + size_bytes
}

/// A chunk, and which of its bytes go where.
struct Spread {
    chunk: ChunkRef,
    copies: Vec<(Range<usize>, u64)>,
}

/// Some row-major bytes of a view, and where they go.
#[derive(Clone)]
struct Block {
    tensor: Arc<Tensor>,
    first: u64,
    size_bytes: u64,
    to: u64,
}

/// What is to be done for a file.
#[derive(Default)]
struct Moves {
    spreads: Vec<Spread>,
    /// At most [`GATHERED_BYTES`] each.
    gathers: Vec<Vec<Block>>,
}

/// Puts a file together beside its name, and gives its rows as they are read back from it; what is there already of an
/// interrupted pull is kept.
pub(crate) async fn write(shared: &Arc<Shared>, shard: &Arc<Shard>, to: &Path) -> Result<(Arc<Partial>, Vec<Row>)> {
    let (meant, to) = (Arc::clone(shard), to.to_owned());
    let (partial, held) = work(shared, move || open(&meant, &to)).await?;
    let partial = Arc::new(partial);
    let kept = shard.layout.tensors.iter().zip(&held).filter(|(_, held)| **held);
    let kept_bytes = kept.map(|(tensor, _)| tensor.size_bytes()).sum();
    shared.kept_bytes.fetch_add(kept_bytes, Ordering::Relaxed);
    shared.meter.add(kept_bytes + shard.layout.header.len() as u64);
    if held.contains(&false) {
        let chunks = Arc::new(Chunks::of(&shard.file));
        let moves = plan(shard, &stored_tensors(shared, shard).await?, &held, &chunks)?;
        let expected = moves.spreads.iter().map(|spread| spread.chunk);
        shared
            .direct
            .expect(expected.map(|chunk| (chunk.digest, chunk.size_bytes)))
            .await;
        let spreads = moves
            .spreads
            .into_iter()
            .map(|spread| spread_out(shared, &partial, spread));
        futures::stream::iter(spreads)
            .buffer_unordered(N_AHEAD)
            .try_for_each(|()| async { Ok(()) })
            .await?;
        for blocks in moves.gathers {
            gather_blocks(shared, &partial, &chunks, blocks).await?;
        }
    }
    let (written, meant) = (Arc::clone(&partial), Arc::clone(shard));
    let rows = work(shared, move || compare(&written, &meant)).await?;
    Ok((partial, rows))
}

fn open(shard: &Shard, to: &Path) -> Result<(Partial, Vec<bool>)> {
    let (partial, n_bytes) = Partial::open(to, shard.layout.size_bytes)?;
    let held = shard.held(&partial.file, n_bytes)?;
    partial.write(&shard.layout.header, 0)?;
    Ok((partial, held))
}

/// The tensors as they lie in the stored file.
async fn stored_tensors(shared: &Arc<Shared>, shard: &Shard) -> Result<Vec<Tensor>> {
    let reader = Arc::new(());
    let (file, name) = (
        RemoteFile::open(shared, &shard.file, &reader).await?,
        shard.file.path.clone(),
    );
    let read = move || read_tensors(&file, Container::of(&file, &name)?, &name);
    let tensors = work(shared, read).await.map_err(read_error);
    drop(reader);
    tensors
}

/// Finds out which bytes go where.
fn plan(shard: &Shard, stored: &[Tensor], held: &[bool], chunks: &Chunks) -> Result<Moves> {
    let stored: HashMap<&str, &Tensor> = stored.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let (mut spreads, mut blocks) = (BTreeMap::new(), Vec::new());
    for (tensor, _) in shard.layout.tensors.iter().zip(held).filter(|(_, held)| !**held) {
        let same = |from: &&&Tensor| (from.dtype, &from.shape) == (tensor.dtype, &tensor.shape);
        let from = stored
            .get(tensor.name.as_str())
            .filter(same)
            .ok_or_else(|| Error::Corrupt {
                what: "the list of tensors".to_owned(),
                digest: shard.file.digest,
                reason: format!("`{}` does not hold `{}` as it is listed", shard.file.path, tensor.name),
            })?;
        let to = span(tensor).start;
        match from.layout {
            TensorLayout::Contiguous { .. } => spread(&mut spreads, chunks, span(from), to),
            TensorLayout::Strided { .. } => cut(&mut blocks, from, to),
        }
    }
    let mut spreads: Vec<(u64, Spread)> = spreads.into_values().collect();
    spreads.sort_by_key(|(at, _)| *at);
    Ok(Moves {
        spreads: spreads.into_iter().map(|(_, spread)| spread).collect(),
        gathers: batches(blocks),
    })
}

/// Has the bytes of the stored file go to `to`, chunk by chunk; a chunk that stands in it twice is fetched once.
fn spread(spreads: &mut BTreeMap<Digest, (u64, Spread)>, chunks: &Chunks, from: Range<u64>, to: u64) {
    for (at, chunk) in chunks.within(&from) {
        let part = from.start.max(at)..from.end.min(at + chunk.size_bytes);
        if part.is_empty() {
            continue;
        }
        let place = |offset: u64| usize::try_from(offset - at).expect("inside of a chunk");
        let (_, spread) = spreads.entry(chunk.digest).or_insert_with(|| {
            let copies = Vec::new();
            (at, Spread { chunk, copies })
        });
        let copy = (place(part.start)..place(part.end), to + part.start - from.start);
        spread.copies.push(copy);
    }
}

/// Cuts a view's values in blocks of whole elements.
fn cut(blocks: &mut Vec<Block>, tensor: &Tensor, to: u64) {
    let tensor = Arc::new(tensor.clone());
    let mut first = 0;
    while first < tensor.size_bytes() {
        let size_bytes = GATHERED_BYTES.min(tensor.size_bytes() - first);
        blocks.push(Block {
            tensor: Arc::clone(&tensor),
            first,
            size_bytes,
            to: to + first,
        });
        first += size_bytes;
    }
}

/// Puts blocks together that are held in memory at once.
fn batches(blocks: Vec<Block>) -> Vec<Vec<Block>> {
    let mut batches: Vec<Vec<Block>> = Vec::new();
    let mut left_bytes = 0;
    for block in blocks {
        match batches.last_mut() {
            Some(batch) if block.size_bytes <= left_bytes => {
                left_bytes -= block.size_bytes;
                batch.push(block);
            }
            _ => {
                left_bytes = GATHERED_BYTES - block.size_bytes;
                batches.push(vec![block]);
            }
        }
    }
    batches
}

/// Fetches a chunk and writes its bytes where they go.
async fn spread_out(shared: &Arc<Shared>, partial: &Arc<Partial>, spread: Spread) -> Result<()> {
    let (raw, permit) = receive_verified(shared, spread.chunk).await?;
    let n_bytes = spread.copies.iter().map(|(part, _)| part.len() as u64).sum();
    let to = Arc::clone(partial);
    work(shared, move || {
        let mut copies = spread.copies.into_iter();
        let written = copies.try_for_each(|(part, offset)| to.write(&raw[part], offset));
        drop(permit);
        written
    })
    .await?;
    begin_sync(shared, partial, n_bytes).await;
    fail_point!("pull.chunk_written");
    shared.meter.add(n_bytes);
    Ok(())
}

/// Gathers blocks of views in memory from the chunks that they reach over, and writes them.
async fn gather_blocks(
    shared: &Arc<Shared>,
    partial: &Arc<Partial>,
    chunks: &Chunks,
    blocks: Vec<Block>,
) -> Result<()> {
    let _turn = shared.gathering.lock().await;
    let mut wanted = BTreeMap::new();
    for block in &blocks {
        let extent = gather::extent(&block.tensor, block.first..block.first + block.size_bytes);
        wanted.extend(chunks.within(&extent));
    }
    let n_bytes = blocks.iter().map(|block| block.size_bytes).sum();
    let mut gathered: Vec<(Block, Vec<u8>)> = blocks
        .into_iter()
        .map(|block| {
            let n = usize::try_from(block.size_bytes).expect("bounded where it is cut");
            (block, vec![0; n])
        })
        .collect();
    let fetches = wanted.into_iter().map(|(at, chunk)| async move {
        let (raw, permit) = receive_verified(shared, chunk).await?;
        Ok::<_, Error>((at, raw, permit))
    });
    let mut fetched = futures::stream::iter(fetches).buffer_unordered(N_AHEAD);
    while let Some((at, raw, permit)) = fetched.try_next().await? {
        gathered = work(shared, move || {
            for (block, values) in &mut gathered {
                gather::fill(values, block.first, &block.tensor, &raw, at);
            }
            drop(permit);
            gathered
        })
        .await;
    }
    let to = Arc::clone(partial);
    work(shared, move || {
        let mut gathered = gathered.iter();
        gathered.try_for_each(|(block, values)| to.write(values, block.to))
    })
    .await?;
    begin_sync(shared, partial, n_bytes).await;
    shared.meter.add(n_bytes);
    Ok(())
}

/// Reads a written file back, compares each tensor, and gives what they add to the weights digest; blocking.
fn compare(partial: &Partial, shard: &Shard) -> Result<Vec<Row>> {
    let tensors = read_tensors(&partial.file, Container::Safetensors, &shard.path)?;
    let listed: HashMap<String, Digest> = shard.rows().map(|(name, _, _, digest)| (name, digest)).collect();
    let mut rows = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let written = tensor_digest(&partial.file, &tensor, &|_, _| None)?;
        // A name that is not listed shows in the weights digest.
        if let Some(digest) = listed.get(&tensor.name).filter(|digest| **digest != written) {
            return Err(Error::Corrupt {
                what: format!("tensor `{}` of `{}`", tensor.name, partial.path.display()),
                digest: *digest,
                reason: format!("as written it has `{written}`"),
            });
        }
        rows.push((tensor.name, tensor.dtype, tensor.shape, written));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of chunks of so many bytes; those of one size are one chunk.
    fn stored(sizes: &[u64]) -> CheckpointFile {
        let chunk = |size_bytes: &u64| ChunkRef {
            digest: Digest::of(&size_bytes.to_le_bytes()),
            size_bytes: *size_bytes,
        };
        CheckpointFile {
            path: "pytorch_model.bin".to_owned(),
            size_bytes: sizes.iter().sum(),
            digest: Digest::of(b""),
            chunks: sizes.iter().map(chunk).collect(),
        }
    }

    fn tensor(name: &str, shape: &[u64], layout: TensorLayout) -> Tensor {
        Tensor {
            name: name.to_owned(),
            dtype: Dtype::U8,
            shape: shape.to_vec(),
            layout,
        }
    }

    #[test]
    fn a_chunk_is_fetched_once_for_all_that_is_in_it_and_not_for_what_is_there() {
        // Given a file of four chunks, of which the second and the third are the same, and tensors over parts of them
        let file = stored(&[10, 20, 20, 30]);
        let in_one = |offset, size_bytes| TensorLayout::Contiguous { offset, size_bytes };
        let stored = [
            tensor("a", &[30], in_one(15, 30)),
            tensor("tied", &[30], in_one(15, 30)),
            tensor("none", &[0], in_one(0, 0)),
            tensor("there", &[25], in_one(52, 25)),
            tensor(
                "view",
                &[3, 2],
                TensorLayout::Strided {
                    offset: 51,
                    size_bytes: 6,
                    strides: vec![1, 3],
                },
            ),
        ];
        let row = |tensor: &Tensor| {
            (
                tensor.name.clone(),
                tensor.dtype,
                tensor.shape.clone(),
                Digest::of(b"x"),
            )
        };
        let shard = Shard::new(file, "model.safetensors".to_owned(), stored.iter().map(row).collect()).unwrap();
        let held: Vec<bool> = shard
            .layout
            .tensors
            .iter()
            .map(|tensor| tensor.name == "there")
            .collect();
        // When it is planned
        let moves = plan(&shard, &stored, &held, &Chunks::of(&shard.file)).unwrap();
        // Then the one chunk goes to both places of both tensors, and what is there is not asked for.
        let to = |name: &str| {
            let found = shard.layout.tensors.iter().find(|tensor| tensor.name == name);
            span(found.unwrap()).start
        };
        assert_eq!(moves.spreads.len(), 1);
        let (a, tied) = (to("a"), to("tied"));
        assert_eq!(
            moves.spreads[0].copies,
            [(5..20, a), (0..15, a + 15), (5..20, tied), (0..15, tied + 15)]
        );
        let [blocks] = &moves.gathers[..] else {
            panic!("one batch")
        };
        assert_eq!((blocks.len(), blocks[0].size_bytes, blocks[0].to), (1, 6, to("view")));
        // And a file that holds something else than is listed is refused by the tensor's name.
        let error = plan(&shard, &stored[1..], &held, &Chunks::of(&shard.file)).err();
        assert!(error.unwrap().to_string().contains("list of tensors"));
    }

    #[test]
    fn views_are_gathered_in_blocks_that_are_bounded_together() {
        let view = |name: &str, n: u64| {
            let strides = vec![1, n];
            let layout = TensorLayout::Strided {
                offset: 0,
                size_bytes: n * 3,
                strides,
            };
            tensor(name, &[n, 3], layout)
        };
        let mut blocks = Vec::new();
        for (at, n) in [(0, 10), (100, GATHERED_BYTES), (200, 20)] {
            cut(&mut blocks, &view("w", n), at);
        }
        let batches = batches(blocks);
        let sizes = |batch: &Vec<Block>| batch.iter().map(|block| block.size_bytes).collect::<Vec<_>>();
        let whole = GATHERED_BYTES;
        assert_eq!(
            batches.iter().map(sizes).collect::<Vec<_>>(),
            [vec![30], vec![whole], vec![whole], vec![whole], vec![60]]
        );
        assert_eq!((batches[2][0].first, batches[2][0].to), (whole, 100 + whole));
    }
}
