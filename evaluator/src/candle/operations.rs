//! Operations that candle has not, on a device by kernels of our own ([`super::cuda`]). Each has a form for the CPU, in float32
//! and plain loops: what the kernels are held against, and how tables and pool are tested where there is no card.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, InplaceOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::attention::Heads;
#[cfg(feature = "cuda")]
use super::cuda;
use super::host;
use super::numbers::{self, numbers, numbers_mut};
use super::table::{FIELDS, OWN, OnDevice};

/// What queries [N, heads · D] see of keys and values [N, K · D], by a batch's tables: [N, heads · D] (Vaswani et al., 2017).
pub(crate) struct Attend<'a> {
    pub(crate) heads: Heads,
    pub(crate) table: &'a OnDevice,
    /// Keys and values that are kept, [P, K · D] each.
    pub(crate) pool: (&'a Tensor, &'a Tensor),
}

impl CustomOp3 for Attend<'_> {
    fn name(&self) -> &'static str {
        "attend"
    }

    fn cpu_fwd(
        &self,
        queries: &CpuStorage,
        layout: &Layout,
        keys: &CpuStorage,
        keys_layout: &Layout,
        values: &CpuStorage,
        values_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let queries = numbers(queries, layout)?;
        let own = (numbers(keys, keys_layout)?, numbers(values, values_layout)?);
        let tiles = self.table.tiles.to_vec1::<u32>()?;
        let entries = self.table.entries.to_vec1::<u32>()?;
        let (pool_keys, pool_values) = self.pool;
        let seen = numbers::read(pool_keys, |pool_keys| {
            numbers::read(pool_values, |pool_values| {
                attend(self.heads, (&tiles, &entries), queries, own, (pool_keys, pool_values))
            })
        })??;
        Ok((CpuStorage::F32(seen), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        queries: &CudaStorage,
        layout: &Layout,
        keys: &CudaStorage,
        keys_layout: &Layout,
        values: &CudaStorage,
        values_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let seen = cuda::attend(self, (queries, layout), (keys, keys_layout), (values, values_layout))?;
        Ok((seen, layout.shape().clone()))
    }
}

fn attend(
    heads: Heads,
    (tiles, entries): (&[u32], &[u32]),
    queries: &[f32],
    own: (&[f32], &[f32]),
    pool: (&[f32], &[f32]),
) -> Vec<f32> {
    let (dim, width, kv_width) = (heads.dim, heads.n * heads.dim, heads.n_kv * heads.dim);
    let scale = 1.0 / (dim as f32).sqrt();
    // What a row sees that looks at so many entries from `begin` on.
    let row_sees = |row: usize, begin: usize, n: usize| -> Vec<f32> {
        let mut seen = vec![0.0; width];
        let mut weights = vec![0.0; n];
        for (head, seen) in seen.chunks_mut(dim).enumerate() {
            let at = head / (heads.n / heads.n_kv) * dim;
            let query = &queries[row * width + head * dim..][..dim];
            for (weight, &entry) in weights.iter_mut().zip(&entries[begin..begin + n]) {
                let key = looked_at(entry, own.0, pool.0, kv_width, at, dim);
                *weight = query.iter().zip(key).map(|(a, b)| a * b).sum::<f32>() * scale;
            }
            host::softmax(&mut weights);
            for (weight, &entry) in weights.iter().zip(&entries[begin..begin + n]) {
                let value = looked_at(entry, own.1, pool.1, kv_width, at, dim);
                seen.iter_mut()
                    .zip(value)
                    .for_each(|(seen, value)| *seen += weight * value);
            }
        }
        seen
    };
    let rows = tiles.par_chunks(FIELDS).flat_map_iter(|tile| {
        let [first, n, begin, visible] = [0, 1, 2, 3].map(|field| tile[field] as usize);
        (0..n).map(move |i| (first + i, row_sees(first + i, begin, visible + i)))
    });
    let rows: Vec<(usize, Vec<f32>)> = rows.collect();
    // Not a number where no tile writes.
    let mut seen = vec![f32::NAN; queries.len()];
    for (row, numbers) in rows {
        seen[row * width..][..width].copy_from_slice(&numbers);
    }
    seen
}

/// The numbers of one head in the row that an entry names.
fn looked_at<'a>(entry: u32, own: &'a [f32], pool: &'a [f32], width: usize, at: usize, dim: usize) -> &'a [f32] {
    let rows = if entry & OWN == 0 { pool } else { own };
    &rows[(entry & !OWN) as usize * width + at..][..dim]
}

/// Copies rows [N, K · D] to rows of the pool [P, K · D], which is changed.
pub(crate) struct Keep<'a> {
    /// Rows of the batch, [kept].
    pub(crate) from: &'a Tensor,
    /// Rows of the pool, [kept].
    pub(crate) to: &'a Tensor,
}

impl InplaceOp2 for Keep<'_> {
    fn name(&self) -> &'static str {
        "keep"
    }

    fn cpu_fwd(&self, pool: &mut CpuStorage, layout: &Layout, rows: &CpuStorage, rows_layout: &Layout) -> Result<()> {
        let width = layout.dims()[1];
        let (pool, rows) = (numbers_mut(pool, layout)?, numbers(rows, rows_layout)?);
        for (from, to) in self.from.to_vec1::<u32>()?.into_iter().zip(self.to.to_vec1::<u32>()?) {
            let (from, to) = (from as usize * width, to as usize * width);
            pool[to..to + width].copy_from_slice(&rows[from..from + width]);
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        pool: &mut CudaStorage,
        layout: &Layout,
        rows: &CudaStorage,
        rows_layout: &Layout,
    ) -> Result<()> {
        cuda::keep(self, (pool, layout), (rows, rows_layout))
    }
}
