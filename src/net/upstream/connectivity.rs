//! Whether a service can be reached, and finding that out without a call.

use std::sync::Arc;

use tokio::{runtime::Handle, sync::futures::Notified};

use super::{
    State, Upstream,
    pick::{Pick, Waiting},
};
use crate::{core::worker, net::address_pool::AddressPool};

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
    /// Connects the worker that runs this as a call of its would, unless it is connected.
    /// Ends when it is, or every address has been tried. Failures are logged where they
    /// happen.
    pub(crate) async fn connect(self: &Arc<Self>) {
        let worker = worker::index();
        let mut came = None;
        while !self.state().is_connected(worker) {
            match self.pick(None, &mut came) {
                Pick::Wait(_waiting, changed) => changed.await,
                // What another worker has does for calls.
                Pick::Take(..) => match self.wait_for_own(worker) {
                    Some((_waiting, changed)) => changed.await,
                    None => return,
                },
                Pick::Full(..) | Pick::Nowhere(_) => return,
            }
        }
    }

    fn wait_for_own(&self, worker: usize) -> Option<(Waiting<'_>, Notified<'_>)> {
        let mut state = self.state();
        let coming = state.is_something_coming(worker);
        coming.then(|| self.waiting(&mut state, worker))
    }

    /// Whether it can be reached.
    pub(crate) fn connectivity(&self) -> Connectivity {
        self.state().connectivity()
    }

    /// Connects again if the last attempt failed. A worker does it, since it is to drive
    /// the connection; not always the same one, which may be stuck.
    pub(super) fn retry(self: &Arc<Self>) {
        let mut state = self.state();
        if state.connectivity() != Connectivity::TransientFailure {
            return;
        }
        if let Some(runtime) = state.next_worker() {
            let this = Arc::clone(self);
            runtime.spawn(async move { this.connect().await });
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
        } else if self.names.is_awaited() || self.is_being_dialed() {
            Connectivity::Connecting
        } else {
            Connectivity::Idle
        }
    }

    /// Each of the workers in turn.
    fn next_worker(&mut self) -> Option<Handle> {
        let turn = self.retries % self.workers.len().max(1);
        self.retries += 1;
        let worker = self.workers.values().nth(turn)?;
        Some(worker.runtime.clone())
    }
}
