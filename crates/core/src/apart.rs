//! Threads that begin a call together, each on a processor of its own.
//!
//! After a pause of some hundred milliseconds Linux may wake all threads of a pool on one processor, one behind the other,
//! and leave them there for the whole of a short call while another processor has nothing to do: a single prompt then
//! takes 1.6 times as long.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Where the threads of a call run.
pub(crate) struct Apart {
    /// The processor of each thread that has come; [`NOWHERE`] of the others.
    processors: Vec<AtomicUsize>,
}

const NOWHERE: usize = usize::MAX;

impl Apart {
    /// For so many threads.
    pub fn new(threads: usize) -> Self {
        Apart { processors: (0..threads).map(|_| AtomicUsize::new(NOWHERE)).collect() }
    }

    /// Called by each thread when it begins or has slept: it leaves its processor to another that came there before. Then it
    /// lets those that wait for it come, so that they can leave as well. Its affinity is the same before and after.
    pub fn settle(&self, thread: usize) {
        if self.processors.len() < 2 {
            return;
        }
        let others = self.processors.iter().enumerate().filter(|(i, _)| *i != thread);
        let taken: Vec<usize> = others.map(|(_, at)| at.load(Ordering::SeqCst)).filter(|at| *at != NOWHERE).collect();
        if system::processor().is_some_and(|here| taken.contains(&here)) {
            system::leave(&taken);
        }
        self.processors[thread].store(system::processor().unwrap_or(NOWHERE), Ordering::SeqCst);
        std::thread::yield_now();
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::mem::size_of;

    /// The processor that this thread runs on.
    pub fn processor() -> Option<usize> {
        // SAFETY: a question
        usize::try_from(unsafe { libc::sched_getcpu() }).ok()
    }

    /// Moves this thread to a processor that it may use and that is not one of these, if there is one.
    pub fn leave(taken: &[usize]) {
        // SAFETY: sets of processors are plain numbers; the system reads and writes no more than their size
        unsafe {
            let mut all: libc::cpu_set_t = std::mem::zeroed();
            if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut all) != 0 {
                return;
            }
            let mut free = all;
            for processor in taken.iter().filter(|processor| **processor < libc::CPU_SETSIZE as usize) {
                libc::CPU_CLR(*processor, &mut free);
            }
            if libc::CPU_COUNT(&free) > 0
                && libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const free) == 0
            {
                libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const all);
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub fn processor() -> Option<usize> {
        None
    }

    pub fn leave(_: &[usize]) {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::sync::Barrier;

    /// The processors that this thread may use.
    fn allowed() -> Vec<usize> {
        // SAFETY: as in `leave`
        unsafe {
            let mut all: libc::cpu_set_t = std::mem::zeroed();
            assert_eq!(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut all), 0);
            (0..libc::CPU_SETSIZE as usize).filter(|at| libc::CPU_ISSET(*at, &all)).collect()
        }
    }

    #[test]
    fn threads_that_begin_on_one_processor_go_apart_and_keep_their_affinity() {
        let all = allowed();
        if all.len() < 2 {
            return;
        }
        let (apart, both) = (Apart::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (apart, both, all) = (&apart, &both, &all);
                scope.spawn(move || {
                    system::leave(&all[1..]); // which leaves the first
                    both.wait();
                    apart.settle(thread);
                    assert_eq!(&allowed(), all);
                    both.wait();
                });
            }
        });
        let found: Vec<usize> = apart.processors.iter().map(|at| at.load(Ordering::SeqCst)).collect();
        assert!(found.iter().all(|at| all.contains(at)) && found[0] != found[1], "{found:?} of {all:?}");
    }

    #[test]
    fn where_no_other_processor_is_allowed_a_thread_stays() {
        let all = allowed();
        system::leave(&all);
        assert_eq!(allowed(), all);
        let alone = Apart::new(1);
        alone.settle(0);
        assert_eq!(alone.processors[0].load(Ordering::SeqCst), NOWHERE, "one thread has nobody to leave");
    }
}
