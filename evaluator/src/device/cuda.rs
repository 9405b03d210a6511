//! NVIDIA's cards. What stands in the way of one is found before CUDA is asked for anything: a program with the stand-ins of
//! evaluator/cuda ends at the first call of a library that is not there.

use std::ffi::{CStr, CString};

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use candle_core::cuda_backend::cudarc::driver::sys::{self, CUdevice_attribute, CUmemPool_attribute};
use candle_core::cuda_backend::cudarc::driver::{DriverError, result};

use super::Memory;

/// The release of CUDA that the kernels were compiled by, `MAJOR.MINOR`.
const RELEASE: &str = env!("FINELINE_CUDA_RELEASE");

/// The least compute capability, Ampere's: bfloat16 on the matrix units.
const LEAST_CAPABILITY: (i32, i32) = (8, 0);

pub(super) fn open(number: usize) -> Result<Device> {
    let name = format!("device `cuda:{number}`");
    let n_cards = n_cards().with_context(|| name.clone())?;
    ensure!(
        number < n_cards,
        "{name} is not there: this process sees {n_cards}, counted from `cuda:0` (CUDA_VISIBLE_DEVICES hides cards)"
    );
    let capability = capability(number).with_context(|| name.clone())?;
    let (major, minor) = LEAST_CAPABILITY;
    ensure!(
        capability >= LEAST_CAPABILITY,
        "{name} has compute capability {}.{} and {major}.{minor} is the least: use a card from Ampere on, or `cpu`",
        capability.0,
        capability.1
    );
    // A stream of its own: the one that candle takes otherwise is a thread's, and an engine is worked by many.
    let device = Device::new_cuda_with_stream(number).with_context(|| name.clone())?;
    if let Device::Cuda(cuda) = &device {
        #[expect(unsafe_code, reason = "events between streams are switched off")]
        // SAFETY: all that is done on the card is done on the one stream that was just made.
        unsafe {
            cuda.disable_event_tracking();
        }
    }
    if let Err(error) = keep_memory(number) {
        tracing::warn!(
            error = format!("{error:#}"),
            "{name} gives memory back whenever it is waited for: slower"
        );
    }
    Ok(device)
}

/// Starts the driver and counts its cards.
pub(super) fn n_cards() -> Result<usize> {
    let (major, _) = release()?;
    find("libcuda.so.1").context("there is no NVIDIA driver: install one, or use `cpu`")?;
    for library in [
        format!("libcublas.so.{major}"),
        format!("libcublasLt.so.{major}"),
        "libcurand.so.10".to_owned(),
    ] {
        find(&library).with_context(|| {
            format!(
                "CUDA {major}'s cuBLAS and cuRAND are missing: install them, or name their folder in LD_LIBRARY_PATH"
            )
        })?;
    }
    check_driver()?;
    if let Err(error) = result::init() {
        let text = "the driver does not start: `nvidia-smi` should list the card; in a container, run it with the card \
                    (`--gpus all`) and the capability `compute`";
        return Err(cause(error)).context(text);
    }
    let n_cards = result::device::get_count().map_err(cause)?;
    ensure!(
        n_cards > 0,
        "the driver sees no card: `nvidia-smi` should list one, and CUDA_VISIBLE_DEVICES must not hide it"
    );
    Ok(n_cards as usize)
}

pub(super) fn memory(device: &Device) -> Option<Memory> {
    let Device::Cuda(cuda) = device else { return None };
    let context = cuda.cuda_stream().context().clone();
    let (free, total) = context.mem_get_info().ok()?;
    let number = context.ordinal();
    let set_aside = pool_bytes(number, CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
    let used = pool_bytes(number, CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
    Some(Memory {
        free_bytes: free as u64 + set_aside.saturating_sub(used),
        total_bytes: total as u64,
    })
}

#[expect(unsafe_code, reason = "the driver's own functions")]
pub(super) fn give_back(device: &Device) {
    let Device::Cuda(cuda) = device else { return };
    // What was freed is free once the stream has come to it.
    let stream = cuda.cuda_stream();
    let done = stream.synchronize().and_then(|()| {
        let pool = pool(stream.context().ordinal())?;
        // SAFETY: the pool is the device's own and stays.
        unsafe { result::mem_pool::trim_to(pool, 0) }
    });
    if let Err(error) = done {
        tracing::warn!(%error, "the card's memory could not be given back");
    }
}

/// Keeps freed memory for the next tensor: the driver would take it back whenever somebody waits for the card.
#[expect(unsafe_code, reason = "the driver's own functions")]
fn keep_memory(number: usize) -> Result<()> {
    let mut threshold = u64::MAX;
    let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the attribute is a 64-bit number, read during the call.
    unsafe { result::mem_pool::set_attribute(pool(number)?, attribute, (&raw mut threshold).cast()) }.map_err(cause)
}

#[expect(unsafe_code, reason = "the driver's own functions")]
fn pool_bytes(number: usize, attribute: CUmemPool_attribute) -> Option<u64> {
    let mut bytes = 0_u64;
    // SAFETY: these attributes are 64-bit numbers, written during the call.
    unsafe { result::mem_pool::get_attribute(pool(number).ok()?, attribute, (&raw mut bytes).cast()) }.ok()?;
    Some(bytes)
}

/// The pool that a card's tensors come from.
#[expect(unsafe_code, reason = "the driver's own functions")]
fn pool(number: usize) -> Result<sys::CUmemoryPool, DriverError> {
    let device = result::device::get(number as i32)?;
    // SAFETY: the device is one that the driver just named.
    unsafe { result::device::get_default_mem_pool(device) }
}

/// Major and minor.
#[expect(unsafe_code, reason = "the driver's own functions")]
fn capability(number: usize) -> Result<(i32, i32)> {
    let device = result::device::get(number as i32).map_err(cause)?;
    let ask = |attribute: CUdevice_attribute| {
        // SAFETY: the device is one that the driver just named.
        unsafe { result::device::get_attribute(device, attribute) }.map_err(cause)
    };
    Ok((
        ask(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        ask(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    ))
}

/// Demands a driver that knows the release of CUDA that this program is of.
#[expect(unsafe_code, reason = "the driver's own functions")]
fn check_driver() -> Result<()> {
    let mut version = 0;
    // SAFETY: a number is written during the call.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }
        .result()
        .map_err(cause)?;
    let known = (version / 1000, version % 1000 / 10);
    if known < release()? {
        let (major, minor) = known;
        bail!("the driver knows CUDA {major}.{minor} and this program is of CUDA {RELEASE}: install a newer driver");
    }
    Ok(())
}

fn release() -> Result<(i32, i32)> {
    let numbers = RELEASE.split_once('.').context("a release has a minor number")?;
    Ok((numbers.0.parse()?, numbers.1.parse()?))
}

/// Opens a library, which stays open.
#[expect(unsafe_code, reason = "a library is opened")]
fn find(library: &str) -> Result<()> {
    let name = CString::new(library)?;
    // SAFETY: NVIDIA's libraries may be opened at any time; what dlerror says is copied before anything else is opened.
    unsafe {
        if libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL).is_null() {
            let said = libc::dlerror();
            ensure!(!said.is_null(), "`{library}` can't be opened");
            bail!(
                "`{library}` can't be opened: {}",
                CStr::from_ptr(said).to_string_lossy()
            );
        }
    }
    Ok(())
}

/// The driver's error by its name and its words.
fn cause(error: DriverError) -> anyhow::Error {
    anyhow::anyhow!("{error:?}")
}
