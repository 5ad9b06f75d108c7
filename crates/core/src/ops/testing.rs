//! Helpers of the tests: deterministic tensors, and comparison with numbers that another computation gave.

use candle_core::{Device, Tensor};

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
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
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
