//! What is done for an upstream now and then, as long as there is something to look after:
//! idle connections are closed, name servers asked again, and so is a service that could
//! not be reached.

use std::{sync::Weak, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{Upstream, connectivity::RETRY};

enum Due {
    Sweep,
    Refresh,
    Retry,
}

pub(super) async fn keep(this: Weak<Upstream>, sweep: Duration, refresh: Duration) {
    let start = Instant::now();
    let mut sweeps = interval_at(start + sweep, sweep);
    let mut refreshes = interval_at(start + refresh, refresh);
    let mut retries = interval_at(start + RETRY, RETRY);
    retries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    refreshes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = tokio::select! {
            _ = sweeps.tick() => Due::Sweep,
            _ = refreshes.tick() => Due::Refresh,
            _ = retries.tick() => Due::Retry,
        };
        let Some(this) = this.upgrade() else { return };
        match due {
            Due::Sweep if this.sweep() => {}
            Due::Sweep => return,
            Due::Refresh => this.look_up(&mut this.state(), Instant::now(), refresh / 2),
            Due::Retry => this.retry(),
        }
    }
}
