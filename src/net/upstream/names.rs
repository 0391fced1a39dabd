//! The host names of a service, and how looking up their addresses goes.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::net::{
    address::Address,
    connect_backoff::ConnectBackoff,
    network::Network,
    resolve::{Answer, Endpoints},
};

pub(super) struct Names {
    endpoints: Endpoints,
    /// The addresses are unknown: nobody has asked yet, or the answer is too old.
    stale: bool,
    lookup: Lookup,
    asked: Option<Instant>,
    backoff: ConnectBackoff,
    last_error: Option<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Lookup {
    None,
    Running,
    /// Running for so long that calls no longer wait for it.
    Slow,
}

impl Names {
    pub(super) fn new(endpoints: Endpoints) -> Self {
        Self {
            stale: endpoints.have_names(),
            endpoints,
            lookup: Lookup::None,
            asked: None,
            backoff: ConnectBackoff::default(),
            last_error: None,
        }
    }

    /// How many connections have been replaced because of cancelled calls.
    pub(super) fn worn(&self) -> u64 {
        self.endpoints.worn()
    }

    /// The last addresses that are known.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &Arc<Address>> {
        self.endpoints.addresses()
    }

    /// Whether calls should wait for the addresses.
    pub(super) fn is_awaited(&self) -> bool {
        self.stale && self.lookup == Lookup::Running
    }

    /// Whether a look-up is running, slow or not.
    pub(super) fn is_looking_up(&self) -> bool {
        self.lookup != Lookup::None
    }

    /// Whether there are no addresses because looking them up failed.
    pub(super) fn have_failed(&self) -> bool {
        self.stale && self.last_error.is_some()
    }

    /// Why there are no addresses.
    pub(super) fn last_error(&self) -> String {
        let last_error = self.last_error.as_deref();
        last_error.unwrap_or("it can't be dialed now").to_owned()
    }

    /// Whether the addresses are unknown and may be looked up now.
    pub(super) fn are_due(&self, now: Instant) -> bool {
        self.stale && self.backoff.allows(now)
    }

    /// Starts a look-up in `network`; `None` if there are no names, one is running, or
    /// the last one was started less than `pause` ago.
    pub(super) fn look_up(
        &mut self,
        network: &Arc<dyn Network>,
        now: Instant,
        pause: Duration,
    ) -> Option<impl Future<Output = Vec<Answer>> + Send + use<>> {
        let just_asked = self.asked.is_some_and(|asked| now < asked + pause);
        if !self.endpoints.have_names() || self.is_looking_up() || just_asked {
            return None;
        }
        self.lookup = Lookup::Running;
        self.asked = Some(now);
        Some(self.endpoints.look_up(network))
    }

    /// Takes note that the look-up is slow, for that reason; says whether that is the
    /// first failure since all was well.
    pub(super) fn are_slow(&mut self, reason: String) -> bool {
        self.lookup = Lookup::Slow;
        self.last_error.replace(reason).is_none()
    }

    /// Takes in what a look-up of the names of `service` came to.
    pub(super) fn answered(&mut self, service: &str, answers: Vec<Answer>) {
        self.lookup = Lookup::None;
        self.last_error = self.endpoints.update(service, answers);
    }

    /// Takes note of whether there are addresses to use.
    pub(super) fn set_stale(&mut self, stale: bool) {
        self.stale = stale;
    }

    /// Says when the next look-up may be, after one that has ended; whether it failed.
    pub(super) fn back_off(&mut self, now: Instant) -> bool {
        if self.stale {
            self.backoff.failed(now, fastrand::f64());
        } else {
            self.backoff.succeeded(now);
        }
        self.stale
    }

    /// Forgets the addresses of names; whether there are any names.
    pub(super) fn forget(&mut self) -> bool {
        let have_names = self.endpoints.have_names();
        self.stale |= have_names;
        have_names
    }
}
