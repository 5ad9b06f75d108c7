//! One thread per device that runs jobs in order, so that no compute ever happens on the caller's thread.

use crate::fence::fenced;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

/// Stack of the engine thread and of the threads of a pool; the deepest frames are gemm's and the tokenizer's.
pub const STACK_BYTES: usize = 8 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// A queue and the thread that empties it. Jobs must report their own outcome; a job that panics anyway is dropped.
pub struct Engine {
    queue: Sender<Job>,
}

impl Engine {
    /// The engine of the CPU, shared by all models on it.
    pub fn cpu() -> &'static Engine {
        static CPU: OnceLock<Engine> = OnceLock::new();
        CPU.get_or_init(|| Engine::start("logit-prism-cpu"))
    }

    fn start(name: &str) -> Engine {
        let (queue, jobs) = channel::<Job>();
        let run = move || jobs.into_iter().for_each(|job| drop(fenced(job)));
        let started = thread::Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(run);
        // without a thread the receiver is gone, and `submit` runs jobs in place: slower, never lost
        drop(started);
        Engine { queue }
    }

    /// Queues a job. Jobs run one after the other, in the order of their arrival.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) {
        if let Err(unsent) = self.queue.send(Box::new(job)) {
            drop(fenced(unsent.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_run_in_order_off_this_thread_and_outlive_a_panic() {
        let (sent, received) = channel();
        let here = thread::current().id();
        for i in 0..4 {
            let sent = sent.clone();
            Engine::cpu().submit(move || {
                assert_ne!(i, 1, "the second job panics");
                sent.send((i, thread::current().id() == here)).unwrap();
            });
        }
        let order: Vec<_> = (0..3).map(|_| received.recv().unwrap()).collect();
        assert_eq!(order, [(0, false), (2, false), (3, false)]);
    }
}
