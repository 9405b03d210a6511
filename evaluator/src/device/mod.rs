//! Devices by their names: `cpu`, `cuda:N`, and `cuda:auto` for each card.

#[cfg(feature = "cuda")]
mod cuda;

use anyhow::{Result, bail};
use candle_core::Device;

/// What a worker or a program is told to compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The processor.
    Cpu,
    /// The card of that number, as the driver counts those that `CUDA_VISIBLE_DEVICES` leaves.
    Cuda(usize),
    /// Each card, by a process of its own.
    EachCuda,
}

impl Wanted {
    /// Tokens of a batch where nobody says how many: as many as fill the device's matrix units.
    pub fn batch_tokens(self) -> usize {
        match self {
            Self::Cpu => 2048,
            Self::Cuda(_) | Self::EachCuda => 8192,
        }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::EachCuda => f.write_str("cuda:auto"),
        }
    }
}

impl std::str::FromStr for Wanted {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name.strip_prefix("cuda") {
            None if name == "cpu" => Self::Cpu,
            Some("") => Self::Cuda(0),
            Some(":auto") => Self::EachCuda,
            Some(number) if number.strip_prefix(':').is_some_and(is_number) => Self::Cuda(number[1..].parse()?),
            _ => bail!(
                "device `{name}` is none: `cpu`, `cuda:N` for the card of number N, `cuda:auto` for a process a card"
            ),
        })
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() < 4 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Opens a device that one process computes on. [`Wanted::EachCuda`] is none: it stands for a process a card.
///
/// # Errors
/// Says what is missing and what to do: this build's support, the driver, a library, a card of that number or of that
/// capability.
pub fn open(wanted: Wanted) -> Result<Device> {
    match wanted {
        Wanted::Cpu => Ok(Device::Cpu),
        Wanted::Cuda(number) => cuda::open(number),
        Wanted::EachCuda => bail!("device `{wanted}` stands for a process a card: name one card here, `cuda:0`"),
    }
}

/// How many cards this process sees.
///
/// # Errors
/// As [`open`], and when there is none.
pub fn n_cards() -> Result<usize> {
    cuda::n_cards()
}

/// What a device has of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What may still be taken, by any process; what this one has set aside and does not use counts as free.
    pub free_bytes: u64,
    /// In all.
    pub total_bytes: u64,
}

/// A card's memory; `None` for the processor, whose memory is [`crate::memory`]'s, and where the driver does not say.
pub fn memory(device: &Device) -> Option<Memory> {
    match device {
        Device::Cpu => None,
        _ => cuda::memory(device),
    }
}

/// Whether work failed for want of memory on the device.
pub(crate) fn is_out_of_memory(error: &anyhow::Error) -> bool {
    says(error, &["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"])
}

/// Errors behind which the driver refuses everything else that this process asks for.
const LASTING: [&str; 13] = [
    "CUDA_ERROR_ASSERT",
    "CUDA_ERROR_CONTAINED",
    "CUDA_ERROR_DEINITIALIZED",
    "CUDA_ERROR_ECC_UNCORRECTABLE",
    "CUDA_ERROR_EXTERNAL_DEVICE",
    "CUDA_ERROR_HARDWARE_STACK_ERROR",
    "CUDA_ERROR_ILLEGAL_",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE",
    "CUDA_ERROR_INVALID_PC",
    "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA_ERROR_LAUNCH_TIMEOUT",
    "CUDA_ERROR_MISALIGNED_ADDRESS",
    "CUBLAS_STATUS_EXECUTION_FAILED",
];

/// Whether the device itself failed: nothing is computed on it in this process any more.
pub(crate) fn has_failed(error: &anyhow::Error) -> bool {
    says(error, &LASTING)
}

fn says(error: &anyhow::Error, codes: &[&str]) -> bool {
    let is_in = |cause: String| codes.iter().any(|code| cause.contains(code));
    error.chain().any(|cause| is_in(format!("{cause:?}")))
}

/// Gives memory back to the driver that this process has set aside on a device and does not use.
pub(crate) fn give_back(device: &Device) {
    if !device.is_cpu() {
        cuda::give_back(device);
    }
}

/// What a build without CUDA says.
#[cfg(not(feature = "cuda"))]
mod cuda {
    use anyhow::{Result, bail};
    use candle_core::Device;

    const NO_SUPPORT: &str = "this build computes on `cpu` only: evaluator/cuda/build.sh makes one for NVIDIA's cards";

    pub(super) fn open(number: usize) -> Result<Device> {
        bail!("device `cuda:{number}`: {NO_SUPPORT}")
    }

    pub(super) fn n_cards() -> Result<usize> {
        bail!("device `cuda:auto`: {NO_SUPPORT}")
    }

    pub(super) fn memory(_: &Device) -> Option<super::Memory> {
        None
    }

    pub(super) fn give_back(_: &Device) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        let wanted = |name: &str| name.parse::<Wanted>();
        for (name, device) in [
            ("cpu", Wanted::Cpu),
            ("cuda", Wanted::Cuda(0)),
            ("cuda:0", Wanted::Cuda(0)),
            ("cuda:11", Wanted::Cuda(11)),
            ("cuda:auto", Wanted::EachCuda),
        ] {
            assert_eq!(wanted(name).unwrap(), device);
        }
        for name in [
            "",
            "gpu",
            "cuda:",
            "cuda:-1",
            "cuda:+1",
            "cuda:1234",
            "cuda0",
            "CPU",
            "cuda:all",
        ] {
            let error = wanted(name).unwrap_err().to_string();
            assert!(
                error.contains(&format!("`{name}`")) && error.contains("cuda:N"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_a_device_lacks_or_breaks_by_is_known_by_its_code() {
        let candle = |text: &str| candle_core::Error::Cuda(text.to_owned().into());
        let error = anyhow::Error::from(candle("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")"));
        let error = error.context("layer 3");
        assert!(is_out_of_memory(&error) && !has_failed(&error));
        let error = anyhow::Error::from(candle("DriverError(CUDA_ERROR_LAUNCH_FAILED, \"\")"));
        assert!(!is_out_of_memory(&error) && has_failed(&error));
        // What a model is to blame for leaves the device whole.
        assert!(!has_failed(
            &candle("DriverError(CUDA_ERROR_INVALID_VALUE, \"\")").into()
        ));
    }
}
