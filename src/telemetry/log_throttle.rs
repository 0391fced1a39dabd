//! A collector may be unreachable for hours: the log says so only now and then.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The least time between two lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// Limits how often a line of one kind is logged.
// std's Mutex: held for a few instructions, never across an await.
#[derive(Debug, Default)]
pub(super) struct LogThrottle(Mutex<Option<Instant>>);

impl LogThrottle {
    /// Whether the line is due. If so, the caller logs it.
    pub(super) fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= INTERVAL);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_due_once_in_ten_seconds() {
        let log_throttle = LogThrottle::default();
        let mut lines = 0;
        for _ in 0..35 {
            lines += usize::from(log_throttle.is_due());
            assert!(!log_throttle.is_due());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(lines, 4);
    }
}
