//! Keys and values on a device that outlive their batch: rows of one tensor a layer, each of them any name's. A text in the making
//! grows by a row at a time, and nothing is copied for it.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};

use super::batch::Key;
use crate::config::Config;

/// The rows, and whose they are.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Keys and values of a layer, [P, K · D] each.
    layers: Vec<(Tensor, Tensor)>,
    /// Rows that are nobody's.
    free: Vec<u32>,
    /// The rows of a name, in the order of their tokens.
    kept: HashMap<Key, Vec<u32>>,
}

impl Pool {
    /// Room for the keys and values of so many tokens.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub(crate) fn new(config: &Config, n_tokens: usize, dtype: DType, device: &Device) -> Result<Self> {
        // A tensor has a row at least.
        let shape = (n_tokens.max(1), config.n_kv_heads * config.head_dim);
        let zeros = || Tensor::zeros(shape, dtype, device);
        let layers = (0..config.n_layers).map(|_| Ok((zeros()?, zeros()?)));
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
            free: (0..n_tokens as u32).rev().collect(),
            kept: HashMap::new(),
        })
    }

    /// Keys and values of a layer.
    pub(crate) fn layer(&self, layer: usize) -> (&Tensor, &Tensor) {
        let (keys, values) = &self.layers[layer];
        (keys, values)
    }

    /// The rows of the first tokens of a name.
    ///
    /// # Errors
    /// When so many are not kept.
    pub(crate) fn rows(&self, key: Key, n_tokens: usize) -> Result<&[u32]> {
        let rows = self.kept.get(&key).and_then(|rows| rows.get(..n_tokens));
        rows.with_context(|| format!("keys and values `{key}` of {n_tokens} tokens are not kept"))
    }

    /// Takes rows for the next tokens of a name, and gives them.
    ///
    /// # Errors
    /// When there are not so many free ones.
    pub(crate) fn take(&mut self, key: Key, n_tokens: usize) -> Result<&[u32]> {
        ensure!(
            n_tokens <= self.free.len(),
            "keys and values of {n_tokens} tokens more are to be kept and there is room for {}",
            self.free.len()
        );
        let rows = self.kept.entry(key).or_default();
        let n_before = rows.len();
        rows.extend(self.free.drain(self.free.len() - n_tokens..).rev());
        Ok(&rows[n_before..])
    }

    /// Keeps of each name the first tokens that `wanted` says, and forgets those of which it says none. Rows that are given back
    /// are written again by later launches alone.
    pub(crate) fn retain(&mut self, wanted: impl Fn(Key) -> Option<usize>) {
        let free = &mut self.free;
        self.kept.retain(|&key, rows| {
            let n_tokens = wanted(key);
            free.extend(rows.drain(n_tokens.unwrap_or(0).min(rows.len())..));
            n_tokens.is_some()
        });
    }
}
