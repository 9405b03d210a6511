//! Attention of a batch's pieces on the CPU (Vaswani et al., 2017), by products of tiles. On a device it is an operation of its own
//! ([`super::operations::Attend`]).
//!
//! Each position looks at what stands before its piece and at its own piece up to itself; no tensor has more than a tile of
//! positions by all that they look at. Key-value heads are never repeated for the query heads that share them.
//!
//! Shapes: N rows of a batch, D head width; a row of queries is [heads · D], one of keys or values [K · D].

use anyhow::Result;
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

/// What queries [N, heads · D] see, [N, heads · D].
pub(crate) fn attend(
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
                    Some(KeyValues { keys, values }) => Part {
                        keys: &keys[..n * kv_width],
                        values: &values[..n * kv_width],
                        n,
                    },
                    None => anyhow::bail!("keys and values `{key}` are not kept"),
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

/// Keeps what the batch says is to be kept of a layer's keys and values, behind what is kept there.
pub(crate) fn keep(batch: &Batch, cache: &mut Cache, layer: usize, width: usize, keys: &[f32], values: &[f32]) {
    for piece in &batch.pieces {
        let Some((key, n)) = piece.keep else { continue };
        let rows = piece.begin * width..(piece.begin + n) * width;
        let layers = cache.kept.entry(key).or_default();
        if layers.len() == layer {
            layers.push(KeyValues::default());
        }
        layers[layer].keys.extend_from_slice(&keys[rows.clone()]);
        layers[layer].values.extend_from_slice(&values[rows]);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::candle::batch::{Before, Cache};
    use crate::candle::operations::{Attend, Keep};
    use crate::candle::pool::Pool;
    use crate::candle::table::Table;
    use crate::config::Config;

    /// Two heads of keys and values for six of queries, of width 8; one layer.
    fn config() -> Config {
        let json = serde_json::json!({
            "model_type": "llama", "hidden_size": 48, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 4, "max_position_embeddings": 512,
            "rms_norm_eps": 1e-6,
        });
        Config::parse(json.to_string().as_bytes()).unwrap()
    }

    fn tensor(rows: usize, width: usize, seed: usize) -> Tensor {
        let number = |i: usize| (((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0) * 2.0;
        let numbers: Vec<f32> = (0..rows * width).map(number).collect();
        Tensor::from_vec(numbers, (rows, width), &Device::Cpu).unwrap()
    }

    fn host(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// What a batch sees as the host computes it, and as the tables say it; both keep what the batch keeps.
    fn both(heads: Heads, batch: &Batch, caches: &mut [Cache; 2], seed: usize) -> [Vec<f32>; 2] {
        let n = batch.ids.len();
        let (queries, keys, values) = (tensor(n, 48, seed), tensor(n, 16, seed + 1), tensor(n, 16, seed + 2));
        let numbers = (&host(&queries)[..], &host(&keys)[..], &host(&values)[..]);
        let [of_host, of_tables] = caches;
        let on_host = attend(heads, batch, numbers, of_host, 0).unwrap();
        keep(batch, of_host, 0, 16, numbers.1, numbers.2);

        let table = Table::of(batch, of_tables).unwrap().to_device(&Device::Cpu).unwrap();
        let pool = of_tables.pool().unwrap().layer(0);
        let attend = Attend {
            heads,
            table: &table,
            pool,
        };
        let by_tables = queries.apply_op3_no_bwd(&keys, &values, &attend).unwrap();
        if let Some((from, to)) = &table.kept {
            pool.0.inplace_op2(&keys, &Keep { from, to }).unwrap();
            pool.1.inplace_op2(&values, &Keep { from, to }).unwrap();
        }
        [on_host, host(&by_tables)]
    }

    #[test]
    fn the_host_sees_what_the_tables_say() {
        let heads = Heads { n: 6, n_kv: 2, dim: 8 };
        let pool = Pool::new(&config(), 12, DType::F32, &Device::Cpu).unwrap();
        let mut caches = [(); 2].map(|()| Cache::default());
        caches[1].pool = Some(pool);
        let before = |source, n_tokens| Before { source, n_tokens };
        // Rows of the pool that are not in the order of their names: what was kept first is forgotten, and its rows taken again.
        let mut first = Batch::default();
        first.push(&[0; 4], 0, Vec::new(), Some((1, 4)));
        first.push(&[0; 9], 0, Vec::new(), Some((3, 6)));
        let mut second = Batch::default();
        second.push(&[0; 3], 6, vec![before(Source::Kept(3), 6)], Some((3, 3)));
        // A piece longer than a tile; one behind a part of it; one behind that and what was kept.
        let mut third = Batch::default();
        let kept = before(Source::Kept(3), 8);
        third.push(&[0; 150], 8, vec![kept], None);
        third.push(&[0; 3], 148, vec![kept, before(Source::Rows(0), 140)], None);
        let rows = before(Source::Rows(150), 2);
        third.push(&[0; 70], 9, vec![rows, before(Source::Kept(3), 7)], None);

        let mut largest = 0.0_f32;
        for (seed, batch) in [first, second, third].iter().enumerate() {
            let [ours, theirs] = both(heads, batch, &mut caches, 10 * seed);
            let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(
                worst < 2e-6 && theirs.iter().all(|number| number.is_finite()),
                "{worst}"
            );
            largest = ours.iter().fold(largest, |largest, number| largest.max(number.abs()));
            caches.iter_mut().for_each(|cache| cache.forget(1));
        }
        assert!(largest > 0.1);
        let full = Table::of(
            &{
                let mut batch = Batch::default();
                batch.push(&[0; 4], 0, Vec::new(), Some((5, 4)));
                batch
            },
            &mut caches[1],
        );
        assert!(full.unwrap_err().to_string().contains("room for 3"));
    }
}
