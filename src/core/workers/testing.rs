//! For tests: workers that run what they are told to, and hang or end when they are.

use std::sync::mpsc::{Sender, channel};

use tokio::{sync::oneshot, task::JoinHandle};

use super::{Threads, Workers};

/// Workers, until this is dropped. What belongs to none of them runs where they were
/// started.
pub(crate) struct TestWorkers {
    pub(super) workers: Workers,
    pub(super) threads: Threads,
}

/// A worker that does nothing until this is dropped.
pub(crate) struct Stuck(#[allow(dead_code)] Sender<()>);

impl TestWorkers {
    pub(crate) fn start(count: usize) -> Self {
        let (workers, threads) = Workers::start(count).expect("workers");
        Self { workers, threads }
    }

    /// Runs `task` on a worker.
    pub(crate) async fn run<F>(&self, index: usize, task: F) -> F::Output
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.spawn(index, task).await.expect("no panic")
    }

    /// Starts `task` on a worker.
    pub(crate) fn spawn<F>(&self, index: usize, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.workers.0[index].handle.spawn(task)
    }

    /// Holds its thread up, as a task that never yields would.
    pub(crate) async fn stick(&self, index: usize) -> Stuck {
        let (release, released) = channel();
        let (sticks, stuck) = oneshot::channel();
        self.spawn(index, async move {
            let _ = sticks.send(());
            let _ = released.recv();
        });
        stuck.await.expect("a worker");
        Stuck(release)
    }

    /// Ends a worker, with all its tasks.
    pub(crate) fn end(&mut self, index: usize) {
        self.threads.stop[index] = oneshot::channel().0;
    }
}
