//! What the kernels for the CPU share: instruction sets, tensors as slices, threads, vectorised functions, and the
//! matrix products that no library has.

pub(crate) mod amx;
pub(crate) mod attention;
pub(crate) mod branches;
pub(crate) mod math;
pub(crate) mod matmul;
pub(crate) mod panels;
pub(crate) mod parallel;
pub(crate) mod simd;
pub(crate) mod tensor;

pub use simd::Isa;
