//! What heads do: where they look on prompts (`pattern.rs`, `detect.rs`), and circuits from weights (Elhage et al. 2021, "A
//! Mathematical Framework for Transformer Circuits"): what a head moves and where it looks, without a prompt.
//!
//! ```text
//! OV = W_V W_O               what is written for what is read                       [d_model, d_model], rank ≤ d_head
//! QK = W_Q T(δ) W_Kᵀ         how much a query wants a key, δ positions before it    likewise; T: rotary positions
//! W_E OV W_U, W_E QK W_Eᵀ    the same between tokens, never formed                  [d_vocab, d_vocab]
//! ```
//!
//! Vectors are rows, as everywhere here: a published `W_OV x` in columns is `x OV`. Both are held as their factors
//! (`factored.rs`), in f64. A norm is a linear map once its scale at a token is held; γ and the centring are folded into
//! the matrices around it, and the scale, which depends on the token, is left out: `notes` of a circuit say so.

mod composition;
pub mod detect;
mod factored;
pub mod pattern;
mod rotary;
mod spec;
mod vocabulary;
mod weights;

pub use composition::{Baseline, Composed, Composition, CompositionCall, compose, composition_bytes};
pub use factored::{Factored, SingularVectors, eigenvalues, row_major};
pub use spec::{Circuit, CircuitKind, CircuitSpec, Offsets};
pub use vocabulary::{Copying, CopyingCall, TokenRow, copying, copying_bytes, rows, scores, vocabulary_bytes};
pub use weights::{Folded, Folding};
