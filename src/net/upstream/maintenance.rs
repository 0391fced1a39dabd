//! What is done for an upstream from time to time while it is in use: idle connections
//! are closed, names are looked up again, and a service that could not be reached is
//! dialed again.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{Upstream, connectivity::Connectivity, state::State};
use crate::{
    core::worker,
    net::address_pool::{AddressPool, sweep_interval},
};

/// How often a service that could not be reached is dialed while no call needs it: soon
/// enough for whoever looks at the list of tools, and rarely enough to be no burden.
const RETRY: Duration = Duration::from_secs(30);

enum Due {
    Sweep,
    Refresh,
    Retry,
}

async fn keep(this: Weak<Upstream>, sweep: Duration, refresh: Duration) {
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

impl Upstream {
    /// Starts the maintenance task, unless it is running.
    pub(super) fn keep(self: &Arc<Self>, state: &mut State) {
        if std::mem::replace(&mut state.kept, true) {
            return;
        }
        let sweep = sweep_interval(self.settings.idle);
        let refresh = self.settings.refresh;
        worker::spawn_in_background(keep(Arc::downgrade(self), sweep, refresh));
    }

    /// Closes idle connections. Returns whether there is anything left to maintain.
    pub(super) fn sweep(&self) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        state.pools.iter_mut().for_each(|pool| pool.sweep(now));
        let in_use = |pool: &AddressPool| pool.has_connections() || pool.all_dials() > 0;
        let kept = state.pools.iter().any(in_use)
            || state.names.is_looking_up()
            || state.connectivity() == Connectivity::TransientFailure;
        state.kept = kept;
        self.views.clear();
        if !kept && state.names.forget() {
            // Somebody else may have these addresses when the service is next called.
            let is_literal = |pool: &AddressPool| pool.address.endpoint().literal().is_some();
            state.pools.retain(is_literal);
        }
        kept
    }
}
