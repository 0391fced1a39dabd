//! Which worker a task runs on. A worker is a thread with a runtime of its own: its
//! connections, those of callers and those to tools, its tasks and its timers stay on it,
//! so that nothing of a call hops between threads.
//!
//! Where no workers were started, as in tests over in-memory pipes, all is as on the one
//! worker of a process.

use std::cell::OnceCell;

use tokio::{runtime::Handle, task::JoinHandle};

thread_local! {
    static CURRENT: OnceCell<Worker> = const { OnceCell::new() };
}

#[derive(Debug)]
struct Worker {
    index: usize,
    count: usize,
    background: Handle,
}

/// Makes the current thread the worker `index` of `count`, for as long as it lives.
/// What belongs to no worker runs on `background`.
pub(crate) fn become_worker(index: usize, count: usize, background: Handle) {
    let worker = Worker {
        index,
        count,
        background,
    };
    CURRENT.with(|current| {
        let _ = current.set(worker);
    });
}

/// The number of the worker that runs this, from 0.
pub(crate) fn index() -> usize {
    current().unwrap_or(0)
}

/// The same, if this is a worker.
pub(crate) fn current() -> Option<usize> {
    of_current(|worker| worker.index)
}

/// How many workers there are.
pub(crate) fn count() -> usize {
    of_current(|worker| worker.count).unwrap_or(1)
}

/// Runs what belongs to no worker, such as looking up names for all of them: it must go on
/// when one of them is stuck.
pub(crate) fn spawn_in_background<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    match of_current(|worker| worker.background.clone()) {
        Some(background) => background.spawn(task),
        None => tokio::spawn(task),
    }
}

fn of_current<T>(read: impl FnOnce(&Worker) -> T) -> Option<T> {
    CURRENT.with(|current| current.get().map(read))
}
