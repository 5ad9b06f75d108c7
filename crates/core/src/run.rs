//! From prompts to results: chunks of whole prompts, one whole forward pass per thread, results in order.

use crate::apart::Apart;
use crate::attribution::{self, Attribution, Options, Target};
use crate::cancel::Cancel;
use crate::chunk::{Chunk, Prompted, n_rows};
use crate::device::DeviceName;
use crate::error::{PrismError, Result};
use crate::fence::fenced;
use crate::memory;
use crate::model::Transformer;
use crate::ops::awake_until;
use crate::prefix;
use crate::whole::{Places, Whole};
use rayon::ThreadPool;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Tokens of a chunk, unless a prompt alone is longer: enough rows for full speed, few enough to stay in cache.
pub const CHUNK_TOKENS: usize = 256;
/// The same on a GPU, which has no such cache and thousands of processors.
pub const GPU_CHUNK_TOKENS: usize = 1 << 15;

/// Tokens of a chunk on a device.
pub fn chunk_tokens(device: DeviceName) -> usize {
    if device == DeviceName::Cpu { CHUNK_TOKENS } else { GPU_CHUNK_TOKENS }
}

/// What a job carries with it.
pub struct Job<'a> {
    /// Set to stop at the next layer.
    pub cancel: &'a Cancel,
    /// Called with the prompts done and their number, from any thread.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
}

/// Where to run.
pub struct Place<'a> {
    /// The model.
    pub model: &'a Transformer,
    /// Threads to run on.
    pub pool: &'a ThreadPool,
    /// Bytes that a run may take, if the user set a limit; weights not counted.
    pub memory_limit: Option<u64>,
}

/// What a call computes over its prompts.
pub struct Work<'a> {
    /// The prompts, in order.
    pub prompts: &'a [Prompted],
    /// Prompts are put together up to this many tokens.
    pub chunk_tokens: usize,
    /// For the message where the memory does not do.
    pub purpose: &'static str,
    /// Bytes of the whole result, which stays while chunks run.
    pub result_bytes: u64,
    /// Whether the parts are copied into one whole at the end, beside which they lie for a moment.
    pub is_merged: bool,
    /// Bytes that a chunk takes besides its forward pass and what attribution keeps.
    pub chunk_bytes: &'a (dyn Fn(&[Prompted]) -> u64 + Sync),
}

/// Runs `each` on every chunk of the prompts and returns what it made, in order. Progress counts prompts.
///
/// # Errors
/// `MEMORY` before anything is run, `ABORTED`, and those of `each`.
pub fn over_chunks<T: Send>(
    place: &Place,
    work: &Work,
    job: &Job,
    each: impl Fn(Chunk) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    Ok(over_chunks_with_places(place, work, job, 0, |chunk, _| each(chunk))?.0)
}

/// The same, for a result of `width` numbers at each wanted row: a chunk writes those of its rows where they stay. Returns
/// them beside what the chunks made.
///
/// # Errors
/// As [`over_chunks`], and `INTERNAL` where a chunk leaves rows out.
pub(crate) fn over_chunks_with_places<T: Send>(
    place: &Place,
    work: &Work,
    job: &Job,
    width: usize,
    each: impl Fn(Chunk, Places) -> Result<T> + Sync,
) -> Result<(Vec<T>, Vec<f32>)> {
    let (chunks, threads) = fitting_plan(place, work)?;
    let mut whole = Whole::new(n_rows(work.prompts), width);
    let places = whole.places(chunks.iter().map(|chunk| n_rows(&work.prompts[chunk.clone()])))?;
    let places: Vec<Mutex<Option<Places>>> = places.into_iter().map(|places| Mutex::new(Some(places))).collect();
    let done = Mutex::new(0);
    let parts = each_chunk(place, threads, chunks.len(), |i| {
        let chunk = Chunk { first: chunks[i].start, prompts: &work.prompts[chunks[i].clone()] };
        let places = places[i].lock().unwrap_or_else(|e| e.into_inner()).take();
        let places =
            places.ok_or_else(|| PrismError::Internal { place: "chunks".into(), problem: "one ran twice".into() })?;
        let part = each(chunk, places)?;
        // reported under the lock, so that the figures only rise
        let mut done = done.lock().unwrap_or_else(|e| e.into_inner());
        *done += chunk.prompts.len();
        (job.progress)(*done, work.prompts.len());
        Ok(part)
    })?;
    drop(places);
    Ok((parts, whole.numbers()?))
}

/// The parts of a result, one behind the other.
pub fn merged<T: Default>(parts: Vec<T>, append: impl Fn(&mut T, T)) -> T {
    let mut parts = parts.into_iter();
    let mut all = parts.next().unwrap_or_default();
    parts.for_each(|part| append(&mut all, part));
    all
}

/// Attributes over all prompts; one target per prompt.
///
/// # Errors
/// `MEMORY` before anything is run, `ABORTED`, and those of [`attribution::attribute`].
pub fn attribute(
    place: &Place,
    prompts: &[Prompted],
    targets: &[Target],
    options: &Options,
    chunk_tokens: usize,
    job: &Job,
) -> Result<Attribution> {
    let config = &place.model.config;
    let work = Work {
        prompts,
        chunk_tokens,
        purpose: "the forward pass and its result",
        result_bytes: memory::attributed(config, options.unit, n_rows(prompts)),
        is_merged: false,
        chunk_bytes: &|chunk| memory::attributing(config, options.unit, n_rows(chunk)),
    };
    let (parts, values) = over_chunks_with_places(place, &work, job, options.width(config), |chunk, places| {
        attribution::attribute(place.model, chunk, chunk.part(targets), options, job.cancel, places)
    })?;
    let mut all = Attribution { values, ..merged(parts, Attribution::append) };
    all.keep_top(options, config);
    Ok(all)
}

/// Consecutive prompts that together run at most `chunk_tokens` tokens, at least one; what a prompt shares with an earlier
/// one of its chunk is not run again.
fn plan(prompts: &[Prompted], chunk_tokens: usize, model: &Transformer) -> Vec<Range<usize>> {
    let mut chunks = Vec::<Range<usize>>::new();
    let (mut run, mut all) = (0, 0);
    for (i, prompt) in prompts.iter().enumerate() {
        let length = prompt.ids.len();
        if let Some(chunk) = chunks.last_mut() {
            let shared = || prefix::shared(prompt, &prompts[chunk.clone()], &model.config);
            let borrowed = if model.device.is_cpu() { shared().map_or(0, |(_, length)| length) } else { 0 };
            let fits_borrowed = borrowed == 0 || all + length <= prefix::MAX_BORROWED * chunk_tokens;
            // the prefix itself is run once however many share it, so it does not count against them
            let own = if borrowed == 0 { run + length } else { run.saturating_sub(borrowed) + length - borrowed };
            if own <= chunk_tokens && fits_borrowed {
                chunk.end = i + 1;
                run += length - borrowed;
                all += length;
                continue;
            }
        }
        chunks.push(i..i + 1);
        (run, all) = (length, length);
    }
    chunks
}

/// Chunks that fit into the memory beside the result, smaller than asked for if they must be, and how many of them may
/// run at once.
///
/// # Errors
/// `MEMORY` where the largest prompt alone does not fit.
fn fitting_plan(place: &Place, work: &Work) -> Result<(Vec<Range<usize>>, usize)> {
    let device = &place.model.device;
    let needs = |chunk: &Range<usize>| {
        let prompts = &work.prompts[chunk.clone()];
        let lengths: Vec<usize> = prompts.iter().map(|p| p.ids.len()).collect();
        memory::forward_of(place.model, &lengths, n_rows(prompts)) + (work.chunk_bytes)(prompts)
    };
    // results lie on the host: a GPU's memory is for its chunks alone
    let whole = if work.is_merged { 2 * work.result_bytes } else { work.result_bytes };
    if !device.is_cpu() {
        memory::check(work.purpose, whole, None)?;
    }
    let result = if device.is_cpu() { work.result_bytes } else { 0 };
    let free = memory::available_on(device, place.memory_limit)?.unwrap_or(u64::MAX);
    let available = free.saturating_sub(result);
    let mut tokens = work.chunk_tokens;
    loop {
        let chunks = plan(work.prompts, tokens, place.model);
        let largest = chunks.iter().map(needs).max().unwrap_or(0);
        let merging = if work.is_merged { result } else { 0 };
        if largest.max(merging) <= available {
            let threads = usize::try_from(available / largest.max(1)).unwrap_or(usize::MAX);
            return Ok((chunks, threads.clamp(1, place.pool.current_num_threads())));
        }
        if chunks.len() == work.prompts.len() || merging > available || result > free {
            let (purpose, needed, available) = (work.purpose.into(), largest.max(merging) + result, free);
            return Err(PrismError::Memory { purpose, needed, available });
        }
        tokens /= 2;
    }
}

/// Runs `each` on every chunk, at most `threads` at once, and returns the results in order; the first error stops the
/// rest. Every thread takes the next chunk from a counter: a chunk is never a stealable task, for a thread that waits
/// inside a matrix product would begin a second forward pass on top of its first. A GPU is given its work by one thread, the
/// one that this is called on.
fn each_chunk<T: Send>(
    place: &Place,
    threads: usize,
    n_chunks: usize,
    each: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    if !place.model.device.is_cpu() {
        return (0..n_chunks).map(each).collect();
    }
    let (next, busy) = (AtomicUsize::new(0), AtomicUsize::new(place.pool.current_num_threads()));
    let results: Mutex<Vec<(usize, Result<T>)>> = Mutex::new(Vec::new());
    let apart = Apart::new(place.pool.current_num_threads());
    place.pool.broadcast(|thread| {
        apart.settle(thread.index());
        while thread.index() < threads {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= n_chunks {
                break;
            }
            let result = fenced(|| each(i)).unwrap_or_else(|panic| Err(PrismError::Poisoned { panic }));
            if result.is_err() {
                next.store(n_chunks, Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(|e| e.into_inner()).push((i, result));
        }
        busy.fetch_sub(1, Ordering::Relaxed);
        stand_by(&busy, || apart.settle(thread.index()));
    });
    let mut results = results.into_inner().unwrap_or_else(|e| e.into_inner());
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Takes parts of the operations of those threads that are still busy. At first awake: an operation on a short prompt is
/// over before a thread that sleeps has come. An engine runs one call at a time, so what is found here belongs to this one.
fn stand_by(busy: &AtomicUsize, settle: impl Fn()) {
    while !awake_until(|| busy.load(Ordering::Relaxed) == 0) {
        std::thread::sleep(Duration::from_micros(50)); // nothing here is shared
        settle();
    }
}

/// A pool of `threads` threads.
///
/// # Errors
/// `INVALID_ARGUMENT` for 0 or more than 1,024, `INTERNAL` where the system gives no threads.
pub fn pool(threads: Option<usize>) -> Result<ThreadPool> {
    let available = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = threads.unwrap_or(available);
    if !(1..=1024).contains(&threads) {
        return Err(PrismError::argument("threads", threads, "a whole number from 1 to 1024"));
    }
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(crate::engine::STACK_BYTES);
    let named = builder.thread_name(|i| format!("logit-prism-{i}"));
    named.build().map_err(|e| PrismError::Internal { place: "thread pool".into(), problem: e.to_string() })
}
