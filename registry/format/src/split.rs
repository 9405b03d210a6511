//! The splitter: where a file is cut into chunks.
//!
//! In a container of weights the cuts follow the tensors: the header is a chunk of its own, every tensor (or storage)
//! of 16 KiB or more begins and ends a chunk and is cut in 16 MiB pieces, and what lies between is joined, never with a
//! large one. So the same tensor is the same chunk in either container and in any sharding. All else is cut by its
//! content (FastCDC, 1 MiB on average).
//!
//! **Invariant:** segments cover the file exactly and in order, and depend on nothing but its bytes and its name.

use std::io::{self, Read};

use fastcdc::v2020::{FastCDC, StreamCDC};

use crate::FormatError;
use crate::source::ReadAt;
use crate::weights::{Container, TensorLayout};
use crate::{safetensors, torch};

/// The largest piece of a tensor, and so the largest chunk.
pub const PIECE_BYTES: u64 = 16 << 20;

/// A tensor of this size or more is never joined with its neighbours.
pub const SMALL_TENSOR_BYTES: u64 = 16 << 10;

const CDC_MIN_BYTES: usize = 256 << 10;
const CDC_AVERAGE_BYTES: usize = 1 << 20;
const CDC_MAX_BYTES: usize = 4 << 20;

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// One chunk.
    Fixed {
        /// Where it begins.
        offset: u64,
        /// Its bytes, at most [`PIECE_BYTES`].
        size_bytes: u64,
        /// What its elements are, as far as it holds one tensor.
        element: crate::Element,
    },
    /// To be cut by its content.
    Cdc {
        /// Where it begins.
        offset: u64,
        /// Its bytes.
        size_bytes: u64,
    },
}

/// Where a file is to be cut. An empty file has no segment.
///
/// # Errors
/// [`FormatError`] when the file is a container that is damaged or lies about itself.
pub fn segments(source: &dyn ReadAt, file_name: &str) -> Result<(Container, Vec<Segment>), FormatError> {
    let container = Container::of(source, file_name)?;
    let size = source.size_bytes();
    let by_content = (size > 0).then_some(Segment::Cdc {
        offset: 0,
        size_bytes: size,
    });
    let segments = match container {
        Container::Other => Vec::from_iter(by_content),
        Container::Safetensors => {
            let file = safetensors::read(source, file_name)?;
            let values = file.tensors.iter().map(|tensor| match tensor.layout {
                TensorLayout::Contiguous { offset, size_bytes } => Span {
                    offset,
                    size_bytes,
                    element: tensor.dtype.into(),
                },
                TensorLayout::Strided { .. } => unreachable!("safetensors has no views"),
            });
            let header = Span {
                offset: 0,
                size_bytes: file.data_offset,
                element: crate::Element::Unknown,
            };
            let mut cuts = Cuts::default();
            cuts.pieces(header);
            cuts.follow(file.data_offset, values, size);
            cuts.segments
        }
        Container::TorchZip => {
            // A zip of something else, under a name that PyTorch uses too, is a file like any other.
            let Some(storages) = torch::storages(source, file_name)? else {
                return Ok((container, Vec::from_iter(by_content)));
            };
            let mut cuts = Cuts::default();
            cuts.follow(0, storages.into_iter(), size);
            cuts.segments
        }
    };
    Ok((container, segments))
}

/// A part of a file whose bytes belong together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) offset: u64,
    pub(crate) size_bytes: u64,
    pub(crate) element: crate::Element,
}

#[derive(Default)]
struct Cuts {
    segments: Vec<Segment>,
}

impl Cuts {
    /// Cuts from `begin` to `end`: each large value by itself, what lies between joined.
    fn follow(&mut self, begin: u64, values: impl Iterator<Item = Span>, end: u64) {
        let mut at = begin;
        for value in values.filter(|value| value.size_bytes >= SMALL_TENSOR_BYTES) {
            self.between(at, value.offset);
            self.pieces(value);
            at = value.offset + value.size_bytes;
        }
        self.between(at, end);
    }

    fn between(&mut self, begin: u64, end: u64) {
        self.pieces(Span {
            offset: begin,
            size_bytes: end - begin,
            element: crate::Element::Unknown,
        });
    }

    fn pieces(&mut self, span: Span) {
        let mut done = 0;
        while done < span.size_bytes {
            let size_bytes = PIECE_BYTES.min(span.size_bytes - done);
            self.segments.push(Segment::Fixed {
                offset: span.offset + done,
                size_bytes,
                element: span.element,
            });
            done += size_bytes;
        }
    }
}

/// Where `data` is cut by its content: the ends of its chunks.
pub fn cdc_cuts(data: &[u8]) -> Vec<usize> {
    let chunks = FastCDC::new(data, CDC_MIN_BYTES, CDC_AVERAGE_BYTES, CDC_MAX_BYTES);
    chunks.map(|chunk| chunk.offset + chunk.length).collect()
}

/// The cuts of the beginning of a stream that no further bytes can move; all of them where `is_all`. A chunk's end follows
/// from its first 4 MiB alone, so what is cut off and cut on later has the cuts of [`cdc_cuts`].
pub fn settled_cdc_cuts(data: &[u8], is_all: bool) -> Vec<usize> {
    let mut begin = 0;
    let mut cuts = cdc_cuts(data);
    cuts.retain(|&end| {
        let is_settled = is_all || begin + CDC_MAX_BYTES <= data.len();
        begin = end;
        is_settled
    });
    cuts
}

/// The chunks of a stream, cut by its content, in memory of a few chunks; the cuts of [`cdc_cuts`].
pub fn cdc_chunks(reader: impl Read) -> impl Iterator<Item = io::Result<Vec<u8>>> {
    let chunks = StreamCDC::new(reader, CDC_MIN_BYTES, CDC_AVERAGE_BYTES, CDC_MAX_BYTES);
    chunks.map(|chunk| chunk.map(|chunk| chunk.data).map_err(io::Error::from))
}
