//! Frames: a chunk as it is stored and sent.
//!
//! Layout: magic `FLF1`, codec (1 byte), element width in bytes (1), two zero bytes, raw size (u32, little-endian), then
//! the encoded bytes to the end. Codec ids: 0 raw, 1 zstd, 2 planes; 3 is kept for deltas against another chunk.
//!
//! **Invariant:** decoding never makes more than the header says, and the header never says more than
//! [`MAX_CHUNK_BYTES`].

use std::fmt;

use crate::pack::{Packer, Style, Unpacker};
use crate::{Digest, Hasher, planes, weights::Dtype};

/// The largest chunk.
pub const MAX_CHUNK_BYTES: usize = 16 << 20;

/// The largest frame: no encoder makes more than the raw form.
pub const MAX_FRAME_BYTES: usize = MAX_CHUNK_BYTES + HEADER_BYTES;

const MAGIC: [u8; 4] = *b"FLF1";
const HEADER_BYTES: usize = 12;

/// Bytes that are tried before the whole is encoded.
const SAMPLE_BYTES: usize = 64 << 10;

/// How a frame's bytes are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As they are.
    Raw,
    /// One zstd stream.
    Zstd,
    /// Floats sorted into planes ([`crate::planes`]).
    Planes,
}

/// What the bytes of a chunk are, which decides what is tried on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// Anything.
    Unknown,
    /// bfloat16.
    Bf16,
    /// IEEE binary16.
    F16,
    /// IEEE binary32.
    F32,
}

impl Element {
    /// Bytes of one.
    pub const fn width(self) -> usize {
        match self {
            Self::Unknown => 1,
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

impl From<Dtype> for Element {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Bf16 => Self::Bf16,
            Dtype::F16 => Self::F16,
            Dtype::F32 => Self::F32,
            _ => Self::Unknown,
        }
    }
}

/// What a frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// How it is encoded.
    pub codec: Codec,
    /// Bytes of an element; 1 unless the codec is planes.
    pub element_width: u8,
    /// Bytes of the chunk.
    pub raw_size_bytes: u64,
    /// The chunk that it needs to be decoded; none for a keyframe, and every codec so far makes keyframes.
    pub base: Option<Digest>,
}

/// Why a frame is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It does not begin as a frame does.
    #[error("this is no frame: it must begin with `FLF1`")]
    NotAFrame,
    /// Its codec is none of ours.
    #[error("frame codec {0} is unknown: update the program that reads it")]
    UnknownCodec(u8),
    /// It says that it holds more than a chunk may.
    #[error("the frame says that it holds {0} bytes, a chunk has 1 to {MAX_CHUNK_BYTES}")]
    Size(u64),
    /// It does not decode to what it says.
    #[error("the frame is damaged: {0}")]
    Damaged(&'static str),
}

/// The header of a frame.
///
/// # Errors
/// [`FrameError`] when it is none, of an unknown codec, or of an impossible size.
pub fn read_header(frame: &[u8]) -> Result<FrameHeader, FrameError> {
    let header = frame.get(..HEADER_BYTES).ok_or(FrameError::NotAFrame)?;
    if header[..4] != MAGIC {
        return Err(FrameError::NotAFrame);
    }
    let codec = match header[4] {
        0 => Codec::Raw,
        1 => Codec::Zstd,
        2 => Codec::Planes,
        other => return Err(FrameError::UnknownCodec(other)),
    };
    let element_width = header[5];
    let widths: &[u8] = if codec == Codec::Planes { &[2, 4] } else { &[1] };
    if !widths.contains(&element_width) || header[6..8] != [0, 0] {
        return Err(FrameError::Damaged("its header has impossible fields"));
    }
    let raw = u32::from_le_bytes(header[8..12].try_into().expect("four bytes"));
    if raw == 0 || raw as usize > MAX_CHUNK_BYTES {
        return Err(FrameError::Size(u64::from(raw)));
    }
    Ok(FrameHeader {
        codec,
        element_width,
        raw_size_bytes: u64::from(raw),
        base: None,
    })
}

/// The chunk that a frame holds.
///
/// # Errors
/// [`FrameError`] when it is refused or does not decode to exactly what its header says.
pub fn decode(frame: &[u8]) -> Result<Vec<u8>, FrameError> {
    let mut raw = Vec::new();
    Decoder::new().decode(frame, |piece| raw.extend_from_slice(piece))?;
    Ok(raw)
}

/// A chunk as a frame in the smallest form that is quickly had: planes for floats that gain by it, zstd for what a
/// sample of shrinks, else raw.
///
/// # Panics
/// When `raw` is empty or larger than [`MAX_CHUNK_BYTES`]: the splitter makes no such chunk.
pub fn encode(raw: &[u8], element: Element) -> Vec<u8> {
    let mut frame = Vec::new();
    Encoder::new().encode(raw, element, &mut frame);
    frame
}

/// A chunk as a frame without any encoding.
///
/// # Panics
/// As [`encode`].
pub fn encode_raw(raw: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + raw.len());
    put_header(&mut frame, Codec::Raw, 1, raw.len());
    frame.extend_from_slice(raw);
    frame
}

/// Decodes frames, one after another, in memory of its own that it keeps: fresh memory costs as much as hashing does.
pub struct Decoder {
    unpacker: Unpacker,
    planes: planes::Scratch,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoder")
    }
}

impl Decoder {
    /// A decoder that has not decoded anything.
    pub fn new() -> Self {
        Self {
            unpacker: Unpacker::new(),
            planes: planes::Scratch::default(),
        }
    }

    /// Gives the chunk that a frame holds to `sink`, piece by piece, in order; gives its size. What went into `sink`
    /// counts for nothing when this fails.
    ///
    /// # Errors
    /// [`FrameError`] when it is refused or does not decode to exactly what its header says.
    pub fn decode(&mut self, frame: &[u8], mut sink: impl FnMut(&[u8])) -> Result<u64, FrameError> {
        let header = read_header(frame)?;
        let body = &frame[HEADER_BYTES..];
        let raw_size = usize::try_from(header.raw_size_bytes).expect("bounded by the header's check");
        match header.codec {
            Codec::Raw if body.len() == raw_size => sink(body),
            Codec::Raw => return Err(FrameError::Damaged("its size is not what its header says")),
            Codec::Zstd => {
                let whole = self.planes.at_least(raw_size);
                self.unpacker.unpack(body, whole)?;
                sink(whole);
            }
            Codec::Planes => {
                let width = usize::from(header.element_width);
                planes::decode(body, width, raw_size, &mut self.unpacker, &mut self.planes, &mut sink)?;
            }
        }
        Ok(header.raw_size_bytes)
    }

    /// The size and the digest of the chunk that a frame holds.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn digest(&mut self, frame: &[u8]) -> Result<(u64, Digest), FrameError> {
        let mut hasher = Hasher::new();
        let size_bytes = self.decode(frame, |piece| hasher.update(piece))?;
        Ok((size_bytes, hasher.finish()))
    }
}

/// Encodes chunks, one after another, in memory of its own that it keeps.
pub struct Encoder {
    pub(crate) packer: Packer,
    planes: planes::Scratch,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encoder")
    }
}

impl Encoder {
    /// An encoder that has not encoded anything.
    pub fn new() -> Self {
        Self {
            packer: Packer::new(),
            planes: planes::Scratch::default(),
        }
    }

    /// Makes `frame` the frame of `raw`, in the form that [`encode`] gives; its capacity is used again.
    ///
    /// # Panics
    /// As [`encode`].
    pub fn encode(&mut self, raw: &[u8], element: Element, frame: &mut Vec<u8>) {
        frame.clear();
        frame.reserve(HEADER_BYTES + raw.len());
        if element.width() > 1 && raw.len().is_multiple_of(element.width()) {
            put_header(frame, Codec::Planes, element.width(), raw.len());
            if planes::encode(raw, element, &mut self.packer, &mut self.planes, frame) {
                return;
            }
        } else {
            let sample = &raw[..raw.len().min(SAMPLE_BYTES)];
            if self.packer.pack(Style::Matches, sample).len() < sample.len() - sample.len() / 20 {
                put_header(frame, Codec::Zstd, 1, raw.len());
                let body = self.packer.pack(Style::Matches, raw);
                if body.len() < raw.len() {
                    frame.extend_from_slice(body);
                    return;
                }
            }
        }
        frame.clear();
        put_header(frame, Codec::Raw, 1, raw.len());
        frame.extend_from_slice(raw);
    }
}

fn put_header(frame: &mut Vec<u8>, codec: Codec, width: usize, raw_size: usize) {
    assert!(
        (1..=MAX_CHUNK_BYTES).contains(&raw_size),
        "a chunk has 1 to {MAX_CHUNK_BYTES} bytes, this has {raw_size}"
    );
    frame.extend(MAGIC);
    frame.extend([codec as u8, u8::try_from(width).expect("2 or 4"), 0, 0]);
    frame.extend(u32::try_from(raw_size).expect("bounded above").to_le_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn elements() -> impl Strategy<Value = Element> {
        prop_oneof![
            Just(Element::Unknown),
            Just(Element::Bf16),
            Just(Element::F16),
            Just(Element::F32)
        ]
    }

    /// Bytes as weights have them: values of one scale.
    fn weights(element: Element, n: usize, seed: u32) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state as f32 / u32::MAX as f32 - 0.5) * 0.04
        };
        (0..n)
            .flat_map(|_| {
                let bits = next().to_bits();
                match element {
                    Element::F32 => bits.to_le_bytes().to_vec(),
                    _ => bits.to_le_bytes()[2..].to_vec(),
                }
            })
            .collect()
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(raw in prop::collection::vec(any::<u8>(), 1..5000), element in elements()) {
            prop_assert_eq!(decode(&encode(&raw, element)), Ok(raw.clone()));
            prop_assert_eq!(decode(&encode_raw(&raw)), Ok(raw));
        }

        #[test]
        fn weights_decode_to_themselves(n in 1usize..20_000, seed in any::<u32>(), element in elements()) {
            let raw = weights(element, n, seed);
            prop_assert_eq!(decode(&encode(&raw, element)), Ok(raw));
        }

        #[test]
        fn damage_never_panics_and_never_makes_more_than_said(
            raw in prop::collection::vec(0u8..4, 1..5000),
            element in elements(),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut frame = encode(&raw, element);
            for (at, byte) in flips {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            if let (Ok(header), Ok(decoded)) = (read_header(&frame), decode(&frame)) {
                prop_assert_eq!(decoded.len() as u64, header.raw_size_bytes);
            }
        }
    }

    proptest! {
        #[test]
        fn a_coder_that_is_used_again_makes_the_same_as_a_new_one(
            chunks in prop::collection::vec((1usize..9_000, any::<u32>(), elements(), any::<bool>()), 1..6),
        ) {
            let (mut encoder, mut decoder, mut frame) = (Encoder::new(), Decoder::new(), Vec::new());
            for (n, seed, element, damaged) in chunks {
                let raw = weights(element, n, seed);
                encoder.encode(&raw, element, &mut frame);
                prop_assert_eq!(&frame, &encode(&raw, element));
                if damaged {
                    frame.pop();
                    prop_assert!(decoder.digest(&frame).is_err());
                } else {
                    prop_assert_eq!(decoder.digest(&frame), Ok((raw.len() as u64, Digest::of(&raw))));
                }
            }
        }
    }

    #[test]
    fn bf16_weights_shrink_by_their_exponents() {
        let raw = weights(Element::Bf16, 1 << 16, 7);
        let frame = encode(&raw, Element::Bf16);
        assert_eq!(read_header(&frame).unwrap().codec, Codec::Planes);
        assert!(frame.len() * 4 < raw.len() * 3, "{} of {}", frame.len(), raw.len());
    }

    #[test]
    fn a_frame_that_claims_more_than_a_chunk_is_refused_before_it_is_decoded() {
        let mut frame = encode_raw(b"abc");
        frame[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&frame), Err(FrameError::Size(u64::from(u32::MAX))));
        let mut bomb = Vec::new();
        put_header(&mut bomb, Codec::Zstd, 1, 100);
        bomb.extend_from_slice(Packer::new().pack(Style::Matches, &vec![0; 1 << 20]));
        assert!(matches!(decode(&bomb), Err(FrameError::Damaged(_))));
        frame[4] = 3;
        frame[8..12].copy_from_slice(&3u32.to_le_bytes());
        assert_eq!(decode(&frame), Err(FrameError::UnknownCodec(3)));
    }

    #[test]
    fn bytes_behind_the_end_are_refused() {
        for mut frame in [
            encode_raw(b"abc"),
            encode(&[7; 4096], Element::Unknown),
            encode(&weights(Element::Bf16, 9000, 1), Element::Bf16),
        ] {
            let whole = frame.clone();
            frame.push(0);
            assert!(decode(&frame).is_err());
            for harmless in [
                Packer::new().pack(Style::Matches, b"").to_vec(),
                b"\x50\x2a\x4d\x18\x01\0\0\0x".to_vec(),
            ] {
                assert!(decode(&[&*whole, &*harmless].concat()).is_err());
            }
        }
    }
}
