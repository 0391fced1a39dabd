//! What a worker sees of the addresses while all is well: enough to send a call without a
//! lock that other workers take. Whatever changes them takes the views away, and calls
//! make new ones.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::state::State;
use crate::{
    core::worker,
    net::{
        address::Address,
        address_pool::Whose,
        balance,
        connection::{Call, Connection},
        pool,
    },
};

/// The views of all workers.
#[derive(Default)]
pub(super) struct Views(OnceLock<Box<[Slot]>>);

/// Where only its worker looks, unless something changes: in a cache line of its own (two
/// are fetched at a time).
#[derive(Default)]
#[repr(align(128))]
struct Slot(Mutex<Option<View>>);

struct View {
    /// The service has no other address, so that this one is drawn in any case.
    is_only_one: bool,
    seen: Vec<Seen>,
}

/// An address that may be drawn, and the worker's own connections to it.
struct Seen {
    address: Arc<Address>,
    connections: Vec<Connection>,
}

impl Views {
    /// Begins a call of the worker on a connection of its own; `None` if that takes a look
    /// at the state.
    pub(super) fn begin(
        &self,
        worker: usize,
        avoid: Option<SocketAddr>,
        bound: usize,
    ) -> Option<(Connection, Call)> {
        let view = self.0.get()?.get(worker)?.lock();
        let Seen { connections, .. } = view.as_ref()?.draw(avoid)?;
        let loads = connections.iter().map(Connection::load);
        let connection = connections[pool::with_room(loads, bound, false)?].clone();
        let call = connection.begin();
        Some((connection, call))
    }

    /// Makes the view of the worker, if there is none and all is well.
    pub(super) fn make(&self, worker: usize, state: &State) {
        if state.cautious {
            return;
        }
        let slots = || (0..worker::count()).map(|_| Slot::default()).collect();
        if let Some(slot) = self.0.get_or_init(slots).get(worker) {
            slot.lock().get_or_insert_with(|| View::new(worker, state));
        }
    }

    /// Takes all of them away. To be called, before the lock on the state is given back,
    /// when anything changes that they show: they keep connections open.
    pub(super) fn clear(&self) {
        let slots = self.0.get().into_iter().flatten();
        slots.for_each(|slot| *slot.lock() = None);
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<View>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    fn new(worker: usize, state: &State) -> Self {
        let pools = state.drawable(worker, None);
        let seen = pools.map(|(_, pool)| Seen {
            address: Arc::clone(&pool.address),
            connections: pool.of(worker, Whose::Own).cloned().collect(),
        });
        Self {
            is_only_one: state.pools.len() == 1,
            seen: seen.collect(),
        }
    }

    fn draw(&self, avoid: Option<SocketAddr>) -> Option<&Seen> {
        if self.is_only_one {
            return self.seen.first();
        }
        let all = self.seen.iter().enumerate();
        let members = all.filter(|(_, seen)| avoid != Some(seen.address.socket()));
        let loads = members.map(|(index, seen)| (index, seen.address.calls()));
        let drawn = balance::less_loaded_of_two(loads, fastrand::u64(..))?;
        self.seen.get(drawn)
    }
}
