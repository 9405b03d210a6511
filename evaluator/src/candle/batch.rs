//! Tokens that go through the model together, without padding: pieces of inputs one behind the other, each of which looks
//! back at its own and at what stands before it, here or kept from earlier.

use std::collections::HashMap;

use anyhow::{Context, Result};

use super::pool::Pool;

/// The name of what is kept.
pub type Key = usize;

/// What stands before a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Tokens of this batch, from this row on.
    Rows(usize),
    /// The first tokens of what was kept by this name.
    Kept(Key),
}

/// A part of what stands before a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// Where it is.
    pub source: Source,
    /// Its tokens.
    pub n_tokens: usize,
}

/// Tokens of an input that stand one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPiece {
    /// Its first row in the batch.
    pub begin: usize,
    /// Behind its last row.
    pub end: usize,
    /// What stands before it, front to back.
    pub before: Vec<Before>,
    /// Under which name so many of its first tokens are kept, behind what is kept there already.
    pub keep: Option<(Key, usize)>,
}

/// Tokens and their places: N rows.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// [N]
    pub ids: Vec<u32>,
    /// [N]: where a token stands in its input.
    pub positions: Vec<u32>,
    /// In the order of their rows.
    pub pieces: Vec<BatchPiece>,
}

impl Batch {
    /// Adds a piece whose first token stands at `position`; gives its first row.
    pub fn push(&mut self, tokens: &[u32], position: usize, before: Vec<Before>, keep: Option<(Key, usize)>) -> usize {
        let begin = self.ids.len();
        self.ids.extend(tokens);
        self.positions
            .extend((position..).take(tokens.len()).map(|at| at as u32));
        self.pieces.push(BatchPiece {
            begin,
            end: self.ids.len(),
            before,
            keep,
        });
        begin
    }

    /// One input alone.
    pub fn of(tokens: &[u32]) -> Self {
        let mut batch = Self::default();
        batch.push(tokens, 0, Vec::new(), None);
        batch
    }
}

/// Keys and values of tokens of one layer on the CPU, in float32: [n, K·D] each.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyValues {
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

/// What is kept of earlier batches, by name: [`Llama::cache`](super::llama::Llama::cache) makes one.
#[derive(Debug, Default)]
pub struct Cache {
    /// On the CPU, a layer after the other.
    pub(crate) kept: HashMap<Key, Vec<KeyValues>>,
    /// On a device.
    pub(crate) pool: Option<Pool>,
}

impl Cache {
    /// Keeps of each name the first tokens that `wanted` says, and forgets those of which it says none.
    pub fn retain(&mut self, wanted: impl Fn(Key) -> Option<usize>) {
        // On the CPU what a name has is at the end of its own numbers, and is not worth moving.
        self.kept.retain(|&key, _| wanted(key).is_some());
        if let Some(pool) = &mut self.pool {
            pool.retain(wanted);
        }
    }

    /// What is kept of a layer by a name, on the CPU.
    pub(crate) fn get(&self, key: Key, layer: usize) -> Option<&KeyValues> {
        self.kept.get(&key)?.get(layer)
    }

    /// What is kept on a device.
    pub(crate) fn pool(&self) -> Result<&Pool> {
        self.pool.as_ref().context("this cache is of the CPU")
    }

    pub(crate) fn pool_mut(&mut self) -> Result<&mut Pool> {
        self.pool.as_mut().context("this cache is of the CPU")
    }

    /// Forgets a name.
    pub fn forget(&mut self, key: Key) {
        self.retain(|other| (other != key).then_some(usize::MAX));
    }
}
