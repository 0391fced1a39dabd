//! Which connection a call takes, or what it waits for.

use std::{net::SocketAddr, sync::Arc};

use tokio::{sync::futures::Notified, time::Instant};

use super::{NoConnection, State, Upstream, dialing::Resort};
use crate::{
    core::worker,
    net::{
        address_pool::{AddressPool, Whose},
        connection::{Call, Connection},
    },
};

pub(super) enum Pick<'a> {
    Take(Connection, Call),
    Wait(Waiting<'a>, Notified<'a>),
    /// All connections are full, or being made for other workers.
    Full(Waiting<'a>, Notified<'a>),
    Nowhere(NoConnection),
}

/// A call of a worker that waits is counted.
pub(super) struct Waiting<'a> {
    upstream: &'a Upstream,
    worker: usize,
}

impl Pick<'_> {
    fn take(state: &mut State, index: usize, connection: Connection) -> Self {
        let call = state.begin(index, &connection);
        Self::Take(connection, call)
    }
}

impl Upstream {
    pub(super) fn pick(
        self: &Arc<Self>,
        avoid: Option<SocketAddr>,
        came: &mut Option<Instant>,
    ) -> Pick<'_> {
        let worker = worker::index();
        let bound = self.settings.bound;
        if let Some((connection, call)) = self.views.begin(worker, avoid, bound) {
            return Pick::Take(connection, call);
        }
        let mut state = self.state();
        if state.cautious {
            self.dial_the_lost(&mut state, worker);
        }
        let drawn = state.draw(worker, avoid);
        let own = (worker, Whose::Own);
        if let Some(drawn) = drawn
            && let Some(connection) = state.pools[drawn].with_room(own, bound, false)
        {
            self.views.make(worker, &state);
            let connection = connection.clone();
            return Pick::take(&mut state, drawn, connection);
        }
        let now = Instant::now();
        let came = *came.get_or_insert(now);
        self.pick_without_room(&mut state, (worker, drawn), avoid, (came, now))
    }

    /// The slow path: at the address that was drawn, the worker has no connection with room.
    fn pick_without_room<'a>(
        self: &'a Arc<Self>,
        state: &mut State,
        (worker, drawn): (usize, Option<usize>),
        avoid: Option<SocketAddr>,
        (came, now): (Instant, Instant),
    ) -> Pick<'a> {
        let bound = self.settings.bound;
        state.called_by(worker);
        if state.prune(now) {
            self.note_change(state);
        }
        self.look_up_if_stale(state, now);
        if let Some(drawn) = drawn {
            self.dial_if_wanted(state, worker, drawn, now);
            if let Some(connection) = state.lent(worker, drawn, bound) {
                return Pick::take(state, drawn, connection);
            }
        }
        // First the healthy addresses, then all of them, and at last connections whose
        // peer may be gone.
        for (wary, suspects) in [(true, false), (false, false), (false, true)] {
            let is_well = |pool: &AddressPool| {
                let avoided = avoid == Some(pool.address.socket());
                pool.health.admits(now) && !pool.is_suspect(worker) && !avoided
            };
            let admitted = |pool: &AddressPool| !wary || is_well(pool);
            if let Some((index, connection)) = state.find(worker, admitted, bound, suspects) {
                return Pick::take(state, index, connection);
            }
            self.dial_some(state, worker, admitted, now);
            if wary && state.is_something_worth_waiting_for(worker) {
                return self.wait(state, worker);
            }
        }
        let queues = state.pools.iter().enumerate();
        let queues = queues.filter_map(|(i, pool)| Some((pool.shortest_queue()?, i)));
        if let Some(((_, connection), index)) = queues.min_by_key(|((calls, _), _)| *calls) {
            let connection = connection.clone();
            return Pick::take(state, index, connection);
        }
        if state.is_something_coming(worker) {
            return self.wait(state, worker);
        }
        if state.has_open_connections() {
            return self.wait_a_while(state, worker);
        }
        match self.dial_as_last_resort(state, worker, (came, now)) {
            Some(Resort::Own) => self.wait(state, worker),
            Some(Resort::OfOthers) => self.wait_a_while(state, worker),
            None => Pick::Nowhere(NoConnection {
                service: self.service.clone(),
                reason: state.last_error(),
                connect_epoch: state.connect_epoch,
            }),
        }
    }

    fn wait(&self, state: &mut State, worker: usize) -> Pick<'_> {
        let (waiting, changed) = self.waiting(state, worker);
        Pick::Wait(waiting, changed)
    }

    fn wait_a_while(&self, state: &mut State, worker: usize) -> Pick<'_> {
        let (waiting, changed) = self.waiting(state, worker);
        Pick::Full(waiting, changed)
    }

    pub(super) fn waiting(&self, state: &mut State, worker: usize) -> (Waiting<'_>, Notified<'_>) {
        // Made under the lock, so that no later change is missed.
        let changed = self.changed.notified();
        state.called_by(worker).waiting += 1;
        let upstream = self;
        (Waiting { upstream, worker }, changed)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(worker) = self.upstream.state().workers.get_mut(&self.worker) {
            worker.waiting -= 1;
        }
    }
}
