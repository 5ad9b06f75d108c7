//! The operations of the forward pass, one file each: formula, body, and a naive twin in its test.
//!
//! These are the `plain` bodies: a few candle operations that run on any device. They are what faster kernels will be
//! compared with.

mod activation;
mod attention;
mod linear;
mod norm;

pub use activation::Activation;
pub use attention::{mix, pattern, scores};
pub use linear::{linear, project};
pub use norm::layer_norm;

#[cfg(test)]
pub(crate) mod testing;
