//! Candle's tensors as the numbers that they are: on the CPU read where they lie; on either device changed there.

use std::ops::Range;

use candle_core::{CpuStorage, Error, InplaceOp2, InplaceOp3, Layout, Result, Storage, Tensor, bail};

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;

#[cfg(feature = "cuda")]
use super::cuda;
use super::host::{self, Said};

/// Reads a float32 tensor's numbers, row by row, where they lie.
///
/// # Errors
/// When it is no contiguous float32 tensor on the CPU.
pub(crate) fn read<R>(tensor: &Tensor, reader: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(reader(numbers(storage, layout)?)),
        _ => bail!("a tensor that is not on the CPU"),
    }
}

/// Reads three tensors at once.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_three<R>([a, b, c]: [&Tensor; 3], reader: impl FnOnce([&[f32]; 3]) -> R) -> Result<R> {
    read(a, |a| read(b, |b| read(c, |c| reader([a, b, c]))))??
}

/// What rows of logits [n, V] say: `tokens` are those that each is asked for.
///
/// # Errors
/// When they are not contiguous, or the device fails.
pub(crate) fn said(logits: &Tensor, tokens: &[Vec<u32>]) -> Result<Vec<Said>> {
    #[cfg(feature = "cuda")]
    if logits.device().is_cuda() {
        return cuda::said(logits, tokens);
    }
    read(logits, |numbers| host::read(numbers, logits.dims()[1], tokens))
}

pub(crate) fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let numbers = storage.as_slice::<f32>()?;
    Ok(&numbers[places(layout)?])
}

pub(crate) fn places(layout: &Layout) -> Result<Range<usize>> {
    let (begin, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| Error::msg("a tensor whose numbers lie apart"))?;
    Ok(begin..end)
}

pub(crate) fn numbers_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    let CpuStorage::F32(numbers) = storage else {
        bail!("a tensor that is not float32");
    };
    Ok(&mut numbers[places(layout)?])
}

/// [`host::gated`]: the gate is changed.
pub(crate) struct Gated;

impl InplaceOp2 for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn cpu_fwd(&self, gate: &mut CpuStorage, layout: &Layout, up: &CpuStorage, up_layout: &Layout) -> Result<()> {
        host::gated(numbers_mut(gate, layout)?, numbers(up, up_layout)?);
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, gate: &mut CudaStorage, layout: &Layout, up: &CudaStorage, up_layout: &Layout) -> Result<()> {
        cuda::gate((gate, layout), (up, up_layout))
    }
}

/// [`host::rotate`]: [N, heads · D] by cos and sin [N, D / 2].
pub(crate) struct Rotated {
    pub(crate) head_dim: usize,
}

impl InplaceOp3 for Rotated {
    fn name(&self) -> &'static str {
        "rotated"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        layout: &Layout,
        cos: &CpuStorage,
        cos_layout: &Layout,
        sin: &CpuStorage,
        sin_layout: &Layout,
    ) -> Result<()> {
        let width = layout.dims().last().copied().unwrap_or_default();
        let (cos, sin) = (numbers(cos, cos_layout)?, numbers(sin, sin_layout)?);
        host::rotate(numbers_mut(x, layout)?, width, self.head_dim, cos, sin);
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &mut CudaStorage,
        layout: &Layout,
        cos: &CudaStorage,
        cos_layout: &Layout,
        sin: &CudaStorage,
        sin_layout: &Layout,
    ) -> Result<()> {
        cuda::rotate(self.head_dim, (x, layout), (cos, cos_layout), (sin, sin_layout))
    }
}
