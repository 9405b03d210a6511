//! What goes over rows or single numbers: rotary embeddings, gates, keys and values that are kept, and what logits say.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
use candle_core::{CudaDevice, CudaStorage, Layout, Result, Storage, Tensor};

use super::{Number, THREADS, blocks, by_dtype, kernel, unwritten, view, view_mut, with};
use crate::candle::host::Said;
use crate::candle::operations::Keep;

type Part<'a> = (&'a CudaStorage, &'a Layout);
type PartMut<'a> = (&'a mut CudaStorage, &'a Layout);

/// Numbers that a thread of `gate` takes.
const AT_ONCE: usize = 8;

/// As `numbers::Rotated`: x [N, heads · D] is changed, cos and sin [N, D / 2] are float32.
pub(crate) fn rotate(head_dim: usize, x: PartMut<'_>, cos: Part<'_>, sin: Part<'_>) -> Result<()> {
    by_dtype!(x.0, launch_rotate(head_dim, x, cos, sin))
}

fn launch_rotate<T: Number>(head_dim: usize, x: PartMut<'_>, cos: Part<'_>, sin: Part<'_>) -> Result<()> {
    let kernel = kernel(&x.0.device().clone(), &format!("rotate_{}", T::SUFFIX))?;
    let (n_rows, width) = x.1.shape().dims2()?;
    let config = blocks(((n_rows * width / 2).div_ceil(THREADS as usize), 1), THREADS)?;
    let (mut x, cos, sin) = (view_mut::<T>(x)?, view::<f32>(cos)?, view::<f32>(sin)?);
    let (n_rows, width, head_dim) = (n_rows as u32, width as u32, head_dim as u32);
    let mut launch = kernel.call();
    launch
        .arg(&mut x)
        .arg(&cos)
        .arg(&sin)
        .arg(&n_rows)
        .arg(&width)
        .arg(&head_dim);
    #[expect(unsafe_code, reason = "a kernel is launched")]
    // SAFETY: the arguments are the kernel's; a thread turns a pair within x by angles within cos and sin.
    unsafe { launch.launch(config) }.w()?;
    Ok(())
}

/// As `numbers::Gated`: the gate is changed.
pub(crate) fn gate(gate: PartMut<'_>, up: Part<'_>) -> Result<()> {
    by_dtype!(gate.0, launch_gate(gate, up))
}

fn launch_gate<T: Number>(gate: PartMut<'_>, up: Part<'_>) -> Result<()> {
    let kernel = kernel(&gate.0.device().clone(), &format!("gate_{}", T::SUFFIX))?;
    let n = gate.1.shape().elem_count();
    let config = blocks((n.div_ceil(THREADS as usize * AT_ONCE), 1), THREADS)?;
    let (mut gate, up) = (view_mut::<T>(gate)?, view::<T>(up)?);
    let n = n as u64;
    let mut launch = kernel.call();
    launch.arg(&mut gate).arg(&up).arg(&n);
    #[expect(unsafe_code, reason = "a kernel is launched")]
    // SAFETY: the arguments are the kernel's, and both tensors have n numbers.
    unsafe { launch.launch(config) }.w()?;
    Ok(())
}

/// See [`Keep`].
pub(crate) fn keep(keep: &Keep<'_>, pool: PartMut<'_>, rows: Part<'_>) -> Result<()> {
    by_dtype!(pool.0, launch_keep(keep, pool, rows))
}

fn launch_keep<T: Number>(keep: &Keep<'_>, pool: PartMut<'_>, rows: Part<'_>) -> Result<()> {
    let kernel = kernel(&pool.0.device().clone(), &format!("keep_{}", T::SUFFIX))?;
    let (_, width) = pool.1.shape().dims2()?;
    let config = blocks((keep.from.elem_count(), 1), THREADS)?;
    let (mut pool, rows) = (view_mut::<T>(pool)?, view::<T>(rows)?);
    let width = width as u32;
    with::<u32, _>(keep.from, |from| {
        with::<u32, _>(keep.to, |to| {
            let mut launch = kernel.call();
            launch.arg(&mut pool).arg(&rows).arg(&from).arg(&to).arg(&width);
            #[expect(unsafe_code, reason = "a kernel is launched")]
            // SAFETY: the arguments are the kernel's; `from` names rows of the batch and `to` rows of the pool, none of them twice.
            unsafe { launch.launch(config) }.w()?;
            Ok(())
        })
    })
}

/// As `host::read`: what rows of logits [n, V] say of the tokens that each is asked for.
pub(crate) fn said(logits: &Tensor, tokens: &[Vec<u32>]) -> Result<Vec<Said>> {
    let (storage, layout) = logits.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        candle_core::bail!("logits that are not on the card");
    };
    by_dtype!(storage, launch_said(storage.device(), (storage, layout), tokens))
}

fn launch_said<T: Number>(device: &CudaDevice, logits: Part<'_>, tokens: &[Vec<u32>]) -> Result<Vec<Said>> {
    let kernel = kernel(device, &format!("read_{}", T::SUFFIX))?;
    let (n_rows, vocabulary) = logits.1.shape().dims2()?;
    let mut offsets = vec![0_u32];
    for tokens in tokens {
        offsets.push(offsets[offsets.len() - 1] + tokens.len() as u32);
    }
    // An argument points at something even where no token is asked for.
    let mut asked = tokens.concat();
    asked.push(0);
    let mut picked = device.alloc_zeros::<f32>(asked.len())?;
    let mut all = unwritten::<f64>(device, n_rows)?;
    let mut likeliest = unwritten::<u32>(device, n_rows)?;
    let (asked, offsets_there) = (device.clone_htod(&asked)?, device.clone_htod(&offsets)?);
    let (view, width) = (view::<T>(logits)?, vocabulary as u32);
    let mut launch = kernel.call();
    launch.arg(&view).arg(&asked).arg(&offsets_there).arg(&width);
    launch.arg(&mut picked).arg(&mut all).arg(&mut likeliest);
    #[expect(unsafe_code, reason = "a kernel is launched")]
    // SAFETY: the arguments are the kernel's: a block reads a row, and tokens within the vocabulary, as the engine checked.
    unsafe { launch.launch(blocks((n_rows, 1), THREADS)?) }.w()?;
    let (picked, all) = (device.clone_dtoh(&picked)?, device.clone_dtoh(&all)?);
    let likeliest = device.clone_dtoh(&likeliest)?;
    let rows = all.into_iter().zip(likeliest).zip(offsets.windows(2));
    let said = rows.map(|((all, likeliest), of)| {
        let logits = &picked[of[0] as usize..of[1] as usize];
        let log_probabilities: Vec<f64> = logits.iter().map(|&logit| f64::from(logit) - all).collect();
        Said {
            is_finite: all.is_finite() && log_probabilities.iter().all(|value| value.is_finite()),
            log_probabilities,
            likeliest,
        }
    });
    Ok(said.collect())
}
