//! Lines on their way to an output that may be stuck: a pipe that nobody reads, a
//! terminal that was stopped. Those who log never wait; beyond a bound lines are
//! lost, and how many is logged once the output takes them again.

use std::{
    io, mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;

/// Some thousand lines: more than any burst but that of an output that is stuck.
const MAX_BYTES: usize = 1 << 20;
const THREAD: &str = "log";
/// After a write the next lines are gathered for so long: to wake the thread and
/// write for each would cost a busy service more than its calls do.
const GATHER: Duration = Duration::from_millis(5);

/// Lines that were lost, in the life of the process.
static LOST: AtomicU64 = AtomicU64::new(0);

/// How many lines were lost so far.
pub(super) fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Lines that wait for the thread that writes them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    lost: u64,
    writing: bool,
    /// When the thread has something to say by itself.
    wake_at: Option<Instant>,
}

impl Queue {
    /// Starts the thread that writes to `output`. It calls `report`, which may add
    /// lines, when it was [asked to](Self::wake_by).
    pub(super) fn start(
        self: &Arc<Self>,
        mut output: impl io::Write + Send + 'static,
        report: impl Fn() + Send + 'static,
    ) -> io::Result<()> {
        let queue = Arc::clone(self);
        let work = move || {
            loop {
                queue.write_next(&mut output, &report);
                thread::sleep(GATHER);
            }
        };
        thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn(work)
            .map(drop)
    }

    /// Asks for a report at `at`, or before that.
    pub(super) fn wake_by(&self, at: Instant) {
        let mut state = self.lock();
        if state.wake_at.is_none_or(|before| at < before) {
            state.wake_at = Some(at);
            self.changed.notify_all();
        }
    }
}

impl Queue {
    /// Waits until all lines are written, at most for `timeout`.
    pub(super) fn flush(&self, timeout: Duration) {
        let busy = |state: &mut State| state.writing || !state.bytes.is_empty();
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, busy);
        drop(waited);
    }

    fn write_next(&self, output: &mut impl io::Write, report: &impl Fn()) {
        let mut state = self.wait();
        if state.wake_at.is_some_and(|at| at <= Instant::now()) {
            state.wake_at = None;
            drop(state);
            report();
            state = self.lock();
        }
        let lines = mem::take(&mut state.bytes);
        let lost = mem::take(&mut state.lost);
        state.writing = true;
        drop(state);

        // If nobody can read it there is nobody to tell.
        let _ = output.write_all(&lines).and_then(|()| output.flush());
        if lost > 0 {
            tracing::warn!(lost, "log lines were lost: the output was stuck");
        }
        self.lock().writing = false;
        self.changed.notify_all();
    }

    /// Waits until there is something to write, or to say.
    fn wait(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while state.bytes.is_empty() {
            let changed = &self.changed;
            state = match state.wake_at {
                None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return state;
                    }
                    let waited = changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        state
    }

    /// Nothing that runs under the lock panics.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a line.
impl io::Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.lock();
        // The thread itself says how many were lost: that must not get lost.
        let fits =
            state.bytes.len() + line.len() <= MAX_BYTES || thread::current().name() == Some(THREAD);
        if fits {
            let first = state.bytes.is_empty();
            state.bytes.extend_from_slice(line);
            drop(state);
            if first {
                self.changed.notify_all();
            }
        } else {
            state.lost += 1;
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
