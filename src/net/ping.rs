//! How often a peer may be pinged.
//!
//! gRPC servers count pings that come too often, and close the connection, with all calls
//! on it, at the third (gRFC A8, "Server-side Keepalive"): `PERMIT_KEEPALIVE_TIME` is 5
//! minutes, or two hours without calls, `MAX_PING_STRIKES` is 2, and only a HEADERS or
//! DATA frame of their own resets the count. So at most two pings are sent since the last
//! such frame, unless they are 5 minutes apart; the ping that opens a connection is one of
//! them.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// `MAX_PING_STRIKES`.
const FREE: u32 = 2;
/// `PERMIT_KEEPALIVE_TIME`.
const APART: Duration = Duration::from_secs(5 * 60);
/// How many times the pace may be halved.
const MAX_HALVINGS: u32 = 8;

/// How fast the connections to one tool service may ping: half as fast after each
/// `too_many_pings` (gRFC A8, "Client-side Keepalive").
#[derive(Debug, Default)]
pub(super) struct Pace {
    halvings: AtomicU32,
}

/// The pings of one connection.
#[derive(Debug)]
pub(super) struct Allowance {
    /// Pings since the peer's last HEADERS or DATA, as the peer counts them at worst.
    pings: u32,
    last: Instant,
    /// How many HEADERS and DATA had arrived by then.
    answers: u32,
}

impl Pace {
    /// Slows down after too_many_pings. Returns the factor from now on.
    pub(super) fn halve(&self) -> u32 {
        let halvings = self.halvings.load(Ordering::Relaxed) + 1;
        self.halvings
            .store(halvings.min(MAX_HALVINGS), Ordering::Relaxed);
        self.slowdown()
    }

    /// By how much intervals are stretched.
    pub(super) fn slowdown(&self) -> u32 {
        1 << self.halvings.load(Ordering::Relaxed)
    }

    /// A peer that complains of this few counts more strictly than gRPC does.
    fn free(&self) -> u32 {
        if self.slowdown() == 1 { FREE } else { 1 }
    }
}

impl Allowance {
    /// For a connection that was opened with a ping at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            pings: 1,
            last: now,
            answers: 0,
        }
    }

    /// Whether to ping at `now`, when `answers` HEADERS and DATA frames have arrived and no
    /// ping is open.
    pub(super) fn allows(
        &mut self,
        answers: u32,
        has_calls: bool,
        pace: &Pace,
        now: Instant,
    ) -> bool {
        if self.answers != answers {
            self.answers = answers;
            self.pings = 0;
        }
        let is_apart = || now >= self.last + APART * pace.slowdown();
        self.pings < pace.free() || (has_calls && is_apart())
    }

    /// Takes note of a ping that was sent.
    pub(super) fn pinged(&mut self, now: Instant) {
        self.pings = self.pings.saturating_add(1);
        self.last = now;
    }

    /// Takes note of its answer, when `answers` frames had arrived. Those that arrived since
    /// the ping may have been sent before the peer received it.
    pub(super) fn answered(&mut self, answers: u32, now: Instant) {
        // The ping may have been slow to arrive.
        self.last = now;
        if self.answers != answers {
            self.answers = answers;
            self.pings = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn two_pings_are_free_and_further_ones_five_minutes_apart() {
        let (pace, start) = (Pace::default(), Instant::now());
        let mut allowance = Allowance::new(start);
        assert!(allowance.allows(0, true, &pace, start));
        allowance.pinged(start + MINUTE);
        for now in [start + MINUTE, start + 6 * MINUTE - Duration::from_nanos(1)] {
            assert!(!allowance.allows(0, true, &pace, now));
        }
        assert!(!allowance.allows(0, false, &pace, start + 60 * MINUTE));
        assert!(allowance.allows(0, true, &pace, start + 6 * MINUTE));
        allowance.pinged(start + 6 * MINUTE);
        assert!(!allowance.allows(0, true, &pace, start + 10 * MINUTE));
        // Something came.
        assert!(allowance.allows(1, false, &pace, start + 10 * MINUTE));
    }

    #[test]
    fn after_a_complaint_no_ping_is_free_and_they_are_twice_as_far_apart() {
        let (pace, start) = (Pace::default(), Instant::now());
        let mut allowance = Allowance::new(start);
        for slowdown in [2, 4, 8] {
            assert_eq!(pace.halve(), slowdown);
            assert!(!allowance.allows(0, true, &pace, start + (5 * slowdown - 1) * MINUTE));
            assert!(allowance.allows(0, true, &pace, start + 5 * slowdown * MINUTE));
        }
        for _ in 0..40 {
            pace.halve();
        }
        assert_eq!(pace.slowdown(), 1 << MAX_HALVINGS);
    }

    /// What grpc-java does with defaults (`KeepAliveEnforcer`), the strictest of
    /// those that are known.
    struct Enforcer {
        epoch: Instant,
        last_valid: Instant,
        strikes: u32,
    }

    impl Enforcer {
        fn takes(&mut self, has_calls: bool, now: Instant) -> bool {
            let permitted = if has_calls { APART } else { 24 * APART };
            if now >= self.last_valid + permitted {
                self.last_valid = now;
                return true;
            }
            self.strikes += 1;
            self.strikes <= 2
        }

        fn sends(&mut self) {
            (self.last_valid, self.strikes) = (self.epoch, 0);
        }
    }

    /// What happens to a connection.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Time(u64),
        /// The peer sends HEADERS, which are then on their way.
        Answer,
        /// What is on its way arrives: at the peer, here.
        Arrives,
        /// We would like to ping.
        Ping,
        Calls(bool),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0..400_u64).prop_map(Event::Time),
            Just(Event::Answer),
            Just(Event::Arrives),
            Just(Event::Ping),
            any::<bool>().prop_map(Event::Calls),
        ]
    }

    proptest! {
        #[test]
        fn no_server_of_grpc_finds_it_too_much(events in vec(event(), 0..80)) {
            let (pace, start) = (Pace::default(), Instant::now());
            let mut enforcer = Enforcer { epoch: start, last_valid: start, strikes: 0 };
            prop_assert!(enforcer.takes(false, start));
            let mut allowance = Allowance::new(start);
            let (mut now, mut has_calls) = (start, true);
            // Sent, and arrived here; whether a ping is on its way, or its answer, behind
            // so many HEADERS.
            let (mut sent, mut arrived, mut ping, mut answer) = (0, 0, false, None);
            for event in events {
                match event {
                    Event::Time(seconds) => now += Duration::from_secs(seconds),
                    Event::Answer => {
                        enforcer.sends();
                        sent += 1;
                    }
                    Event::Arrives => {
                        if std::mem::take(&mut ping) {
                            prop_assert!(enforcer.takes(has_calls, now));
                            answer = Some(sent);
                        } else if let Some(answers) = answer.take() {
                            arrived = answers;
                            allowance.answered(answers, now);
                        } else {
                            arrived = sent;
                        }
                    }
                    Event::Ping => {
                        let open = ping || answer.is_some();
                        if !open && allowance.allows(arrived, has_calls, &pace, now) {
                            allowance.pinged(now);
                            ping = true;
                        }
                    }
                    // The peer learns of the end of a call after the ping.
                    Event::Calls(are) if !ping => has_calls = are,
                    Event::Calls(_) => {}
                }
            }
        }
    }
}
