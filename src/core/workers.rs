//! The workers of a process: threads that share nothing but what must be counted together
//! (see `worker.rs`). Here they are started, get the connections of callers, and are looked
//! after.
//!
//! A thread that hops between cores, or hands a call to another thread, pays for that with
//! every call. So a connection stays on the worker that it was given to, and so do the
//! calls that come over it.

mod placement;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{mpsc, oneshot},
    time::timeout,
};

use self::placement::Load;
use super::worker::become_worker;

/// How often the workers are to be [looked at](Workers::look).
pub const PERIOD: Duration = Duration::from_secs(1);
/// A worker that has not answered in so many looks is stuck. They are counted, not
/// timed: a process that was frozen as a whole has no stuck worker when it thaws.
const STUCK_AFTER: u32 = 5;
/// How long workers have to end.
const GRACE: Duration = Duration::from_millis(500);

/// The workers. Clones share them.
#[derive(Clone, Debug)]
pub struct Workers(Arc<[Worker]>);

#[derive(Debug)]
struct Worker {
    handle: Handle,
    /// The connections of callers that it has.
    connections: AtomicUsize,
    /// How many of them it was given since the last look.
    new: AtomicUsize,
    /// How long it was busy in the period before the last look, and up to then, in
    /// nanoseconds.
    busy: AtomicU64,
    total_busy: AtomicU64,
    /// Whether it has run what the last look asked it to run.
    answered: Arc<AtomicBool>,
    /// In how many looks it had not.
    unanswered: AtomicU32,
}

/// The threads of the workers. Dropping it ends them.
#[derive(Debug)]
pub struct Threads {
    stop: Vec<oneshot::Sender<()>>,
    ended: mpsc::UnboundedReceiver<usize>,
}

/// What a look has found out about a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is stuck: its connections are not served, and it gets no new ones.
    Stuck {
        /// Which.
        worker: usize,
        /// How many it has.
        connections: usize,
    },
    /// It is no longer stuck.
    Recovered {
        /// Which.
        worker: usize,
        /// For how long it was.
        time: Duration,
    },
}

/// A connection of a caller on a worker; counted until this is dropped.
#[derive(Debug)]
pub struct Place {
    workers: Workers,
    index: usize,
}

/// Tells that a thread has ended, by panic as well.
struct End {
    index: usize,
    ended: mpsc::UnboundedSender<usize>,
}

impl Workers {
    /// Starts `count` workers. What belongs to none of them runs on the current runtime.
    ///
    /// # Errors
    /// The operating system's, if it has no more threads or file descriptors.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn start(count: usize) -> io::Result<(Self, Threads)> {
        let (ended, ends) = mpsc::unbounded_channel();
        let mut workers = Vec::with_capacity(count);
        let mut stop = Vec::with_capacity(count);
        for index in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            workers.push(Worker::new(runtime.handle().clone()));
            let (sender, stopped) = oneshot::channel();
            stop.push(sender);
            let end = End {
                index,
                ended: ended.clone(),
            };
            let background = Handle::current();
            let work = move || {
                let end = end;
                become_worker(index, count, background);
                run(runtime, stopped);
                drop(end);
            };
            thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(work)?;
        }
        Ok((Self(workers.into()), Threads { stop, ended: ends }))
    }

    /// Has each worker run what `task` makes.
    pub fn spawn_on_each<F>(&self, task: impl Fn() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        for worker in self.0.iter() {
            worker.handle.spawn(task());
        }
    }

    /// A place for a new connection: on the worker with the least to do.
    pub fn place(&self) -> Place {
        let loads: Vec<_> = self.0.iter().map(Worker::load).collect();
        let index = placement::least_loaded(&loads, PERIOD);
        let worker = &self.0[index];
        worker.connections.fetch_add(1, Ordering::Relaxed);
        worker.new.fetch_add(1, Ordering::Relaxed);
        Place {
            workers: self.clone(),
            index,
        }
    }

    /// For each worker: how many connections of callers it has.
    pub fn connections(&self) -> impl Iterator<Item = usize> {
        let connections = |worker: &Worker| worker.connections.load(Ordering::Relaxed);
        self.0.iter().map(connections)
    }

    /// For each worker: how long it has been busy since it was started.
    pub fn busy(&self) -> impl Iterator<Item = Duration> {
        self.0.iter().map(Worker::total_busy)
    }

    /// For each worker: for how long it has not done anything that it was asked to do,
    /// if that is so long that it must be stuck.
    pub fn stuck(&self) -> impl Iterator<Item = Option<Duration>> {
        self.0.iter().map(Worker::stuck)
    }

    /// Whether all of them work.
    ///
    /// # Errors
    /// Which one is stuck, for people.
    pub fn check(&self) -> Result<(), String> {
        let stuck = self.stuck().enumerate();
        let mut stuck = stuck.filter_map(|(index, time)| Some((index, time?.as_secs())));
        match stuck.next() {
            None => Ok(()),
            Some((index, time)) => Err(format!("worker {index} has been stuck for {time} s")),
        }
    }

    /// Finds out how busy they are, and whether they still work. To be called once in a
    /// [`PERIOD`].
    pub fn look(&self) -> Vec<Change> {
        let workers = self.0.iter().enumerate();
        workers
            .filter_map(|(index, worker)| worker.look(index))
            .collect()
    }
}

impl Worker {
    fn new(handle: Handle) -> Self {
        Self {
            handle,
            connections: AtomicUsize::new(0),
            new: AtomicUsize::new(0),
            busy: AtomicU64::new(0),
            total_busy: AtomicU64::new(0),
            answered: Arc::new(AtomicBool::new(true)),
            unanswered: AtomicU32::new(0),
        }
    }

    fn load(&self) -> Load {
        Load {
            busy: Duration::from_nanos(self.busy.load(Ordering::Relaxed)),
            connections: self.connections.load(Ordering::Relaxed),
            new: self.new.load(Ordering::Relaxed),
            stuck: self.stuck().is_some(),
        }
    }

    fn total_busy(&self) -> Duration {
        self.handle.metrics().worker_total_busy_duration(0)
    }

    fn stuck(&self) -> Option<Duration> {
        let unanswered = self.unanswered.load(Ordering::Relaxed);
        (unanswered >= STUCK_AFTER).then(|| PERIOD * unanswered)
    }

    fn look(&self, worker: usize) -> Option<Change> {
        let total = self.total_busy().as_nanos() as u64;
        let before = self.total_busy.swap(total, Ordering::Relaxed);
        self.busy
            .store(total.saturating_sub(before), Ordering::Relaxed);
        self.new.store(0, Ordering::Relaxed);

        if self.answered.swap(false, Ordering::Relaxed) {
            let stuck = self.stuck();
            self.unanswered.store(0, Ordering::Relaxed);
            let answered = Arc::clone(&self.answered);
            self.handle
                .spawn(async move { answered.store(true, Ordering::Relaxed) });
            return stuck.map(|time| Change::Recovered { worker, time });
        }
        let unanswered = self.unanswered.fetch_add(1, Ordering::Relaxed) + 1;
        (unanswered == STUCK_AFTER).then(|| Change::Stuck {
            worker,
            connections: self.connections.load(Ordering::Relaxed),
        })
    }
}

impl Threads {
    /// Completes when a worker has ended, which none does unless its thread panics; says
    /// which. Its connections are gone, and their calls with them.
    pub async fn broken(&mut self) -> usize {
        match self.ended.recv().await {
            Some(index) => index,
            None => std::future::pending().await,
        }
    }

    /// Ends the workers. Those that are stuck are left behind.
    pub async fn stop(mut self) {
        let mut running = self.stop.len();
        self.stop.clear();
        let all = async {
            while running > 0 && self.ended.recv().await.is_some() {
                running -= 1;
            }
        };
        let _ = timeout(GRACE, all).await;
    }
}

impl Place {
    /// Where the connection's tasks are to be spawned.
    pub fn handle(&self) -> &Handle {
        &self.workers.0[self.index].handle
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let worker = &self.workers.0[self.index];
        worker.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.ended.send(self.index);
    }
}

/// Runs the tasks of a worker until `stopped`.
fn run(runtime: Runtime, stopped: oneshot::Receiver<()>) {
    // An error means that the sender was dropped, which is the way to stop it.
    let _ = runtime.block_on(stopped);
    // Does not wait for threads that look up names.
    runtime.shutdown_background();
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
