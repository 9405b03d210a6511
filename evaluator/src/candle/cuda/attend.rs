//! Attention by tables: a block of a card works on a tile and a head.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
use candle_core::{CudaStorage, DType, Layout, Result};

use super::{Number, blocks, by_dtype, kernel, unwritten, view, with};
use crate::candle::operations::Attend;
use crate::candle::table::FIELDS;

/// Widths of a head that the kernels on the matrix units are compiled for; others, and float32, have one that is slower.
const WIDTHS: [usize; 3] = [64, 96, 128];

/// The widest head that any kernel takes.
const MAX_WIDTH: usize = 256;

/// Threads of a block, on the matrix units and without.
const THREADS: (u32, u32) = (128, 256);

type Part<'a> = (&'a CudaStorage, &'a Layout);

/// See [`Attend`].
pub(crate) fn attend(attend: &Attend<'_>, queries: Part<'_>, keys: Part<'_>, values: Part<'_>) -> Result<CudaStorage> {
    by_dtype!(queries.0, launch(attend, queries, keys, values))
}

fn launch<T: Number>(attend: &Attend<'_>, queries: Part<'_>, keys: Part<'_>, values: Part<'_>) -> Result<CudaStorage> {
    let (heads, device) = (attend.heads, queries.0.device());
    if heads.dim > MAX_WIDTH || heads.dim % 2 != 0 {
        candle_core::bail!(
            "heads are {} wide: a card takes even widths of at most {MAX_WIDTH}",
            heads.dim
        );
    }
    let (name, n_threads) = match WIDTHS.contains(&heads.dim) && queries.0.dtype() != DType::F32 {
        true => (format!("attend_{}_{}", T::SUFFIX, heads.dim), THREADS.0),
        false => (format!("attend_{}_any", T::SUFFIX), THREADS.1),
    };
    let kernel = kernel(device, &name)?;
    let mut seen = unwritten::<T>(device, queries.1.shape().elem_count())?;
    let (queries, keys, values) = (view::<T>(queries)?, view::<T>(keys)?, view::<T>(values)?);
    let (n_heads, n_kv_heads, dim) = (heads.n as u32, heads.n_kv as u32, heads.dim as u32);
    let scale = 1.0 / (heads.dim as f32).sqrt();
    let n_tiles = attend.table.tiles.elem_count() / FIELDS;
    let config = blocks((n_tiles, heads.n), n_threads)?;
    let (pool_keys, pool_values) = attend.pool;
    with::<T, _>(pool_keys, |pool_keys| {
        with::<T, _>(pool_values, |pool_values| {
            with::<u32, _>(&attend.table.entries, |entries| {
                with::<u32, _>(&attend.table.tiles, |tiles| {
                    let mut launch = kernel.call();
                    launch.arg(&mut seen).arg(&queries).arg(&keys).arg(&values);
                    launch.arg(&pool_keys).arg(&pool_values).arg(&entries).arg(&tiles);
                    launch.arg(&n_heads).arg(&n_kv_heads).arg(&dim).arg(&scale);
                    #[expect(unsafe_code, reason = "a kernel is launched")]
                    // SAFETY: the arguments are the kernel's. Tables are of this batch and pool, so that every row they name is
                    // within the tensors, and each row of the queries is in one tile.
                    unsafe { launch.launch(config) }.w()?;
                    Ok(())
                })
            })
        })
    })?;
    Ok(CudaStorage::wrap_cuda_slice(seen, device.clone()))
}
