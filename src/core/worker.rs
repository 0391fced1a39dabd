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
    of_current(|worker| worker.index).unwrap_or(0)
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

/// Workers for tests.
#[cfg(test)]
pub(crate) mod testing {
    use std::{
        sync::mpsc::{Sender, channel},
        thread,
    };

    use tokio::{runtime::Builder, sync::oneshot};

    use super::*;

    /// Threads that are workers, until this is dropped. What belongs to none of them runs
    /// where they were started.
    pub(crate) struct Workers(Vec<(Handle, Option<oneshot::Sender<()>>)>);

    /// A worker that does nothing until this is dropped.
    pub(crate) struct Stuck(#[allow(dead_code)] Sender<()>);

    /// The worker that runs this, if one does.
    pub(crate) fn current() -> Option<usize> {
        of_current(|worker| worker.index)
    }

    impl Workers {
        pub(crate) fn start(count: usize) -> Self {
            let background = Handle::current();
            let start = |index| {
                let (started, starting) = channel();
                let (stop, stopped) = oneshot::channel();
                let background = background.clone();
                thread::spawn(move || {
                    become_worker(index, count, background);
                    let runtime = Builder::new_current_thread().enable_all().build();
                    let runtime = runtime.expect("a runtime");
                    started.send(runtime.handle().clone()).expect("the test");
                    let _ = runtime.block_on(stopped);
                });
                (starting.recv().expect("a worker"), Some(stop))
            };
            Self((0..count).map(start).collect())
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
            self.0[index].0.spawn(task)
        }

        pub(crate) async fn stick(&self, index: usize) -> Stuck {
            let (release, released) = channel();
            let (sticks, stuck) = oneshot::channel();
            self.0[index].0.spawn(async move {
                let _ = sticks.send(());
                let _ = released.recv();
            });
            stuck.await.expect("a worker");
            Stuck(release)
        }

        /// Ends a worker, with all its tasks.
        pub(crate) fn end(&mut self, index: usize) {
            self.0[index].1 = None;
        }
    }
}
