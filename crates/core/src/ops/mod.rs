//! The operations of the forward pass, one file each: formula, body, and a naive twin in its test.
//!
//! These are the `plain` bodies: a few candle operations that run on any device. They are what faster kernels will be
//! compared with.

mod activation;
mod attention;
mod linear;
mod norm;
mod rotary;

pub use activation::Activation;
pub use attention::{ScoreRule, mix, pattern, scores};
pub use linear::{linear, project};
pub use norm::{layer_norm, rms_norm};
pub use rotary::{Angles, frequencies, rotate};

#[cfg(test)]
pub(crate) mod testing;
