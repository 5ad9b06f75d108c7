//! The Node addon: converts between JavaScript and the core, and never computes. A function here reads as: parse, one
//! call of the core on its engine thread, wrap.

mod attention;
mod causal;
mod circuit;
mod decompose;
mod errors;
mod inputs;
mod job;
mod model;
mod outputs;
mod run;
mod summary;

/// Version 2: version 3 crashes when only worker threads load the addon and one ends before the next loads it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
