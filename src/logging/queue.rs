//! A bounded queue of lines before an output that may be stuck: a pipe that nobody reads, a
//! terminal that is stopped. Logging never waits: when the queue is full, lines are dropped,
//! and how many is logged as soon as the output moves again.
//!
//! `tracing-appender` limits how many lines wait, not their bytes, writes each line by
//! itself, and logs nothing about lines that it drops.

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

/// Some thousand lines: only an output that is stuck lets so many gather.
const MAX_BYTES: usize = 1 << 20;
const THREAD: &str = "log";
/// How long lines are gathered after a write. Waking the thread and writing for each line
/// would cost a busy service more than its calls.
const GATHER: Duration = Duration::from_millis(10);

/// How many lines this process has dropped.
static LOST: AtomicU64 = AtomicU64::new(0);

/// How many lines were dropped so far.
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
    /// When the thread is to report, even without lines.
    wake_at: Option<Instant>,
}

impl Queue {
    /// Starts the thread that writes to `output`. It calls `report`, which may add lines,
    /// when it was [asked to](Self::wake_by).
    pub(super) fn start(
        self: &Arc<Self>,
        mut output: impl io::Write + Send + 'static,
        report: impl Fn() + Send + 'static,
    ) -> io::Result<()> {
        let queue = Arc::clone(self);
        let work = move || {
            let mut lines = Vec::new();
            loop {
                queue.write_next(&mut lines, &mut output, &report);
                thread::sleep(GATHER);
            }
        };
        thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn(work)
            .map(drop)
    }

    /// Asks for a report by `at`.
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

    /// Writes what there is. `lines` is empty before and after: its memory takes the
    /// next lines.
    fn write_next(&self, lines: &mut Vec<u8>, output: &mut impl io::Write, report: &impl Fn()) {
        let mut state = self.wait();
        if state.wake_at.is_some_and(|at| at <= Instant::now()) {
            state.wake_at = None;
            drop(state);
            report();
            state = self.lock();
        }
        mem::swap(lines, &mut state.bytes);
        let lost = mem::take(&mut state.lost);
        state.writing = true;
        drop(state);

        // There is no other place where an error could be reported.
        let _ = output.write_all(lines).and_then(|()| output.flush());
        lines.clear();
        if lost > 0 {
            tracing::warn!(lost, "log lines were lost: the output was stuck");
        }
        self.lock().writing = false;
        self.changed.notify_all();
    }

    /// Waits until there is something to write or to report.
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

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a line.
impl io::Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.lock();
        // What the thread itself logs, how many lines were dropped, must not be dropped.
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
