//! Work inside an operation, cut for threads that have nothing else to do.
//!
//! Chunks of prompts run one per thread (`run.rs`). Where there are fewer chunks than threads, the others take parts of
//! the operations of those that run. How the work is cut depends on sizes alone, so numbers do not depend on which
//! thread was idle.

use std::ops::Range;

/// Calls `each` on consecutive ranges that make up `0..n`, at most one per thread of the pool, each of at least `least`
/// and (but for the last) of a multiple of `unit`.
pub(crate) fn split(n: usize, least: usize, unit: usize, each: &(impl Fn(Range<usize>) + Sync)) {
    // outside a pool there is nobody to share with
    let threads = rayon::current_thread_index().map_or(1, |_| rayon::current_num_threads());
    halve(0..n, threads.min(n / least.max(1)).max(1), unit, each);
}

/// Calls `each` on consecutive ranges of `unit` that make up `0..n`; whoever is idle takes some of them. For work that is
/// so short that a thread may come late.
pub(crate) fn spread(n: usize, unit: usize, each: &(impl Fn(Range<usize>) + Sync)) {
    let alone = rayon::current_thread_index().is_none() || rayon::current_num_threads() == 1;
    halve(0..n, if alone { 1 } else { n.div_ceil(unit) }, unit, each);
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
    rayon::join(|| halve(first, left, unit, each), || halve(second, parts - left, unit, each));
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
    #[allow(clippy::single_range_in_vec_init)]
    fn units_make_up_the_whole() {
        let found = |n, unit| {
            let found = Mutex::new(Vec::new());
            spread(n, unit, &|range| found.lock().unwrap().push(range));
            let mut found = found.into_inner().unwrap();
            found.sort_by_key(|range| range.start);
            found
        };
        assert_eq!(found(100, 48), [0..100]); // no pool
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        pool.install(|| {
            assert_eq!(found(100, 16), [0..16, 16..32, 32..48, 48..64, 64..80, 80..96, 96..100]);
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
