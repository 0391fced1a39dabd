//! Looking up the addresses of an upstream, in a task of its own that no call can cancel,
//! and for all workers: it goes on when one of them is stuck.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{Upstream, state::State};
use crate::{core::worker, net::resolve::Answer};

impl Upstream {
    /// Looks up the addresses if they are unknown or too old.
    pub(super) fn look_up_if_stale(self: &Arc<Self>, state: &mut State, now: Instant) {
        if state.names.are_due(now) {
            self.look_up(state, now, Duration::ZERO);
        }
    }

    /// Looks up the addresses, unless the last look-up began less than `pause` ago.
    pub(super) fn look_up(self: &Arc<Self>, state: &mut State, now: Instant, pause: Duration) {
        let Some(answers) = state.names.look_up(&self.network, now, pause) else {
            return;
        };
        let limit = self.settings.connect_timeout;
        let this = Arc::downgrade(self);
        worker::spawn_in_background(async move {
            let mut answers = pin!(answers);
            let answers = match timeout(limit, &mut answers).await {
                Ok(answers) => answers,
                Err(_) => {
                    if let Some(this) = this.upgrade() {
                        this.lookup_is_slow(limit);
                    }
                    // The system's resolver can't be cancelled, and a second look-up
                    // would only queue behind this one.
                    answers.await
                }
            };
            if let Some(this) = this.upgrade() {
                this.looked_up(answers);
            }
        });
        self.keep(state);
    }

    fn lookup_is_slow(&self, limit: Duration) {
        let mut state = self.state();
        state.connect_epoch = state.connect_epoch.wrapping_add(1);
        let reason = format!("no answer from the resolver within {limit:?}");
        if state.names.are_slow(reason.clone()) {
            let service = self.service.as_str();
            tracing::warn!(service, reason, "can't resolve");
        }
        state.use_addresses();
        self.note_change(&mut state);
        self.changed.notify_waiters();
    }

    fn looked_up(&self, answers: Vec<Answer>) {
        let mut state = self.state();
        state.names.answered(&self.service, answers);
        state.use_addresses();
        self.note_change(&mut state);
        if state.names.back_off(Instant::now()) {
            state.connect_epoch = state.connect_epoch.wrapping_add(1);
        }
        self.changed.notify_waiters();
    }
}
