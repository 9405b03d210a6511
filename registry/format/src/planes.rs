//! Floats sorted into byte planes: the exponents, which repeat, go through zstd; sign and mantissa, which are noise,
//! are kept as they are unless a sample says otherwise.
//!
//! Each element's bits are rotated left by one, so that the exponent fills the top byte and the sign moves to the lowest
//! bit (for bfloat16 and binary32; for binary16 the top byte holds the exponent and three bits of mantissa). Body: for
//! each plane, highest first: encoding (1 byte: 0 raw, 1 zstd), size (u32, little-endian), bytes.

use crate::frame::{Element, FrameError, zstd_decode, zstd_encode};

const SAMPLE_BYTES: usize = 32 << 10;
const PLANE_HEADER_BYTES: usize = 5;

/// The planes of `raw`, or `None` when they take no less than the bytes themselves.
pub(crate) fn encode(raw: &[u8], element: Element) -> Option<Vec<u8>> {
    let width = element.width();
    let n = raw.len() / width;
    let planes = match width {
        2 => split::<2>(raw, |bytes| u16::from_le_bytes(bytes).rotate_left(1).to_be_bytes()),
        _ => split::<4>(raw, |bytes| u32::from_le_bytes(bytes).rotate_left(1).to_be_bytes()),
    };
    let mut body = Vec::with_capacity(raw.len());
    for plane in planes.chunks_exact(n) {
        let sample = &plane[..n.min(SAMPLE_BYTES)];
        let gains = zstd_encode(sample).len() < sample.len() - sample.len() / 20;
        let packed = gains.then(|| zstd_encode(plane)).filter(|packed| packed.len() < n);
        let (encoding, bytes) = packed.as_deref().map_or((0, plane), |packed| (1, packed));
        body.push(encoding);
        body.extend(u32::try_from(bytes.len()).ok()?.to_le_bytes());
        body.extend(bytes);
    }
    (body.len() < raw.len()).then_some(body)
}

/// All planes behind one another, each of `raw.len() / WIDTH` bytes.
fn split<const WIDTH: usize>(raw: &[u8], rotate: impl Fn([u8; WIDTH]) -> [u8; WIDTH]) -> Vec<u8> {
    let n = raw.len() / WIDTH;
    let mut planes = vec![0; n * WIDTH];
    let (elements, _) = raw.as_chunks::<WIDTH>();
    for (i, &element) in elements.iter().enumerate() {
        for (plane, byte) in rotate(element).into_iter().enumerate() {
            planes[plane * n + i] = byte;
        }
    }
    planes
}

/// The bytes that planes were made of.
pub(crate) fn decode(mut body: &[u8], width: usize, raw_size: usize) -> Result<Vec<u8>, FrameError> {
    if !raw_size.is_multiple_of(width) {
        return Err(FrameError::Damaged("its size is no multiple of its element's"));
    }
    let n = raw_size / width;
    let mut planes = Vec::with_capacity(raw_size);
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
        let before = planes.len();
        match header[0] {
            0 if size == n => planes.extend_from_slice(bytes),
            1 => planes.extend(zstd_decode(bytes, n)?),
            _ => return Err(FrameError::Damaged("a plane has an impossible encoding or size")),
        }
        if planes.len() - before != n {
            return Err(FrameError::Damaged("a plane has the wrong size"));
        }
        body = &body[end..];
    }
    if !body.is_empty() {
        return Err(FrameError::Damaged("bytes follow its last plane"));
    }
    Ok(match width {
        2 => join::<2>(&planes, |bytes| u16::from_be_bytes(bytes).rotate_right(1).to_le_bytes()),
        _ => join::<4>(&planes, |bytes| u32::from_be_bytes(bytes).rotate_right(1).to_le_bytes()),
    })
}

fn join<const WIDTH: usize>(planes: &[u8], rotate: impl Fn([u8; WIDTH]) -> [u8; WIDTH]) -> Vec<u8> {
    let n = planes.len() / WIDTH;
    let mut raw = vec![0; planes.len()];
    let (elements, _) = raw.as_chunks_mut::<WIDTH>();
    for (i, element) in elements.iter_mut().enumerate() {
        *element = rotate(std::array::from_fn(|plane| planes[plane * n + i]));
    }
    raw
}
