//! Direct logit attribution of transformer language models: which components of the residual stream decide a logit.
//!
//! The glossary of sizes, used in every name, error and comment:
//!
//! | name | what | name | what |
//! |---|---|---|---|
//! | `n_layers` (`L`, index `l`) | blocks | `d_model` (`d`) | width of the residual stream |
//! | `n_heads` (`H`, index `h`) | query heads per layer | `d_head` (`e`) | width of one head |
//! | `n_key_value_heads` (`G`) | key and value heads | `d_mlp` (`m`) | hidden width of the MLP |
//! | `pos` (`T`) | positions of a prompt | `d_vocab` (`V`) | tokens of the vocabulary |
//! | `rows` (`R`) | (prompt, position) pairs of a batch | `query_pos`, `key_pos` | where attention looks from and to |
//!
//! The way of the data: `config` and `checkpoint` → `model` → `attribution` → `causal`, and never back. `run` puts prompts into
//! chunks and chunks onto threads.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod apart;
pub mod attribution;
pub mod batch;
pub mod cache;
pub mod cancel;
pub mod causal;
pub mod checkpoint;
pub mod chunk;
pub mod circuit;
pub mod config;
pub mod device;
pub mod engine;
pub mod error;
pub mod fence;
pub mod hook;
pub mod intervene;
pub mod memory;
pub mod model;
pub mod ops;
pub mod patch;
mod prefix;
mod random;
pub mod rows;
pub mod run;
pub mod session;
mod strict_json;
pub mod suggest;
pub mod tap;
pub mod tokenizer;
mod whole;

pub use error::{CODES, PrismError, Result};
