//! Kernels of our own on NVIDIA's cards: what candle has not, and what it takes more passes for. `kernels/kernels.cu` says what each
//! takes; `evaluator/tests/kernels` runs the same sources on the CPU.
//!
//! **Invariant:** a kernel is launched with tensors that lie whole and in one piece behind its pointers, on the device's one stream,
//! so that whatever it reads was written before.

mod attend;
mod rows;
pub(crate) mod upload;

use std::sync::Arc;

use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, CudaView, CudaViewMut, DeviceRepr, LaunchArgs, LaunchConfig,
};
use candle_core::{CudaDevice, CudaStorage, Error, Layout, Result, Storage, Tensor};
use half::{bf16, f16};

pub(crate) use attend::attend;
pub(crate) use rows::{gate, keep, rotate, said};

const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

/// Threads of a block that goes over numbers one by one.
const THREADS: u32 = 256;

/// A dtype that the kernels are compiled for.
trait Number: CudaDType + DeviceRepr {
    /// What stands behind a kernel's name.
    const SUFFIX: &'static str;
}

impl Number for f32 {
    const SUFFIX: &'static str = "f32";
}

impl Number for f16 {
    const SUFFIX: &'static str = "f16";
}

impl Number for bf16 {
    const SUFFIX: &'static str = "bf16";
}

/// Calls a generic function for the dtype of a storage.
macro_rules! by_dtype {
    ($storage:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match candle_core::backend::BackendStorage::dtype($storage) {
            candle_core::DType::F32 => $function::<f32>($($argument),*),
            candle_core::DType::F16 => $function::<half::f16>($($argument),*),
            candle_core::DType::BF16 => $function::<half::bf16>($($argument),*),
            other => candle_core::bail!("no kernel computes in {other:?}"),
        }
    };
}
use by_dtype;

/// A kernel, and the stream that it runs on.
struct Kernel {
    function: CudaFunction,
    stream: Arc<CudaStream>,
}

/// A kernel by its name.
fn kernel(device: &CudaDevice, name: &str) -> Result<Kernel> {
    let function = device.get_or_load_custom_func(name, "fineline", KERNELS)?;
    Ok(Kernel {
        function: function.into_cuda_function(),
        stream: device.cuda_stream(),
    })
}

impl Kernel {
    /// What its arguments are added to.
    fn call(&self) -> LaunchArgs<'_> {
        self.stream.launch_builder(&self.function)
    }
}

/// Blocks of so many threads.
fn blocks(n_blocks: (usize, usize), n_threads: u32) -> Result<LaunchConfig> {
    let number = |n: usize| u32::try_from(n).map_err(|_| Error::msg(format!("{n} blocks are more than a card takes")));
    let (x, y) = (number(n_blocks.0)?, number(n_blocks.1)?);
    if y > u32::from(u16::MAX) {
        candle_core::bail!("{y} blocks in the second dimension are more than a card takes");
    }
    Ok(LaunchConfig {
        grid_dim: (x, y, 1),
        block_dim: (n_threads, 1, 1),
        shared_mem_bytes: 0,
    })
}

/// The numbers of a tensor.
fn view<'a, T: Number>((storage, layout): (&'a CudaStorage, &Layout)) -> Result<CudaView<'a, T>> {
    let (begin, end) = places(layout)?;
    Ok(storage.as_cuda_slice::<T>()?.slice(begin..end))
}

/// The same, to be changed.
fn view_mut<'a, T: Number>((storage, layout): (&'a mut CudaStorage, &Layout)) -> Result<CudaViewMut<'a, T>> {
    let (begin, end) = places(layout)?;
    Ok(storage.as_cuda_slice_mut::<T>()?.slice_mut(begin..end))
}

fn places(layout: &Layout) -> Result<(usize, usize)> {
    let places = layout.contiguous_offsets();
    places.ok_or_else(|| Error::msg("a tensor whose numbers lie apart"))
}

/// Reads a tensor on a card.
fn with<T: CudaDType, R>(tensor: &Tensor, reader: impl FnOnce(CudaView<'_, T>) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        candle_core::bail!("a tensor that is not on the card");
    };
    let (begin, end) = places(layout)?;
    reader(storage.as_cuda_slice::<T>()?.slice(begin..end))
}

/// Memory that a kernel fills whole.
fn unwritten<T: DeviceRepr>(device: &CudaDevice, n: usize) -> Result<CudaSlice<T>> {
    #[expect(unsafe_code, reason = "memory that holds nothing yet")]
    // SAFETY: every caller has all of it written on the device's stream before anything reads it there, or drops it.
    unsafe {
        device.alloc::<T>(n)
    }
}
