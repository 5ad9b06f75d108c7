//! Where a model computes: the CPU, or one NVIDIA GPU.

#[cfg(feature = "cuda")]
mod cuda;
mod driver;

pub use driver::{Gpu, gpu};

use crate::error::{PrismError, Result};
use candle_core::{DType, Device, Tensor};
use std::fmt;

/// The name of a device: `cpu`, `cuda:0`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceName {
    /// The CPU.
    #[default]
    Cpu,
    /// The GPU of this ordinal, as the driver counts.
    Cuda(usize),
}

impl DeviceName {
    /// By its name; `cuda` alone is `cuda:0`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub fn parse(name: &str) -> Result<Self> {
        let ordinal = match name {
            "cpu" => return Ok(DeviceName::Cpu),
            "cuda" => Some(0),
            _ => name.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok()),
        };
        let unknown = || PrismError::argument("device", format!("'{name}'"), "'cpu', 'cuda' or 'cuda:N'");
        ordinal.map(DeviceName::Cuda).ok_or_else(unknown)
    }

    /// The device itself; a GPU's is made once, for each call to candle's constructor makes another one.
    ///
    /// # Errors
    /// `DEVICE_UNAVAILABLE`.
    pub fn open(self) -> Result<Device> {
        match self {
            DeviceName::Cpu => Ok(Device::Cpu),
            DeviceName::Cuda(ordinal) => open_gpu(ordinal),
        }
    }
}

/// What weights are held and multiplied in. The residual stream, norms, softmax and sums are f32 whatever it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WeightDtype {
    /// 32 bits.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half.
    F16,
}

impl WeightDtype {
    /// That a device multiplies in it.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub fn check(self, device: DeviceName) -> Result<()> {
        match (self, device) {
            (WeightDtype::F32, _) | (_, DeviceName::Cuda(_)) => Ok(()),
            (other, DeviceName::Cpu) => Err(PrismError::argument(
                "dtype",
                format!("'{other}'"),
                "'f32': the CPU computes in f32, whatever is stored",
            )),
        }
    }

    /// candle's name of it.
    pub fn of_tensors(self) -> DType {
        match self {
            WeightDtype::F32 => DType::F32,
            WeightDtype::Bf16 => DType::BF16,
            WeightDtype::F16 => DType::F16,
        }
    }
}

impl fmt::Display for WeightDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.of_tensors().as_str())
    }
}

/// Bytes that can be taken on a GPU now; `None` for the CPU, whose memory is the system's.
///
/// # Errors
/// `INTERNAL` where the driver does not answer.
pub fn free_bytes(device: &Device) -> Result<Option<u64>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda::free_bytes(device).map(Some),
        _ => Ok(None),
    }
}

/// A tensor on another device. One without numbers, which a GPU neither allocates nor copies, is a view there.
///
/// # Errors
/// `INTERNAL`.
pub fn moved(t: &Tensor, device: &Device) -> Result<Tensor> {
    match (t.elem_count(), device) {
        (0, Device::Cpu) => Ok(Tensor::zeros(t.shape(), t.dtype(), device)?),
        (0, _) => {
            let one: Vec<usize> = t.dims().iter().map(|n| (*n).max(1)).collect();
            let one = Tensor::zeros(one, t.dtype(), device)?;
            t.dims().iter().enumerate().try_fold(one, |t, (axis, n)| Ok(t.narrow(axis, 0, *n)?))
        }
        _ => Ok(t.to_device(device)?),
    }
}

/// Gives back, when it is dropped, what a GPU keeps of memory without use.
pub struct Unused(#[allow(dead_code)] Device);

impl Unused {
    /// Of this device.
    pub fn of(device: &Device) -> Self {
        Unused(device.clone())
    }
}

impl Drop for Unused {
    fn drop(&mut self) {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(device) = &self.0 {
            // a driver that does not answer here will say so in the next call
            drop(cuda::give_back(device));
        }
    }
}

#[cfg(feature = "cuda")]
fn open_gpu(ordinal: usize) -> Result<Device> {
    gpu(Some(ordinal))?;
    cuda::device(ordinal)
}

#[cfg(all(feature = "pretend-gpu", not(feature = "cuda")))]
fn open_gpu(ordinal: usize) -> Result<Device> {
    Ok(Device::new_cuda_with_stream(ordinal)?)
}

#[cfg(not(any(feature = "cuda", feature = "pretend-gpu")))]
fn open_gpu(ordinal: usize) -> Result<Device> {
    let reason = "this addon was built without CUDA".into();
    Err(PrismError::DeviceUnavailable { device: DeviceName::Cuda(ordinal).to_string(), reason })
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Cpu => write!(f, "cpu"),
            DeviceName::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, device) in
            [("cpu", DeviceName::Cpu), ("cuda:0", DeviceName::Cuda(0)), ("cuda:12", DeviceName::Cuda(12))]
        {
            assert_eq!(DeviceName::parse(name).unwrap(), device);
            assert_eq!(device.to_string(), name);
        }
        assert_eq!(DeviceName::parse("cuda").unwrap(), DeviceName::Cuda(0));
        for name in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            assert_eq!(DeviceName::parse(name).unwrap_err().code(), "INVALID_ARGUMENT", "{name}");
        }
    }

    #[test]
    fn the_cpu_multiplies_in_f32_only() {
        for dtype in [WeightDtype::F32, WeightDtype::Bf16, WeightDtype::F16] {
            dtype.check(DeviceName::Cuda(0)).unwrap();
            assert_eq!(dtype.check(DeviceName::Cpu).is_ok(), dtype == WeightDtype::F32);
        }
        let error = WeightDtype::Bf16.check(DeviceName::Cpu).unwrap_err();
        assert_eq!(error.to_string(), "dtype is 'bf16'; expected 'f32': the CPU computes in f32, whatever is stored");
    }

    #[test]
    #[cfg(not(any(feature = "cuda", feature = "pretend-gpu")))]
    fn without_cuda_a_gpu_is_refused() {
        assert!(matches!(DeviceName::Cpu.open(), Ok(Device::Cpu)));
        let error = DeviceName::Cuda(1).open().unwrap_err();
        assert_eq!(error.to_string(), "device cuda:1 is not available: this addon was built without CUDA");
    }
}
