//! The end of a connection while the process drains: it waits for work, not for its peer.
//!
//! hyper's graceful end waits for the peer to answer a ping and to take all that it is
//! sent. A peer that is frozen, or has gone without a word, does neither.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{answer::Lingering, edge::Connection};
use crate::transport::frames::Heard;

/// How long a peer may say nothing after it was told that the connection ends: longer
/// than a round trip takes anywhere.
const SILENCE: Duration = Duration::from_secs(1);
/// The same while there is something for it to read, or of it to come.
const UNREAD: Duration = Duration::from_secs(5);
/// How often that is looked at.
const TICK: Duration = Duration::from_millis(100);

/// What is under way on a connection, as told by who holds a share of it: that costs
/// requests next to nothing.
#[derive(Debug)]
pub(super) struct Work {
    /// By each request that is complete until its outcome is known.
    pub(super) running: Weak<()>,
    /// By the connection, and each request until its answer begins.
    pub(super) requests: Weak<Connection>,
    /// By the connection, and each answer until it was handed on.
    pub(super) answers: Lingering,
}

#[derive(Clone, Copy, PartialEq)]
struct Seen {
    runs: bool,
    is_unread: bool,
    reads: u32,
}

impl Work {
    fn look(&self, heard: &Heard) -> Seen {
        Seen {
            runs: self.running.strong_count() > 1,
            is_unread: self.requests.strong_count() > 1 || self.answers.are_some(),
            reads: heard.reads(),
        }
    }

    /// Comes true when the connection is to be closed whatever its peer does: nothing
    /// runs, and the peer says nothing.
    pub(super) async fn is_over(&self, heard: &Arc<Heard>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last, mut since) = (self.look(heard), Instant::now());
        loop {
            let now = ticks.tick().await;
            let seen = self.look(heard);
            if seen != last || seen.runs {
                (last, since) = (seen, now);
                continue;
            }
            let patience = if seen.is_unread { UNREAD } else { SILENCE };
            if now >= since + patience {
                return;
            }
        }
    }
}
