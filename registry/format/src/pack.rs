//! zstd in and out of memory that is used again, in the two styles that checkpoints need.
//!
//! **Invariant:** what is unpacked is exactly one zstd stream of exactly the size that was asked for.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{self, CParameter, DParameter, ParamSwitch, Strategy};

use crate::frame::FrameError;

/// log2 of the largest window that a zstd stream may ask for: a chunk's size.
const WINDOW_LOG_MAX: u32 = 24;

const ZSTD_MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

/// The level of the symbols' style: how far zstd leaps where it finds no match. On exponents of weights, whose matches
/// are chance and cost more than they save, it comes to nothing but Huffman's code: 2.60 bits an exponent where level 1
/// has 2.89 (entropy 2.56), packed five times and unpacked twice as fast.
const LEAP: i32 = -1000;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Repeated strings: text, sparse tensors.
    Matches,
    /// Symbols that are frequent, in no order.
    Symbols,
}

/// Packs into a buffer of its own.
pub(crate) struct Packer {
    matches: Compressor<'static>,
    symbols: Compressor<'static>,
    packed: Vec<u8>,
}

impl Packer {
    pub(crate) fn new() -> Self {
        Self {
            matches: compressor(1, &[]),
            symbols: compressor(
                LEAP,
                &[
                    CParameter::Strategy(Strategy::ZSTD_fast),
                    CParameter::MinMatch(7),
                    CParameter::HashLog(6),
                    // Left to itself, zstd takes such a level to ask for speed alone.
                    CParameter::LiteralCompressionMode(ParamSwitch::Enable),
                ],
            ),
            packed: Vec::new(),
        }
    }

    /// `raw`, packed.
    pub(crate) fn pack(&mut self, style: Style, raw: &[u8]) -> &[u8] {
        self.packed.clear();
        self.packed.reserve(zstd_safe::compress_bound(raw.len()));
        let compressor = match style {
            Style::Matches => &mut self.matches,
            Style::Symbols => &mut self.symbols,
        };
        compressor
            .compress_to_buffer(raw, &mut self.packed)
            .expect("compressing into memory that is large enough can't fail");
        &self.packed
    }
}

fn compressor(level: i32, parameters: &[CParameter]) -> Compressor<'static> {
    let mut compressor = Compressor::new(level).expect("zstd takes every level");
    for parameter in parameters {
        compressor
            .set_parameter(*parameter)
            .expect("the parameters are within zstd's bounds");
    }
    compressor
}

/// Unpacks.
pub(crate) struct Unpacker(Decompressor<'static>);

impl Unpacker {
    pub(crate) fn new() -> Self {
        let mut decompressor = Decompressor::new().expect("a context without a dictionary can be made");
        decompressor
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .expect("the window is within zstd's bounds");
        Self(decompressor)
    }

    /// Fills `raw` with what was packed.
    pub(crate) fn unpack(&mut self, packed: &[u8], raw: &mut [u8]) -> Result<(), FrameError> {
        // The decoder would take further streams, empty or skipped ones among them, as a part of this one.
        if !packed.starts_with(&ZSTD_MAGIC) || zstd_safe::find_frame_compressed_size(packed) != Ok(packed.len()) {
            return Err(FrameError::Damaged("it is not exactly one zstd stream"));
        }
        match self.0.decompress_to_buffer(packed, raw) {
            Ok(n) if n == raw.len() => Ok(()),
            Ok(_) => Err(FrameError::Damaged("its size is not what its header says")),
            Err(_) => Err(FrameError::Damaged("its zstd stream does not decode")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_of_uneven_frequency_are_packed_to_nearly_their_entropy_and_come_back() {
        // Given bytes of which one half is one symbol, a quarter another, and so on: 2 bits each
        let mut state = 1u32;
        let raw: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.leading_zeros() as u8
        })
        .take(1 << 18)
        .collect();
        let packed = Packer::new().pack(Style::Symbols, &raw).to_vec();
        assert!(
            packed.len() * 8 < raw.len() * 21 / 10,
            "{} of {}",
            packed.len(),
            raw.len()
        );
        let mut back = vec![0; raw.len()];
        Unpacker::new().unpack(&packed, &mut back).unwrap();
        assert!(back == raw);
        assert!(Unpacker::new().unpack(&packed, &mut back[1..]).is_err());
        assert!(Unpacker::new().unpack(&packed, &mut vec![0; raw.len() + 1]).is_err());
    }
}
