//! What an upstream knows of its addresses, behind its lock: which of them the next
//! call goes to, and why there is none.

use std::{net::SocketAddr, sync::Arc};

use tokio::time::Instant;

use super::{Pick, upkeep::Names};
use crate::tool::{address::Address, balance, eject::Rules, link::Link, place::Place};

pub(super) struct State {
    pub(super) places: Vec<Place>,
    /// Something is held against one of the places.
    pub(super) cautious: bool,
    /// How many dials and look-ups have come to nothing, modulo 2^32.
    pub(super) setbacks: u32,
    pub(super) names: Names,
    /// The task that closes what is idle is running.
    pub(super) kept: bool,
}

impl State {
    /// An address for the next call, which may have no connection yet.
    pub(super) fn draw(&self, avoid: Option<SocketAddr>) -> Option<usize> {
        if self.places.len() == 1 {
            return Some(0);
        }
        let now = self.cautious.then(Instant::now);
        let worth_it = |place: &Place| {
            let well = now.is_none_or(|now| {
                place.health.admits(now)
                    && (place.has_links() || place.redial.allows(now))
                    && !place.is_suspect()
            });
            // What is being dialed has no load, and would be drawn again and again.
            let ready = place.has_links() || place.dialing == 0;
            well && ready && avoid != Some(place.address.socket())
        };
        let places = self.places.iter().enumerate();
        let members = places.filter(|(_, place)| worth_it(place));
        let loads = members.map(|(index, place)| (index, place.calls()));
        balance::less_loaded_of_two(loads, fastrand::u64(..))
    }

    /// A connection with room, or else one that takes a call all the same.
    pub(super) fn find(
        &self,
        admitted: impl Fn(&Place) -> bool,
        bound: usize,
        others_coming: bool,
        suspects: bool,
    ) -> Option<(usize, Link)> {
        let places = || self.places.iter().enumerate().filter(|(_, p)| admitted(p));
        let with_room =
            places().find_map(|(i, place)| Some((i, place.with_room(bound, suspects)?)));
        let found = with_room.or_else(|| {
            places()
                .filter_map(|(i, place)| {
                    Some((i, place.beyond_bound(bound, others_coming, suspects)?))
                })
                .min_by_key(|(_, link)| link.load().calls)
        });
        found.map(|(index, link)| (index, link.clone()))
    }

    pub(super) fn take(&mut self, index: usize, link: Link) -> Pick<'static> {
        if self.cautious {
            let health = &mut self.places[index].health;
            if health.is_ejected() {
                health.called(Instant::now());
            }
            // The suspect may have answered.
            self.look_again();
        }
        let call = link.begin();
        Pick::Take(link, call)
    }

    pub(super) fn place(&mut self, address: &Arc<Address>) -> Option<&mut Place> {
        let mut places = self.places.iter_mut();
        places.find(|place| Arc::ptr_eq(&place.address, address))
    }

    /// Lets go of connections that have closed.
    pub(super) fn prune(&mut self, now: Instant) {
        for place in &mut self.places {
            let is_setback = place.prune(now);
            self.setbacks = self.setbacks.wrapping_add(is_setback.into());
        }
    }

    pub(super) fn may_eject(&self, rules: &Rules) -> bool {
        let ejected = self.places.iter().filter(|place| place.health.is_ejected());
        rules.allow_one_more(ejected.count(), self.places.len())
    }

    /// Notes whether there is something to be cautious about.
    pub(super) fn look_again(&mut self) {
        let suspect = |place: &Place| {
            place.health.is_ejected() || place.trouble.is_some() || place.is_suspect()
        };
        self.cautious = self.places.iter().any(suspect);
    }

    pub(super) fn is_something_worth_waiting_for(&self) -> bool {
        self.names.is_awaited() || self.places.iter().any(Place::is_promising)
    }

    /// Whether some peer is there, though it allows no calls.
    pub(super) fn has_open_links(&self) -> bool {
        self.places.iter().any(|place| place.links() > 0)
    }

    pub(super) fn is_something_coming(&self) -> bool {
        self.names.is_awaited() || self.places.iter().any(|place| place.dialing > 0)
    }

    /// Why there is no connection.
    pub(super) fn trouble(&self) -> String {
        let troubles = self.places.iter().filter_map(|place| {
            let trouble = place.trouble.as_ref()?;
            Some(format!("{}: {trouble}", place.address))
        });
        let mut troubles = troubles.peekable();
        match troubles.next() {
            None => self.names.trouble(),
            Some(first) if troubles.peek().is_none() => first,
            Some(first) => format!("{first} (and {} more addresses)", troubles.count()),
        }
    }
}
