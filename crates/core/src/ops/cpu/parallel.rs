//! Work inside an operation, cut for threads that have nothing else to do.
//!
//! Chunks of prompts run one per thread (`run.rs`). Where there are fewer chunks than threads, the others take parts of
//! the operations of those that run. How the work is cut depends on sizes alone, so numbers do not depend on which
//! thread was idle.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Calls `each` on consecutive ranges that make up `0..n`, at most one per thread of the pool, each of at least `least`
/// and (but for the last) of a multiple of `unit`.
pub(crate) fn split(n: usize, least: usize, unit: usize, each: &(impl Fn(Range<usize>) + Sync)) {
    halve(0..n, n_threads().min(n / least.max(1)).max(1), unit, each);
}

/// The same with some ranges per thread, so that the one that is slower leaves some to the others: for work that is over
/// when memory has been read.
pub(crate) fn spread(n: usize, least: usize, unit: usize, each: &(impl Fn(Range<usize>) + Sync)) {
    const PER_THREAD: usize = 4;
    let most = if n_threads() == 1 { 1 } else { PER_THREAD * n_threads() };
    halve(0..n, most.min(n / least.max(1)).max(1), unit, each);
}

/// Outside a pool there is nobody to share with.
fn n_threads() -> usize {
    rayon::current_thread_index().map_or(1, |_| rayon::current_num_threads())
}

fn halve(range: Range<usize>, parts: usize, unit: usize, each: &(impl Fn(Range<usize>) + Sync)) {
    if parts < 2 || range.len() <= unit {
        if !range.is_empty() {
            each(range);
        }
        return;
    }
    let left = parts / 2;
    let middle = range.start + (range.len() * left / parts).div_ceil(unit) * unit;
    let middle = middle.min(range.end);
    let (first, second) = (range.start..middle, middle..range.end);
    join(|| halve(first, left, unit, each), || halve(second, parts - left, unit, each));
}

/// Both, of which an idle thread may take the second. Whoever ends first waits awake: rayon's own `join` sleeps after some
/// microseconds, and a thread that is woken on a virtual machine takes its time or ends up on the processor of the one that
/// woke it.
fn join(first: impl FnOnce() + Send, second: impl FnOnce() + Send) {
    let is_done = AtomicBool::new(false);
    let then_wait = || {
        first();
        awake_until(|| is_done.load(Ordering::Acquire));
    };
    rayon::join(then_wait, || {
        second();
        is_done.store(true, Ordering::Release);
    });
}

/// Takes work of others until `is_done` or nothing was found for some milliseconds; returns whether it is done. Soon others
/// who wait for this processor come first.
pub(crate) fn awake_until(is_done: impl Fn() -> bool) -> bool {
    const EAGER: usize = 200;
    const PATIENT: usize = 200 * EAGER;
    let mut idle = 0;
    while !is_done() {
        if let Some(rayon::Yield::Executed) = rayon::yield_now() {
            idle = 0;
            continue;
        }
        idle += 1;
        match idle {
            ..EAGER => std::hint::spin_loop(),
            EAGER..PATIENT => std::thread::yield_now(),
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn ranges(n: usize, least: usize, unit: usize) -> Vec<Range<usize>> {
        let found = Mutex::new(Vec::new());
        split(n, least, unit, &|range| found.lock().unwrap().push(range));
        let mut found = found.into_inner().unwrap();
        found.sort_by_key(|range| range.start);
        found
    }

    #[test]
    fn waiting_ends_with_what_is_waited_for_or_when_nothing_comes() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        pool.install(|| {
            assert!(awake_until(|| true));
            assert!(!awake_until(|| false));
            let is_done = AtomicBool::new(false);
            let wait =
                || assert!(awake_until(|| is_done.load(Ordering::Acquire)), "what it waits for is its own to do");
            rayon::join(wait, || is_done.store(true, Ordering::Release));
        });
    }

    #[test]
    fn a_panic_in_either_half_is_passed_on() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        for at in [0, 1] {
            let each = |range: Range<usize>| assert_ne!(range.start, at, "a panic");
            let result =
                pool.install(|| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| split(2, 1, 1, &each))));
            assert!(result.is_err(), "part {at}");
        }
    }

    #[test]
    #[allow(clippy::single_range_in_vec_init)]
    fn units_make_up_the_whole() {
        let found = |n, least| {
            let found = Mutex::new(Vec::new());
            spread(n, least, 16, &|range| found.lock().unwrap().push(range));
            let mut found = found.into_inner().unwrap();
            found.sort_by_key(|range| range.start);
            found
        };
        assert_eq!(found(100, 16), [0..100]); // no pool
        let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        pool(1).install(|| assert_eq!(found(100, 16), [0..100]));
        pool(2).install(|| {
            assert_eq!(found(100, 16), [0..32, 32..48, 48..64, 64..80, 80..96, 96..100]);
            assert_eq!(found(256, 1), (0..8).map(|i| 32 * i..32 * (i + 1)).collect::<Vec<_>>());
            assert_eq!(found(256, 128), [0..128, 128..256]);
            assert_eq!(found(256, 200), [0..256]);
            assert!(found(0, 16).is_empty());
        });
    }

    #[test]
    #[allow(clippy::single_range_in_vec_init)]
    fn parts_make_up_the_whole() {
        assert_eq!(ranges(100, 1, 1), [0..100]); // no pool
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        pool.install(|| {
            assert_eq!(ranges(100, 1, 1), [0..25, 25..50, 50..75, 75..100]);
            assert_eq!(ranges(100, 50, 1), [0..50, 50..100]);
            assert_eq!(ranges(100, 51, 1), [0..100]);
            assert_eq!(ranges(100, 1, 48), [0..48, 48..96, 96..100]);
            assert!(ranges(0, 1, 1).is_empty());
            assert_eq!(ranges(3, 1, 1), [0..1, 1..2, 2..3]);
        });
    }
}
