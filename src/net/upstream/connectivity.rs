//! Whether a service can be reached, and finding that out without a call.

use std::sync::Arc;

use super::{Pick, State, Upstream};
use crate::net::address_pool::AddressPool;

/// gRPC's connectivity states, of a whole service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connectivity {
    /// There is no connection, and no reason to expect that the next attempt fails.
    Idle,
    /// One is being made.
    Connecting,
    /// There is one.
    Ready,
    /// There is none, and the last attempt failed.
    TransientFailure,
}

impl Upstream {
    /// Connects as a call would, unless connected. Ends when there is a connection or
    /// every address has been tried. Failures are logged where they happen.
    pub(crate) async fn connect(self: &Arc<Self>) {
        let mut came = None;
        while self.connectivity() != Connectivity::Ready {
            match self.pick(None, &mut came) {
                Pick::Wait(_waiting, changed) => changed.await,
                Pick::Take(..) | Pick::Full(..) | Pick::Nowhere(_) => return,
            }
        }
    }

    /// Whether it can be reached.
    pub(crate) fn connectivity(&self) -> Connectivity {
        self.state().connectivity()
    }

    /// Connects again if the last attempt failed and none is under way.
    pub(super) fn retry(self: &Arc<Self>) {
        let state = self.state();
        let has_failed = state.connectivity() == Connectivity::TransientFailure;
        let is_tried = state.is_something_coming();
        drop(state);
        if has_failed && !is_tried {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.connect().await });
        }
    }
}

impl State {
    pub(super) fn connectivity(&self) -> Connectivity {
        let has_trouble = |pool: &AddressPool| pool.last_error.is_some();
        if self.has_open_connections() {
            Connectivity::Ready
        } else if self.pools.iter().any(has_trouble) || self.names.have_failed() {
            Connectivity::TransientFailure
        } else if self.is_something_coming() {
            Connectivity::Connecting
        } else {
            Connectivity::Idle
        }
    }
}
