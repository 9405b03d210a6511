//! Floats sorted into byte planes: the exponents, whose frequencies are uneven, go through zstd; sign and mantissa, which
//! are noise, are kept as they are unless a sample says otherwise.
//!
//! Each element's bits are rotated left by one, so that the exponent fills the top byte and the sign moves to the lowest
//! bit (for bfloat16 and binary32; for binary16 the top byte holds the exponent and three bits of mantissa). Body: for
//! each plane, highest first: encoding (1 byte: 0 raw, 1 zstd), size (u32, little-endian), bytes.

use std::ops::Range;

use crate::frame::{Element, FrameError};
use crate::pack::{Packer, Style, Unpacker};

const SAMPLE_BYTES: usize = 32 << 10;
const PLANE_HEADER_BYTES: usize = 5;
/// Elements that are put together at a time: few enough to be still in the core's cache when they are hashed.
const PIECE_ELEMENTS: usize = 16 << 10;

/// Memory that is used again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    piece: Vec<u8>,
}

impl Scratch {
    /// That many bytes of it, whatever they hold.
    pub(crate) fn at_least(&mut self, n: usize) -> &mut [u8] {
        if self.bytes.len() < n {
            self.bytes.resize(n, 0);
        }
        &mut self.bytes[..n]
    }
}

/// Appends the planes of `raw` to a frame, unless they take no less than the bytes themselves: then what it holds is to
/// be thrown away.
pub(crate) fn encode(
    raw: &[u8],
    element: Element,
    packer: &mut Packer,
    scratch: &mut Scratch,
    frame: &mut Vec<u8>,
) -> bool {
    let (begin, width) = (frame.len(), element.width());
    let n = raw.len() / width;
    let plane = scratch.at_least(n);
    for at in 0..width {
        match width {
            2 => extract2(raw, at, plane),
            _ => extract4(raw, at, plane),
        }
        let packed = style(packer, &plane[..n.min(SAMPLE_BYTES)]).map(|style| packer.pack(style, plane));
        let (encoding, bytes) = match packed {
            Some(packed) if packed.len() < n => (1, packed),
            _ => (0, &*plane),
        };
        frame.push(encoding);
        frame.extend(
            u32::try_from(bytes.len())
                .expect("no more than a chunk's")
                .to_le_bytes(),
        );
        frame.extend_from_slice(bytes);
    }
    frame.len() - begin < raw.len()
}

/// How a plane is packed, where a sample of it gains a twentieth by it.
fn style(packer: &mut Packer, sample: &[u8]) -> Option<Style> {
    let symbols = packer.pack(Style::Symbols, sample).len();
    let matches = packer.pack(Style::Matches, sample).len();
    let (best, size) = match matches < symbols - symbols / 10 {
        true => (Style::Matches, matches),
        false => (Style::Symbols, symbols),
    };
    (size < sample.len() - sample.len() / 20).then_some(best)
}

// One plane at a time, and one function a width: loops that the compiler makes into vector instructions.

fn extract2(raw: &[u8], at: usize, plane: &mut [u8]) {
    let (elements, _) = raw.as_chunks::<2>();
    let rotated = elements.iter().map(|bytes| u16::from_le_bytes(*bytes).rotate_left(1));
    match at {
        0 => plane
            .iter_mut()
            .zip(rotated)
            .for_each(|(to, bits)| *to = (bits >> 8) as u8),
        _ => plane.iter_mut().zip(rotated).for_each(|(to, bits)| *to = bits as u8),
    }
}

fn extract4(raw: &[u8], at: usize, plane: &mut [u8]) {
    let (elements, _) = raw.as_chunks::<4>();
    let shift = 8 * (3 - at);
    let rotated = elements.iter().map(|bytes| u32::from_le_bytes(*bytes).rotate_left(1));
    plane
        .iter_mut()
        .zip(rotated)
        .for_each(|(to, bits)| *to = (bits >> shift) as u8);
}

/// Gives the bytes that planes were made of to `sink`, in order.
pub(crate) fn decode(
    body: &[u8],
    width: usize,
    raw_size: usize,
    unpacker: &mut Unpacker,
    scratch: &mut Scratch,
    sink: &mut impl FnMut(&[u8]),
) -> Result<(), FrameError> {
    if !raw_size.is_multiple_of(width) {
        return Err(FrameError::Damaged("its size is no multiple of its element's"));
    }
    let n = raw_size / width;
    let planes = unpack(body, n, width, unpacker, scratch)?;
    let (unpacked, piece) = (&scratch.bytes, &mut scratch.piece);
    piece.resize(PIECE_ELEMENTS * 4, 0);
    let plane = |at: usize| match &planes[at] {
        Plane::Raw(bytes) => *bytes,
        Plane::Unpacked(range) => &unpacked[range.clone()],
    };
    for begin in (0..n).step_by(PIECE_ELEMENTS) {
        let part = begin..n.min(begin + PIECE_ELEMENTS);
        let piece = &mut piece[..part.len() * width];
        let part = |at: usize| &plane(at)[part.clone()];
        match width {
            2 => join2([part(0), part(1)], piece),
            _ => join4([part(0), part(1), part(2), part(3)], piece),
        }
        sink(piece);
    }
    Ok(())
}

/// Where a plane's bytes are.
#[derive(Debug, Clone)]
enum Plane<'a> {
    /// In the frame.
    Raw(&'a [u8]),
    /// In the scratch.
    Unpacked(Range<usize>),
}

/// Checks the planes of a body and unpacks those that are packed.
fn unpack<'a>(
    mut body: &'a [u8],
    n: usize,
    width: usize,
    unpacker: &mut Unpacker,
    scratch: &mut Scratch,
) -> Result<Vec<Plane<'a>>, FrameError> {
    let mut planes = Vec::with_capacity(width);
    let mut used = 0;
    for _ in 0..width {
        let header = body
            .get(..PLANE_HEADER_BYTES)
            .ok_or(FrameError::Damaged("a plane is missing"))?;
        let size = u32::from_le_bytes(header[1..].try_into().expect("four bytes")) as usize;
        let end = PLANE_HEADER_BYTES
            .checked_add(size)
            .ok_or(FrameError::Damaged("a plane is too large"))?;
        let bytes = body
            .get(PLANE_HEADER_BYTES..end)
            .ok_or(FrameError::Damaged("a plane is cut short"))?;
        planes.push(match header[0] {
            0 if size == n => Plane::Raw(bytes),
            1 => {
                let range = used..used + n;
                unpacker.unpack(bytes, &mut scratch.at_least(range.end)[range.clone()])?;
                used = range.end;
                Plane::Unpacked(range)
            }
            _ => return Err(FrameError::Damaged("a plane has an impossible encoding or size")),
        });
        body = &body[end..];
    }
    match body.is_empty() {
        true => Ok(planes),
        false => Err(FrameError::Damaged("bytes follow its last plane")),
    }
}

fn join2([high, low]: [&[u8]; 2], raw: &mut [u8]) {
    let (elements, _) = raw.as_chunks_mut::<2>();
    for ((to, high), low) in elements.iter_mut().zip(high).zip(low) {
        *to = u16::from_be_bytes([*high, *low]).rotate_right(1).to_le_bytes();
    }
}

fn join4([a, b, c, d]: [&[u8]; 4], raw: &mut [u8]) {
    let (elements, _) = raw.as_chunks_mut::<4>();
    for ((((to, a), b), c), d) in elements.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *to = u32::from_be_bytes([*a, *b, *c, *d]).rotate_right(1).to_le_bytes();
    }
}
