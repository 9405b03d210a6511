//! Attention of a batch's pieces (Vaswani et al., 2017): on the CPU by products of tiles, on a device by candle's operations.
//!
//! Each position looks at what stands before its piece and at its own piece up to itself; no tensor has more than a tile of
//! positions by all that they look at. Key-value heads are never repeated for the query heads that share them.
//!
//! Shapes: N rows of a batch, D head width; a row of queries is [heads · D], one of keys or values [K · D].

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::ops::softmax_last_dim;
use rayon::prelude::*;

use super::batch::{Batch, BatchPiece, Cache, KeyValues, Source};
use super::host;

/// Positions of a tile.
const TILE: usize = 64;

/// The heads of a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    /// Of queries.
    pub(crate) n: usize,
    /// Of keys and values.
    pub(crate) n_kv: usize,
    /// D.
    pub(crate) dim: usize,
}

/// Rows of keys and values of one part of what a tile looks at: [n, K · D] each.
#[derive(Clone, Copy)]
struct Part<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    n: usize,
}

/// A tile: rows of a piece, for one head.
#[derive(Clone, Copy)]
struct Tile {
    piece: usize,
    head: usize,
    begin: usize,
    end: usize,
}

/// What queries [N, heads · D] see, [N, heads · D], on the CPU.
pub(crate) fn on_host(
    heads: Heads,
    batch: &Batch,
    (queries, keys, values): (&[f32], &[f32], &[f32]),
    cache: &Cache,
    layer: usize,
) -> Result<Vec<f32>> {
    let (width, kv_width) = (heads.n * heads.dim, heads.n_kv * heads.dim);
    let mut parts = Vec::with_capacity(batch.pieces.len());
    for piece in &batch.pieces {
        let mut before = Vec::with_capacity(piece.before.len() + 1);
        for part in &piece.before {
            let n = part.n_tokens;
            before.push(match part.source {
                Source::Rows(first) => Part {
                    keys: &keys[first * kv_width..(first + n) * kv_width],
                    values: &values[first * kv_width..(first + n) * kv_width],
                    n,
                },
                Source::Kept(key) => match cache.get(key, layer) {
                    Some(KeyValues::Host { keys, values }) => Part {
                        keys: &keys[..n * kv_width],
                        values: &values[..n * kv_width],
                        n,
                    },
                    _ => anyhow::bail!("keys and values `{key}` are not kept"),
                },
            });
        }
        parts.push(before);
    }
    let mut tiles = Vec::new();
    for (i, piece) in batch.pieces.iter().enumerate() {
        for begin in (piece.begin..piece.end).step_by(TILE) {
            let end = piece.end.min(begin + TILE);
            tiles.extend((0..heads.n).map(|head| Tile {
                piece: i,
                head,
                begin,
                end,
            }));
        }
    }
    let compute = |scores: &mut Vec<f32>, tile: &Tile| {
        let piece = &batch.pieces[tile.piece];
        let own = piece.begin * kv_width..tile.end * kv_width;
        let own = Part {
            keys: &keys[own.clone()],
            values: &values[own],
            n: tile.end - piece.begin,
        };
        let queries = &queries[tile.begin * width + tile.head * heads.dim..];
        look(heads, piece, *tile, queries, &parts[tile.piece], own, scores)
    };
    let seen: Vec<Vec<f32>> = tiles.par_iter().map_init(Vec::new, compute).collect();
    let mut out = vec![0.0; queries.len()];
    for (tile, seen) in tiles.iter().zip(&seen) {
        for (row, seen) in (tile.begin..tile.end).zip(seen.chunks(heads.dim)) {
            let at = row * width + tile.head * heads.dim;
            out[at..at + heads.dim].copy_from_slice(seen);
        }
    }
    Ok(out)
}

/// What the rows of a tile see: [rows, D].
fn look(
    heads: Heads,
    piece: &BatchPiece,
    tile: Tile,
    queries: &[f32],
    before: &[Part<'_>],
    own: Part<'_>,
    scores: &mut Vec<f32>,
) -> Vec<f32> {
    let (rows, dim, kv_width) = (tile.end - tile.begin, heads.dim, heads.n_kv * heads.dim);
    let offset = tile.head / (heads.n / heads.n_kv) * dim;
    let n_before: usize = before.iter().map(|part| part.n).sum();
    let all = n_before + own.n;
    scores.clear();
    scores.resize(rows * all, 0.0);
    let scale = 1.0 / (dim as f32).sqrt();
    let mut at = 0;
    for part in before.iter().chain([&own]) {
        let queries = Matrix::rows(queries, heads.n * dim, rows, dim);
        let keys = Matrix::columns(&part.keys[offset..], kv_width, dim, part.n);
        multiply(&mut scores[at..], all, queries, keys, scale, false);
        at += part.n;
    }
    for (i, row) in scores.chunks_mut(all).enumerate() {
        let visible = n_before + tile.begin - piece.begin + i + 1;
        let (row, hidden) = row.split_at_mut(visible);
        host::softmax(row);
        hidden.fill(0.0);
    }
    let mut seen = vec![0.0; rows * dim];
    let mut at = 0;
    for (i, part) in before.iter().chain([&own]).enumerate() {
        let weights = Matrix::rows(&scores[at..], all, rows, part.n);
        let values = Matrix::rows(&part.values[offset..], kv_width, part.n, dim);
        multiply(&mut seen, dim, weights, values, 1.0, i > 0);
        at += part.n;
    }
    seen
}

/// Numbers in memory as a matrix.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    numbers: &'a [f32],
    n_rows: usize,
    n_columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows that begin `stride` numbers apart.
    fn rows(numbers: &'a [f32], stride: usize, n_rows: usize, n_columns: usize) -> Self {
        Self {
            numbers,
            n_rows,
            n_columns,
            row_stride: stride,
            column_stride: 1,
        }
    }

    /// Columns that begin `stride` numbers apart.
    fn columns(numbers: &'a [f32], stride: usize, n_rows: usize, n_columns: usize) -> Self {
        Self {
            numbers,
            n_rows,
            n_columns,
            row_stride: 1,
            column_stride: stride,
        }
    }

    fn is_within(&self) -> bool {
        let last = (self.n_rows - 1) * self.row_stride + (self.n_columns - 1) * self.column_stride;
        last < self.numbers.len()
    }
}

/// a · b · factor into `out`, whose rows begin `stride` numbers apart, or added to it. On the thread that calls.
fn multiply(out: &mut [f32], stride: usize, a: Matrix<'_>, b: Matrix<'_>, factor: f32, is_added: bool) {
    assert!(a.n_columns == b.n_rows && a.n_rows > 0 && a.n_columns > 0 && b.n_columns > 0);
    assert!(a.is_within() && b.is_within() && (a.n_rows - 1) * stride + b.n_columns <= out.len());
    #[expect(unsafe_code, reason = "the product takes pointers")]
    // SAFETY: the asserts above keep every element of the three matrices inside its slice, and `out` is borrowed alone.
    unsafe {
        gemm::gemm(
            a.n_rows,
            b.n_columns,
            a.n_columns,
            out.as_mut_ptr(),
            1,
            stride as isize,
            is_added,
            a.numbers.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.numbers.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            factor,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The same on a device, a piece after the other: queries, keys and values are tensors of the model's dtype.
pub(crate) fn on_device(
    heads: Heads,
    batch: &Batch,
    (queries, keys, values): (&Tensor, &Tensor, &Tensor),
    cache: &Cache,
    layer: usize,
) -> Result<Tensor> {
    let group = heads.n / heads.n_kv;
    let mut seen = Vec::with_capacity(batch.pieces.len());
    for piece in &batch.pieces {
        let n_rows = piece.end - piece.begin;
        let (mut all_keys, mut all_values) = (Vec::new(), Vec::new());
        for part in &piece.before {
            let (keys, values, first) = match part.source {
                Source::Rows(first) => (keys, values, first),
                Source::Kept(key) => match cache.get(key, layer) {
                    Some(KeyValues::Device { keys, values }) => (keys, values, 0),
                    _ => anyhow::bail!("keys and values `{key}` are not kept"),
                },
            };
            all_keys.push(keys.narrow(0, first, part.n_tokens)?);
            all_values.push(values.narrow(0, first, part.n_tokens)?);
        }
        all_keys.push(keys.narrow(0, piece.begin, n_rows)?);
        all_values.push(values.narrow(0, piece.begin, n_rows)?);
        let n_all: usize = piece.before.iter().map(|part| part.n_tokens).sum::<usize>() + n_rows;
        // [K, n, D]
        let by_head = |parts: &[Tensor]| -> Result<Tensor> {
            let all = Tensor::cat(parts, 0)?.reshape((n_all, heads.n_kv, heads.dim))?;
            Ok(all.transpose(0, 1)?.contiguous()?)
        };
        let (all_keys, all_values) = (by_head(&all_keys)?, by_head(&all_values)?);
        let mut tiles = Vec::new();
        for begin in (0..n_rows).step_by(DEVICE_TILE) {
            let n = DEVICE_TILE.min(n_rows - begin);
            let tile = queries.narrow(0, piece.begin + begin, n)?;
            let tile = tile.reshape((n, heads.n_kv, group, heads.dim))?.permute((1, 2, 0, 3))?;
            let tile = tile.contiguous()?.reshape((heads.n_kv, group * n, heads.dim))?;
            let scores = tile.matmul(&all_keys.t()?)?.to_dtype(DType::F32)?;
            let scores = (scores * (1.0 / (heads.dim as f64).sqrt()))?.reshape((heads.n, n, n_all))?;
            let scores = scores.broadcast_add(&mask(n_all - n_rows + begin, n, n_all, queries.device())?)?;
            let weights = softmax_last_dim(&scores)?.to_dtype(queries.dtype())?;
            let weights = weights.reshape((heads.n_kv, group * n, n_all))?;
            let tile = weights.matmul(&all_values)?.reshape((heads.n, n, heads.dim))?;
            tiles.push(tile.transpose(0, 1)?.contiguous()?.reshape((n, heads.n * heads.dim))?);
        }
        seen.push(Tensor::cat(&tiles, 0)?);
    }
    ensure!(!seen.is_empty(), "a batch without pieces");
    Ok(Tensor::cat(&seen, 0)?)
}

/// Positions of a tile on a device.
const DEVICE_TILE: usize = 1024;

/// 0 where a position may look, minus infinity behind it: [n, n_all], the first of n standing at `first`.
fn mask(first: usize, n: usize, n_all: usize, device: &Device) -> Result<Tensor> {
    let row = |i: usize| (0..n_all).map(move |j| if j <= first + i { 0.0 } else { f32::NEG_INFINITY });
    let mask: Vec<f32> = (0..n).flat_map(row).collect();
    Ok(Tensor::from_vec(mask, (n, n_all), device)?)
}

/// Keeps what the batch says is to be kept of a layer's keys and values, behind what is kept there.
pub(crate) fn keep_on_host(batch: &Batch, cache: &mut Cache, layer: usize, width: usize, keys: &[f32], values: &[f32]) {
    for piece in &batch.pieces {
        let Some((key, n)) = piece.keep else { continue };
        let rows = piece.begin * width..(piece.begin + n) * width;
        let layers = cache.kept.entry(key).or_default();
        if layers.len() == layer {
            let (keys, values) = (Vec::new(), Vec::new());
            layers.push(KeyValues::Host { keys, values });
        }
        if let KeyValues::Host {
            keys: kept_keys,
            values: kept_values,
        } = &mut layers[layer]
        {
            kept_keys.extend_from_slice(&keys[rows.clone()]);
            kept_values.extend_from_slice(&values[rows]);
        }
    }
}

/// The same on a device.
pub(crate) fn keep_on_device(
    batch: &Batch,
    cache: &mut Cache,
    layer: usize,
    keys: &Tensor,
    values: &Tensor,
) -> Result<()> {
    for piece in &batch.pieces {
        let Some((key, n)) = piece.keep else { continue };
        let mut rows = [keys, values].map(|tensor| tensor.narrow(0, piece.begin, n));
        let layers = cache.kept.entry(key).or_default();
        if let Some(KeyValues::Device { keys, values }) = layers.get(layer) {
            rows = [(keys, &rows[0]), (values, &rows[1])].map(|(kept, new)| match new {
                Ok(new) => Tensor::cat(&[kept, new], 0),
                Err(error) => Err(candle_core::Error::msg(error)),
            });
        }
        let [keys, values] = rows;
        // A copy: a view would hold all rows of the batch.
        let kept = KeyValues::Device {
            keys: keys?.force_contiguous()?,
            values: values?.force_contiguous()?,
        };
        if layers.len() == layer {
            layers.push(kept);
        } else {
            layers[layer] = kept;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::candle::batch::Before;

    #[test]
    fn tiles_on_the_host_are_what_candles_operations_give() {
        let heads = Heads { n: 6, n_kv: 2, dim: 8 };
        // A piece longer than a tile; one behind a part of it; one behind that and what was kept.
        let mut batch = Batch::default();
        let before = |source, n_tokens| Before { source, n_tokens };
        let kept = before(Source::Kept(3), 5);
        batch.push(&[0; 150], 5, vec![kept], None);
        batch.push(&[0; 3], 145, vec![kept, before(Source::Rows(0), 140)], None);
        batch.push(
            &[0; 70],
            9,
            vec![before(Source::Rows(150), 2), before(Source::Kept(3), 7)],
            None,
        );
        let tensor = |rows: usize, width: usize, seed: usize| {
            let number = |i: usize| (((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0) * 2.0;
            let numbers: Vec<f32> = (0..rows * width).map(number).collect();
            Tensor::from_vec(numbers, (rows, width), &Device::Cpu).unwrap()
        };
        let host = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let n = batch.ids.len();
        let (queries, keys, values) = (tensor(n, 48, 1), tensor(n, 16, 2), tensor(n, 16, 3));
        let (kept_keys, kept_values) = (tensor(9, 16, 4), tensor(9, 16, 5));
        let cache = |kept: KeyValues| Cache {
            kept: HashMap::from([(3, vec![kept])]),
        };
        let on_host = cache(KeyValues::Host {
            keys: host(&kept_keys),
            values: host(&kept_values),
        });
        let on_device = cache(KeyValues::Device {
            keys: kept_keys,
            values: kept_values,
        });

        let ours = (&host(&queries)[..], &host(&keys)[..], &host(&values)[..]);
        let ours = super::on_host(heads, &batch, ours, &on_host, 0).unwrap();
        let theirs = super::on_device(heads, &batch, (&queries, &keys, &values), &on_device, 0).unwrap();

        let worst = ours
            .iter()
            .zip(host(&theirs))
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst < 2e-6, "{worst}");
        assert!(ours.iter().any(|number| number.abs() > 0.1));
    }
}
