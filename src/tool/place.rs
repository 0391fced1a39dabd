//! What an upstream has at one address: the open connections, the dials under way,
//! and what is held against it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    address::Address,
    eject::{Health, Rules},
    link::{Leaving, Link},
    pool::{self, Load},
    redial::Redial,
};

/// How often the connections are looked at in the time after which idle ones are
/// closed.
pub(super) const SWEEPS: u32 = 4;
/// A connection that ends so early without a call is none.
const NEW: Duration = Duration::from_secs(1);

pub(super) struct Place {
    pub(super) address: Arc<Address>,
    links: Vec<Kept>,
    /// Connections that get no more calls, with those that they still have.
    leaving: Vec<Leaving>,
    /// Dials under way, and how many of them have not taken long yet.
    pub(super) dialing: usize,
    pub(super) fresh: usize,
    pub(super) redial: Redial,
    pub(super) health: Health,
    /// Why the last dial failed, until one does not.
    pub(super) trouble: Option<Arc<str>>,
    /// How many streams the last connection allowed.
    limit: usize,
}

/// A link, and for how many sweeps nothing has happened on it.
struct Kept {
    link: Link,
    begun: usize,
    quiet: u32,
    since: Instant,
}

impl Place {
    pub(super) fn new(address: Arc<Address>) -> Self {
        Self {
            address,
            links: Vec::new(),
            leaving: Vec::new(),
            dialing: 0,
            fresh: 0,
            redial: Redial::default(),
            health: Health::default(),
            trouble: None,
            limit: usize::MAX,
        }
    }

    fn loads(&self) -> impl Iterator<Item = Load> {
        self.links.iter().map(|kept| kept.link.load())
    }

    /// Calls in flight.
    pub(super) fn calls(&self) -> usize {
        let leaving = self.leaving.iter().map(Leaving::calls);
        self.loads().map(|load| load.calls).chain(leaving).sum()
    }

    /// Open connections.
    pub(super) fn links(&self) -> usize {
        self.loads().filter(|load| load.is_open).count()
    }

    pub(super) fn has_links(&self) -> bool {
        !self.links.is_empty()
    }

    /// Whether it is worth waiting for a dial: there is one, and none takes long.
    pub(super) fn is_promising(&self) -> bool {
        self.fresh > 0 && self.fresh == self.dialing
    }

    /// Whether a peer was asked whether it is there, and has not answered yet.
    pub(super) fn is_suspect(&self) -> bool {
        self.loads().any(|load| load.is_suspect && load.is_open)
    }

    /// A link with less than `bound` calls, and no `suspects`.
    pub(super) fn with_room(&self, bound: usize, suspects: bool) -> Option<&Link> {
        let index = pool::with_room(self.loads(), bound, suspects)?;
        Some(&self.links[index].link)
    }

    /// A link that takes a call although all have `bound`.
    pub(super) fn beyond_bound(
        &self,
        bound: usize,
        others_coming: bool,
        suspects: bool,
    ) -> Option<&Link> {
        let index = pool::beyond_bound(self.loads(), bound, others_coming, suspects)?;
        Some(&self.links[index].link)
    }

    /// The link where a call waits least.
    pub(super) fn shortest_queue(&self) -> Option<(usize, &Link)> {
        let link = &self.links[pool::shortest_queue(self.loads())?].link;
        Some((link.load().calls, link))
    }

    /// Whether to dial, as one more call comes and `waiting` wait: there is demand
    /// over what `coming` connections will take, or none here at all, room for one,
    /// and no failure just before.
    pub(super) fn wants_link(
        &self,
        (waiting, coming): (usize, usize),
        (bound, max_links): (usize, usize),
        now: Instant,
    ) -> bool {
        let limits = self.loads().filter(|load| load.is_open);
        let limit = limits.map(|load| load.limit).max();
        let per_link = bound.min(limit.unwrap_or(self.limit));
        let excess = waiting + pool::excess(self.loads(), per_link);
        let links = self.links.len() + self.dialing;
        (links == 0 || (links < max_links && pool::needs_another(excess, coming, per_link)))
            && self.redial.allows(now)
    }

    /// Takes in what a dial came to. `was_fresh` if it had not been found slow.
    pub(super) fn dialed(
        &mut self,
        result: Result<Link, Arc<str>>,
        was_fresh: bool,
        now: Instant,
        rules: &Rules,
        may_eject: bool,
    ) {
        self.dialing -= 1;
        self.fresh -= usize::from(was_fresh);
        match result {
            Ok(link) => {
                self.redial.succeeded(now);
                self.limit = link.load().limit;
                if self.limit == 0 {
                    // It takes no calls, and nor would the next one.
                    self.redial.failed(now, fastrand::f64());
                }
                self.links.push(Kept {
                    begun: link.begun(),
                    link,
                    quiet: 0,
                    since: now,
                });
                self.health.connected(now);
                self.trouble = None;
            }
            Err(reason) => {
                self.redial.failed(now, fastrand::f64());
                self.trouble = Some(reason);
                self.failed(now, rules, may_eject);
            }
        }
    }

    /// Notes that a dial or a call failed.
    pub(super) fn failed(&mut self, now: Instant, rules: &Rules, may_eject: bool) {
        if self.health.failed(now, rules, may_eject) {
            tracing::warn!(address = %self.address, "ejected: it keeps failing");
        }
        self.address.suspect(true);
    }

    /// Notes that a call was answered.
    pub(super) fn succeeded(&mut self) {
        if self.health.is_ejected() {
            tracing::info!(address = %self.address, "no longer ejected");
        }
        self.health.succeeded();
        self.address.suspect(false);
    }

    /// Notes that a peer did not answer, and what that is called.
    pub(super) fn fell_silent(
        &mut self,
        reason: Arc<str>,
        now: Instant,
        rules: &Rules,
        may_eject: bool,
    ) {
        if self.health.fell_silent(now, rules, may_eject) {
            tracing::warn!(address = %self.address, %reason, "ejected");
        }
        self.address.suspect(true);
        self.trouble = Some(reason);
        self.redial.failed(now, fastrand::f64());
        // Whoever does not answer on one connection may not on the others.
        for kept in &self.links {
            kept.link.suspect();
        }
    }

    /// Lets go of a link that takes no more calls; those on it go on. A new one that
    /// never took any is as good as a dial that failed: says whether it is one.
    pub(super) fn retire(&mut self, link: &Link, now: Instant) -> bool {
        let is_it = |kept: &Kept| kept.link.is(link);
        let Some(index) = self.links.iter().position(is_it) else {
            return false;
        };
        let kept = self.links.remove(index);
        self.leaving.extend(kept.link.leaving());
        let is_failure = now < kept.since + NEW && link.begun() <= 1;
        if is_failure {
            self.closes_new_ones(now);
        }
        is_failure
    }

    /// Lets go of links that have closed; says whether some of them were as good as
    /// dials that failed.
    pub(super) fn prune(&mut self, now: Instant) -> bool {
        let mut is_failure = false;
        self.leaving.retain(|leaving| leaving.calls() > 0);
        self.links.retain(|kept| {
            let is_open = kept.link.load().is_open;
            if kept.link.is_worn() {
                self.redial.worn(now);
            }
            if !is_open {
                self.leaving.extend(kept.link.leaving());
            }
            is_failure |= !is_open && now < kept.since + NEW && kept.link.begun() == 0;
            is_open
        });
        if is_failure {
            self.closes_new_ones(now);
        }
        is_failure
    }

    fn closes_new_ones(&mut self, now: Instant) {
        self.redial.failed(now, fastrand::f64());
        self.trouble = Some("it closes new connections".into());
    }

    /// Lets go of links that have closed or been idle since [`SWEEPS`] sweeps.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.prune(now);
        for kept in &mut self.links {
            let begun = kept.link.begun();
            let idle = kept.link.load().calls == 0 && kept.begun == begun;
            kept.quiet = if idle { kept.quiet + 1 } else { 0 };
            kept.begun = begun;
        }
        self.links.retain(|kept| kept.quiet < SWEEPS);
    }
}

/// The time between two sweeps if idle connections are closed after `idle`.
pub(super) fn sweep_interval(idle: Duration) -> Duration {
    (idle / SWEEPS).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests;
