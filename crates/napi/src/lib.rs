//! The Node addon: converts between JavaScript and the core, and never computes. A function here reads as: parse, one
//! call of the core on its engine thread, wrap.

mod attention;
mod causal;
mod circuit;
mod decompose;
mod errors;
mod inputs;
mod interventions;
mod job;
mod model;
mod outputs;
mod patches;
mod run;
mod summary;

/// Version 2: version 3 crashes when only worker threads load the addon and one ends before the next loads it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Memory that one layer frees the next one takes: it goes back to the system after a second, not after 10 ms, for
/// every page that comes back has to be cleared (5 % of a forward pass).
#[napi_derive::module_init]
fn keep_pages() {
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: sets a number of the allocator; the option's place is that of version 2, which is pinned
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 1000) };
}
