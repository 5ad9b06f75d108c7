//! One thread per device that runs jobs in order, so that no compute ever happens on the caller's thread.

use crate::device::DeviceName;
use crate::fence::fenced;
use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Stack of the engine thread and of the threads of a pool; the deepest frames are gemm's and the tokenizer's.
pub const STACK_BYTES: usize = 8 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// A queue and the thread that empties it. Jobs must report their own outcome; a job that panics anyway is dropped.
pub struct Engine {
    queue: Sender<Job>,
}

impl Engine {
    /// The engine of a device, shared by all models on it: a GPU has one thread that gives it work.
    pub fn of(device: DeviceName) -> &'static Engine {
        static ENGINES: Mutex<BTreeMap<DeviceName, &'static Engine>> = Mutex::new(BTreeMap::new());
        let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
        engines.entry(device).or_insert_with(|| Box::leak(Box::new(Engine::start(&format!("logit-prism-{device}")))))
    }

    /// The engine of the CPU.
    pub fn cpu() -> &'static Engine {
        Engine::of(DeviceName::Cpu)
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
        let (mine, of_gpu) = channel();
        Engine::of(DeviceName::Cuda(7))
            .submit(move || mine.send(thread::current().name().map(str::to_string)).unwrap());
        assert_eq!(of_gpu.recv().unwrap().as_deref(), Some("logit-prism-cuda:7"));
        let order: Vec<_> = (0..3).map(|_| received.recv().unwrap()).collect();
        assert_eq!(order, [(0, false), (2, false), (3, false)]);
    }
}
