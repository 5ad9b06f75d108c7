//! Helpers of the tests: deterministic tensors, comparison with numbers that another computation gave, and one test for
//! every device.

#[cfg(any(feature = "cuda", feature = "pretend-gpu"))]
use crate::device;
use candle_core::{Device, Tensor};
use std::cell::RefCell;

/// One numerical test for every device: `test_device!(name)` runs the function `name` on the CPU as `name::cpu`, and as
/// `name::gpu` on a GPU, where there is one and the feature `cuda` is on, or `pretend-gpu`.
macro_rules! test_device {
    ($name:ident) => {
        mod $name {
            #[test]
            fn cpu() {
                crate::ops::testing::on(candle_core::Device::Cpu, super::$name);
            }

            #[test]
            #[cfg(any(feature = "cuda", feature = "pretend-gpu"))]
            fn gpu() {
                match crate::ops::testing::gpu() {
                    Some(gpu) => crate::ops::testing::on(gpu, super::$name),
                    None => eprintln!("not run: there is no GPU"),
                }
            }
        }
    };
}
pub(crate) use test_device;

thread_local! {
    static DEVICE: RefCell<Device> = const { RefCell::new(Device::Cpu) };
}

/// Where the tensors of this test lie.
pub fn device() -> Device {
    DEVICE.with_borrow(Device::clone)
}

/// Runs a test on a device.
pub fn on(device: Device, test: impl FnOnce()) {
    DEVICE.set(device);
    test();
}

/// The GPU of this machine, or the one that is none.
#[cfg(any(feature = "cuda", feature = "pretend-gpu"))]
pub fn gpu() -> Option<Device> {
    let ordinal = if cfg!(feature = "pretend-gpu") { 0 } else { device::gpu(None).ok()?.ordinal };
    Some(device::DeviceName::Cuda(ordinal).open().expect("a GPU that can be computed on"))
}

/// A tensor of pseudo-random numbers in −1..1 (splitmix64), the same for the same seed.
pub fn matrix(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let data: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::from_vec(data, shape, &device()).unwrap()
}

/// The elements as f64, row-major.
pub fn values(t: &Tensor) -> Vec<f64> {
    let flat: Vec<f32> = t.flatten_all().unwrap().to_vec1().unwrap();
    flat.into_iter().map(f64::from).collect()
}

/// Panics unless every element is within `tolerance (1 + |expected|)`; infinities must be equal.
#[track_caller]
pub fn close(found: &Tensor, expected: &[f64], tolerance: f64) {
    let found = values(found);
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(f == e || (f - e).abs() <= tolerance * (1.0 + e.abs()), "element {i}: found {f}, expected {e}");
    }
}
