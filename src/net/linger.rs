//! What a call that has ended still takes while its stream waits to be reset: for its
//! tool it goes on until then.

use std::fmt;

use tokio::time::Instant;

/// What is given back when the stream is gone: by dropping it.
pub(crate) struct Linger {
    _held: Box<dyn Send + Sync>,
}

/// A call that may leave a stream behind.
pub(crate) trait Lingers: Sync {
    /// What its stream takes from `now` on.
    fn linger(&self, now: Instant) -> Linger;
}

impl Linger {
    /// Keeps `what`.
    pub(crate) fn of(what: impl Send + Sync + 'static) -> Self {
        Self {
            _held: Box::new(what),
        }
    }
}

impl fmt::Debug for Linger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Linger").finish_non_exhaustive()
    }
}
