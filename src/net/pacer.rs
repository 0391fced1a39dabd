//! How fast the streams of one connection may be reset. Pure: the time comes from
//! outside.
//!
//! Since CVE-2023-44487 ("rapid reset") servers end a connection on which a client
//! resets too much, with all calls on it. They count different things, and a client
//! can't know which server it speaks to, so it stays below all of them:
//!
//! - h2, and with it hyper and tonic: 20 streams that were reset before the server
//!   accepted them. So few resets are on their way at a time.
//! - Netty: 200 resets within 30 s; Vert.x and Armeria: 400 within a minute.
//! - Envoy: half of the first 500 streams of a connection, or of all, were reset before
//!   they were two seconds old and without a response.
//! - nghttp2, and with it Node: 1,000 resets, and 33 more each second.
//!
//! A connection that soon could not reset all its calls at once is *worn*: new calls go to
//! others. If it has to reset more than the servers with the tightest bounds tolerate, it
//! waits a while and then keeps to the wider bound.

use std::time::Duration;

use tokio::time::Instant;

/// How many resets may be on their way to the peer before it acknowledges them. Together
/// with those that it has read but not processed, fewer than 20.
const UNACKNOWLEDGED: usize = 8;
/// How long the peer has at least to process what it has acknowledged, and as what
/// multiple of the time that it took to acknowledge: h2 acknowledges what it has read before
/// the streams are accepted, and a busy peer is slow at both.
const SPACING: Duration = Duration::from_millis(2);
const TIMES_AS_LONG: u32 = 2;
/// A burst of 180, and 15 more in 30 s: below Netty's 200.
const BURST: f64 = 180.0;
const PER_SECOND: f64 = 0.5;
/// How many calls a connection should be able to reset at any time: as many as it carries
/// by default (`max_streams_per_connection`).
const RESERVE: usize = 100;
/// How long a reset waits for the bounds above before it keeps to the wider one.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// nghttp2's bound, less a tenth.
const WIDE_BURST: f64 = 900.0;
const WIDE_PER_SECOND: f64 = 30.0;
/// Envoy's bound, with some margin: streams younger than this count, once they are half of
/// this many or of all.
const YOUNG: Duration = Duration::from_millis(2500);
const FEW_STREAMS: usize = 480;
/// h2 forgets streams that were reset, and bounds how many frames may arrive for forgotten
/// ones. No connection resets as many.
const MAX_RESETS: usize = 4096;

/// The resets of one connection.
#[derive(Debug)]
pub(super) struct Pacer {
    tight: Bucket,
    wide: Bucket,
    unacknowledged: usize,
    not_before: Instant,
    /// Resets of young streams.
    young: usize,
    total: usize,
}

/// When a stream may be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    At(Instant),
    /// When the peer has acknowledged the resets before it, or at that time at the latest.
    Acknowledged(Instant),
}

impl Pacer {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            tight: Bucket::new(BURST, PER_SECOND, now),
            wide: Bucket::new(WIDE_BURST, WIDE_PER_SECOND, now),
            unacknowledged: 0,
            not_before: now,
            young: 0,
            total: 0,
        }
    }

    /// When to reset a stream that was begun and cancelled at those times, on a connection
    /// on which `ended` streams have ended.
    pub(super) fn turn(
        &self,
        (begun, cancelled): (Instant, Instant),
        ended: usize,
        now: Instant,
    ) -> Turn {
        let overdue = cancelled + PATIENCE;
        let wide = self.wide.next(now);
        if now >= overdue {
            return if wide <= now {
                Turn::Now
            } else {
                Turn::At(wide)
            };
        }
        let mut at = self.tight.next(now).max(wide).max(self.not_before);
        if self.young + 1 >= max_young(ended) {
            at = at.max(begun + YOUNG);
        }
        if at > now {
            Turn::At(at.min(overdue.max(wide)))
        } else if self.unacknowledged >= UNACKNOWLEDGED {
            Turn::Acknowledged(overdue)
        } else {
            Turn::Now
        }
    }

    /// Takes note of the reset of a stream that was begun then.
    pub(super) fn reset(&mut self, begun: Instant, now: Instant) {
        self.tight.take(now);
        self.wide.take(now);
        self.unacknowledged += 1;
        self.young += usize::from(now < begun + YOUNG);
        self.total += 1;
    }

    /// How many resets the peer has not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        self.unacknowledged
    }

    /// Takes note that the peer has acknowledged that many resets, after that time.
    pub(super) fn acknowledged(&mut self, count: usize, took: Duration, now: Instant) {
        self.unacknowledged = self.unacknowledged.saturating_sub(count);
        self.not_before = now + SPACING.max(TIMES_AS_LONG * took);
    }

    /// Whether `waiting` resets, and those of a full connection on top, are more than the
    /// peer may tolerate.
    pub(super) fn is_worn(&self, waiting: usize, ended: usize, now: Instant) -> bool {
        let needed = waiting + RESERVE;
        self.tight.level(now) < needed as f64
            || self.young + needed > max_young(ended)
            || self.total + needed > MAX_RESETS
    }
}

/// How many of that many streams may have been reset while they were young.
fn max_young(ended: usize) -> usize {
    (ended - ended / 10).max(FEW_STREAMS) / 2
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    burst: f64,
    per_second: f64,
    /// Below zero if more was taken than there was.
    tokens: f64,
    since: Instant,
}

impl Bucket {
    fn new(burst: f64, per_second: f64, now: Instant) -> Self {
        Self {
            burst,
            per_second,
            tokens: burst,
            since: now,
        }
    }

    fn level(&self, now: Instant) -> f64 {
        let gained = (now - self.since).as_secs_f64() * self.per_second;
        (self.tokens + gained).min(self.burst)
    }

    /// When the next token is available.
    fn next(&self, now: Instant) -> Instant {
        let missing = 1.0 - self.level(now);
        if missing <= 0.0 {
            return now;
        }
        // Rounded up: never early.
        now + Duration::from_secs_f64(missing / self.per_second) + Duration::from_micros(1)
    }

    fn take(&mut self, now: Instant) {
        self.tokens = self.level(now) - 1.0;
        self.since = now;
    }
}

#[cfg(test)]
mod tests;
