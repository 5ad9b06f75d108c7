//! One device of candle's per GPU, and its memory.

use super::DeviceName;
use crate::error::{PrismError, Result};
use candle_core::cuda_backend::cudarc::driver::result::mem_pool;
use candle_core::cuda_backend::cudarc::driver::sys::{CUmemPool_attribute, CUmemoryPool};
use candle_core::cuda_backend::cudarc::driver::{DriverError, result};
use candle_core::{CudaDevice, Device};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

/// The device of a GPU, made the first time. candle takes two devices of one GPU for different ones, and its default
/// constructor uses a stream per thread, which race: this one has a stream of its own, for all threads.
///
/// # Errors
/// `DEVICE_UNAVAILABLE`.
pub fn device(ordinal: usize) -> Result<Device> {
    static DEVICES: Mutex<BTreeMap<usize, CudaDevice>> = Mutex::new(BTreeMap::new());
    let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = devices.get(&ordinal) {
        return Ok(Device::Cuda(device.clone()));
    }
    let unavailable = |problem: String| PrismError::DeviceUnavailable {
        device: DeviceName::Cuda(ordinal).to_string(),
        reason: format!("CUDA does not start on it: {}", problem.lines().next().unwrap_or_default()),
    };
    // products of f32 in f32, of smaller types with sums in f32: candle's defaults, said aloud
    candle_core::cuda::set_gemm_reduced_precision_f32(false);
    candle_core::cuda::set_gemm_reduced_precision_f16(false);
    candle_core::cuda::set_gemm_reduced_precision_bf16(false);
    let device = CudaDevice::new_with_stream(ordinal).map_err(|e| unavailable(e.to_string()))?;
    // SAFETY: events order the work of several streams; there is one here, which orders everything by itself
    unsafe { device.disable_event_tracking() };
    if device.cuda_stream().context().has_async_alloc() {
        keep_memory(&device).map_err(|e| unavailable(e.to_string()))?;
    }
    devices.insert(ordinal, device.clone());
    Ok(Device::Cuda(device))
}

/// What the driver takes for kernels that it loads when they are first called, and cuBLAS for its products.
const RESERVED: u64 = 256 << 20;

/// Bytes that can be taken on a GPU: what is free there, and what its pool holds of ours without use, but [`RESERVED`].
///
/// # Errors
/// `INTERNAL` where the driver does not answer.
pub fn free_bytes(device: &CudaDevice) -> Result<u64> {
    let stream = device.cuda_stream();
    let ask = || {
        let (free, _) = stream.context().mem_get_info()?;
        if !stream.context().has_async_alloc() {
            return Ok((free as u64).saturating_sub(RESERVED)); // without pools
        }
        let pool = pool(device)?;
        let held = get(pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
        let used = get(pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
        Ok((free as u64 + held.saturating_sub(used)).saturating_sub(RESERVED))
    };
    ask().map_err(internal)
}

/// Gives back to the system what the pool holds without use.
///
/// # Errors
/// `INTERNAL` where the driver does not answer.
pub fn give_back(device: &CudaDevice) -> Result<()> {
    let stream = device.cuda_stream();
    let trim = || {
        stream.synchronize()?; // what was freed is free once the stream has come there
        if !stream.context().has_async_alloc() {
            return Ok(());
        }
        let pool = pool(device)?;
        // SAFETY: the GPU's own pool
        unsafe { mem_pool::trim_to(pool, 0) }
    };
    trim().map_err(internal)
}

/// The pool would give its memory back whenever the host waits for the device, which it does once a layer, and take it
/// anew in the next one.
fn keep_memory(device: &CudaDevice) -> std::result::Result<(), DriverError> {
    let mut threshold = u64::MAX;
    let place: *mut u64 = &mut threshold;
    // SAFETY: the GPU's own pool, and an attribute that is one u64
    unsafe {
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        mem_pool::set_attribute(pool(device)?, attribute, place.cast::<c_void>())
    }
}

fn pool(device: &CudaDevice) -> std::result::Result<CUmemoryPool, DriverError> {
    let stream = device.cuda_stream();
    stream.context().bind_to_thread()?;
    // SAFETY: the GPU of a context that is there
    unsafe { result::device::get_default_mem_pool(stream.context().cu_device()) }
}

fn get(pool: CUmemoryPool, attribute: CUmemPool_attribute) -> std::result::Result<u64, DriverError> {
    let mut value = 0u64;
    let place: *mut u64 = &mut value;
    // SAFETY: a pool that is there, and an attribute that is one u64
    unsafe { mem_pool::get_attribute(pool, attribute, place.cast::<c_void>()) }?;
    Ok(value)
}

fn internal(error: DriverError) -> PrismError {
    PrismError::Internal { place: "the CUDA driver".into(), problem: error.to_string() }
}
