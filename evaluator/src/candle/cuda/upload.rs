//! Bytes from a file to a card: through two buffers that the card reads by itself, so that one is filled while the other is on its
//! way, by as many threads as there are.

use std::io;

use candle_core::backend::BackendDevice;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaSlice, DevicePtrMut, PinnedHostSlice, result};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Result, Storage, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use super::Number;

/// Bytes of a buffer.
const BUFFER: usize = 64 << 20;

/// Bytes that a thread reads at once.
const PART: usize = 4 << 20;

/// A buffer, and when the card has read it.
struct Buffer {
    bytes: PinnedHostSlice<u8>,
    read: Option<CudaEvent>,
}

/// Two buffers and the card that they are of.
pub(crate) struct Upload {
    device: CudaDevice,
    buffers: [Buffer; 2],
    next: usize,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").finish_non_exhaustive()
    }
}

impl Upload {
    /// Buffers for a card.
    ///
    /// # Errors
    /// When memory can't be pinned: a limit of locked memory, or none left.
    pub(crate) fn new(device: &CudaDevice) -> Result<Self> {
        let context = device.cuda_stream().context().clone();
        let buffer = || -> Result<Buffer> {
            #[expect(unsafe_code, reason = "memory that holds nothing yet")]
            // SAFETY: a buffer is read only as far as it was filled.
            let bytes = unsafe { context.alloc_pinned::<u8>(BUFFER) }.w()?;
            Ok(Buffer { bytes, read: None })
        };
        Ok(Self {
            buffers: [buffer()?, buffer()?],
            device: device.clone(),
            next: 0,
        })
    }

    /// A tensor of so many bytes, which `read` gives from an offset on; it is called by several threads.
    ///
    /// # Errors
    /// What `read` gives, and when the card has no memory.
    pub(crate) fn tensor(
        &mut self,
        dtype: DType,
        shape: &[usize],
        read: impl Fn(usize, &mut [u8]) -> io::Result<()> + Sync,
    ) -> Result<Tensor> {
        let storage = match dtype {
            DType::F32 => self.storage::<f32>(shape, read)?,
            DType::F16 => self.storage::<f16>(shape, read)?,
            DType::BF16 => self.storage::<bf16>(shape, read)?,
            other => candle_core::bail!("weights are no {other:?}"),
        };
        Ok(Tensor::from_storage(
            Storage::Cuda(storage),
            shape,
            BackpropOp::none(),
            false,
        ))
    }

    fn storage<T: Number>(
        &mut self,
        shape: &[usize],
        read: impl Fn(usize, &mut [u8]) -> io::Result<()> + Sync,
    ) -> Result<CudaStorage> {
        let n: usize = shape.iter().product();
        // Filled whole below, or dropped.
        let mut slice = super::unwritten::<T>(&self.device, n)?;
        self.fill(&mut slice, n * size_of::<T>(), read)?;
        Ok(CudaStorage::wrap_cuda_slice(slice, self.device.clone()))
    }

    fn fill<T: Number>(
        &mut self,
        slice: &mut CudaSlice<T>,
        n_bytes: usize,
        read: impl Fn(usize, &mut [u8]) -> io::Result<()> + Sync,
    ) -> Result<()> {
        let stream = self.device.cuda_stream();
        let (pointer, _written) = slice.device_ptr_mut(&stream);
        for begin in (0..n_bytes).step_by(BUFFER) {
            let n = BUFFER.min(n_bytes - begin);
            let buffer = &mut self.buffers[self.next];
            self.next = 1 - self.next;
            // What the card has not read yet may not be written over.
            if let Some(event) = buffer.read.take() {
                event.synchronize().w()?;
            }
            let filled = &mut buffer.bytes.as_mut_slice().w()?[..n];
            let parts = filled.par_chunks_mut(PART).enumerate();
            parts.try_for_each(|(i, part)| read(begin + i * PART, part))?;
            #[expect(
                unsafe_code,
                reason = "the driver's own function: cudarc's waits for the copy, or copies a whole buffer"
            )]
            // SAFETY: the numbers' bytes from `begin` on are n at least, and the buffer is not touched before the event below has come.
            unsafe { result::memcpy_htod_async(pointer + begin as u64, filled, stream.cu_stream()) }.w()?;
            buffer.read = Some(stream.record_event(None).w()?);
        }
        Ok(())
    }
}

impl Drop for Upload {
    /// A buffer that the card still reads is not given back.
    fn drop(&mut self) {
        if let Err(error) = self.device.synchronize() {
            tracing::warn!(%error, "the card did not read all that it was given");
        }
    }
}
