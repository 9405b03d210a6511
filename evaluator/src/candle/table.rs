//! What each row of a batch looks at, as numbers that a device is given once a batch and not once a layer.
//!
//! **Invariant:** every row of the batch is in one tile, and no row looks at itself before its keys and values are there: the first
//! entries of a piece's list stand before the piece, the others are its own rows in their order.

use anyhow::Result;
use candle_core::{Device, Tensor};

use super::batch::{Batch, Cache, Source};

/// Rows of a tile, which one block of a card works on.
pub(crate) const TILE: usize = 64;

/// Marks an entry that is a row of the batch; others are rows of the pool.
pub(crate) const OWN: u32 = 1 << 31;

/// Numbers that say a tile: its first row, its rows, where its piece's list begins, and how many entries its first row looks at.
pub(crate) const FIELDS: usize = 4;

/// The tables of a batch.
#[derive(Debug, PartialEq)]
pub(crate) struct Table {
    /// [tiles · `FIELDS`]: each row behind a tile's first looks at one entry more. Those that look at most come first.
    tiles: Vec<u32>,
    /// The lists of the pieces, one behind the other.
    entries: Vec<u32>,
    /// Rows of the batch that are kept, and the rows of the pool that they go to.
    kept: (Vec<u32>, Vec<u32>),
}

impl Table {
    /// The tables of a batch. Rows of the pool are taken for what the batch keeps.
    ///
    /// # Errors
    /// When the batch looks at what is not kept, or the pool is full.
    pub(crate) fn of(batch: &Batch, cache: &mut Cache) -> Result<Self> {
        let (mut tiles, mut entries, mut kept) = (Vec::new(), Vec::new(), (Vec::new(), Vec::new()));
        for piece in &batch.pieces {
            let begin = entries.len();
            for part in &piece.before {
                match part.source {
                    Source::Rows(first) => entries.extend(own(first, part.n_tokens)),
                    Source::Kept(key) => entries.extend_from_slice(cache.pool()?.rows(key, part.n_tokens)?),
                }
            }
            let n_before = entries.len() - begin;
            entries.extend(own(piece.begin, piece.end - piece.begin));
            for first in (piece.begin..piece.end).step_by(TILE) {
                let n = TILE.min(piece.end - first);
                tiles.push([first, n, begin, n_before + first - piece.begin + 1].map(|number| number as u32));
            }
        }
        // What is kept is taken once all that looks back has been looked up: a name may grow and be looked at in one batch.
        for piece in &batch.pieces {
            let Some((key, n)) = piece.keep else { continue };
            kept.0.extend((piece.begin as u32..).take(n));
            kept.1.extend_from_slice(cache.pool_mut()?.take(key, n)?);
        }
        tiles.sort_by_key(|&[.., visible]| std::cmp::Reverse(visible));
        Ok(Self {
            tiles: tiles.concat(),
            entries,
            kept,
        })
    }

    /// The tables on a device.
    pub(crate) fn to_device(&self, device: &Device) -> Result<OnDevice> {
        let numbers = |numbers: &[u32]| Tensor::new(numbers, device);
        let (from, to) = &self.kept;
        let kept = match from.len() {
            0 => None,
            _ => Some((numbers(from)?, numbers(to)?)),
        };
        Ok(OnDevice {
            tiles: numbers(&self.tiles)?,
            entries: numbers(&self.entries)?,
            kept,
        })
    }
}

fn own(first: usize, n: usize) -> impl Iterator<Item = u32> {
    (first as u32..).take(n).map(|row| row | OWN)
}

/// The same, where the batch is computed.
#[derive(Debug)]
pub(crate) struct OnDevice {
    /// [tiles · `FIELDS`]
    pub(crate) tiles: Tensor,
    /// [entries]
    pub(crate) entries: Tensor,
    /// [kept] each; `None` when nothing is kept.
    pub(crate) kept: Option<(Tensor, Tensor)>,
}
