//! Lines on their way to an output that may be stuck: a pipe that nobody reads, a
//! terminal that was stopped. Those who log never wait; beyond a bound lines are
//! lost, and how many is logged once the output takes them again.

use std::{
    io, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Some thousand lines: more than any burst but that of an output that is stuck.
const MAX_BYTES: usize = 1 << 20;
const THREAD: &str = "log";
/// After a write the next lines are gathered for so long: to wake the thread and
/// write for each would cost a busy service more than its calls do.
const GATHER: Duration = Duration::from_millis(5);

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
}

/// Starts the thread that writes to `output`.
pub(super) fn start(mut output: impl io::Write + Send + 'static) -> io::Result<Arc<Queue>> {
    let queue = Arc::new(Queue::default());
    let waiting = Arc::clone(&queue);
    thread::Builder::new()
        .name(THREAD.to_owned())
        .spawn(move || {
            loop {
                waiting.write_next(&mut output);
                thread::sleep(GATHER);
            }
        })?;
    Ok(queue)
}

impl Queue {
    /// Waits until all lines are written, at most for `timeout`.
    pub(super) fn flush(&self, timeout: Duration) {
        let busy = |state: &mut State| state.writing || !state.bytes.is_empty();
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, busy);
        drop(waited);
    }

    fn write_next(&self, output: &mut impl io::Write) {
        let idle = |state: &mut State| state.bytes.is_empty();
        let waited = self.changed.wait_while(self.lock(), idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
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
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
