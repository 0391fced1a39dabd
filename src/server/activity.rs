//! Whether a connection is still in use while the process drains.
//!
//! hyper's graceful shutdown waits until the peer has answered a ping and taken all
//! that is sent to it. A peer that is frozen or has vanished does neither.

use std::{
    any::Any,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::response_body::FinishedBacklog;
use crate::transport::frames::PeerFrames;

/// How long a peer may be silent after GOAWAY: longer than any round trip.
const SILENCE: Duration = Duration::from_secs(1);
/// The same while a request or a response is incomplete.
const SILENCE_IN_EXCHANGE: Duration = Duration::from_secs(5);
/// How often activity is checked.
const TICK: Duration = Duration::from_millis(100);

/// What is in progress on a connection. It is told by reference counts, which cost
/// requests next to nothing.
#[derive(Debug)]
pub(super) struct Activity {
    /// Shared by each complete request until its outcome is known.
    pub(super) running: Weak<()>,
    /// Shared by the connection, and by each request until its response begins.
    pub(super) requests: Weak<dyn Any + Send + Sync>,
    /// Shared by the connection, and by each response until it is handed to h2.
    pub(super) responses: FinishedBacklog,
}

#[derive(Clone, Copy, PartialEq)]
struct Snapshot {
    runs: bool,
    in_exchange: bool,
    reads: u32,
}

impl Activity {
    fn snapshot(&self, frames: &PeerFrames) -> Snapshot {
        Snapshot {
            runs: self.running.strong_count() > 1,
            in_exchange: self.requests.strong_count() > 1 || self.responses.is_shared(),
            reads: frames.reads(),
        }
    }

    /// Waits until nothing runs and the peer has been silent for so long that the
    /// connection can be closed.
    pub(super) async fn ceased(&self, frames: &Arc<PeerFrames>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last, mut since) = (self.snapshot(frames), Instant::now());
        loop {
            let now = ticks.tick().await;
            let snapshot = self.snapshot(frames);
            if snapshot != last || snapshot.runs {
                (last, since) = (snapshot, now);
                continue;
            }
            let patience = if snapshot.in_exchange {
                SILENCE_IN_EXCHANGE
            } else {
                SILENCE
            };
            if now >= since + patience {
                return;
            }
        }
    }
}
