//! Time limits. A request has one absolute [`Deadline`]; each of its calls gets
//! one that is no later. No other file computes when something must end.
//!
//! tonic's own timeouts are not used: they end in CANCELLED instead of
//! DEADLINE_EXCEEDED, ignore a malformed `grpc-timeout`, do not bound the body of
//! a stream and do not run while a connection is made.

use std::time::Duration;

use tokio::time::Instant;

use super::error::Limit;

/// An instant by which something must end, and which limit set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// When the request arrived: the start of every timeout.
    pub arrival: Instant,
    /// The instant.
    pub at: Instant,
    /// What set it.
    pub limit: Limit,
}

impl Deadline {
    /// The deadline of a request that arrived at `arrival`: the caller's
    /// `timeout`, if any, but no more than the server's `cap`.
    pub fn of_request(arrival: Instant, timeout: Option<Duration>, cap: Duration) -> Self {
        let (length, limit) = match timeout {
            Some(timeout) if timeout <= cap => (timeout, Limit::Request),
            _ => (cap, Limit::Server),
        };
        Self {
            arrival,
            at: arrival + length,
            limit,
        }
    }

    /// The deadline less a margin that leaves time to answer: `margin`, but at
    /// most a tenth of what remains at `now`.
    pub fn less_reply_margin(self, now: Instant, margin: Duration) -> Self {
        let margin = margin.min(self.remaining(now) / 10);
        Self {
            at: self.at - margin,
            ..self
        }
    }

    /// The deadline of one call under this one: the earliest of this, the
    /// call's own timeout and the tool's, the last two counted from arrival.
    pub fn of_call(self, call_timeout: Option<Duration>, tool_timeout: Duration) -> Self {
        let mut deadline = self;
        for (timeout, limit) in [
            (Some(tool_timeout), Limit::Tool),
            (call_timeout, Limit::Call),
        ] {
            // A timeout too long for the clock is no limit.
            let at = timeout.and_then(|timeout| self.arrival.checked_add(timeout));
            if let Some(at) = at.filter(|&at| at < deadline.at) {
                deadline = Self {
                    at,
                    limit,
                    ..deadline
                };
            }
        }
        deadline
    }

    /// Whether it is so near at `now` that what ends just then ends because of it,
    /// in a call that was made at `start`.
    ///
    /// The other side's timer begins later than ours and is as long, to the unit of
    /// time that it counts in, which is a millisecond in the coarsest of libraries.
    /// So it never fires much before ours, however busy we or it are: what makes its
    /// answer overtake is that ours fires late.
    pub fn is_near(self, start: Instant, now: Instant) -> bool {
        const TOLERANCE: Duration = Duration::from_millis(25);
        // Little time is not all tolerance.
        self.remaining(now) <= TOLERANCE.min(self.remaining(start) / 4)
    }

    /// What remains at `now`; zero if it is over.
    pub fn remaining(self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_shortest_limit_wins_and_is_named() {
        let now = Instant::now();
        let request = Deadline::of_request(now, Some(10 * SECOND), 60 * SECOND);
        assert_eq!(request.limit, Limit::Request);
        let server = Deadline::of_request(now, Some(100 * SECOND), 60 * SECOND);
        assert_eq!(
            (server.limit, server.at),
            (Limit::Server, now + 60 * SECOND)
        );

        let by = |call, tool| {
            let deadline = request.of_call(call, tool);
            (deadline.limit, deadline.at - now)
        };
        assert_eq!(by(None, 30 * SECOND), (Limit::Request, 10 * SECOND));
        assert_eq!(by(None, 5 * SECOND), (Limit::Tool, 5 * SECOND));
        assert_eq!(by(Some(SECOND), 5 * SECOND), (Limit::Call, SECOND));
        assert_eq!(
            by(Some(Duration::MAX), 5 * SECOND),
            (Limit::Tool, 5 * SECOND)
        );
    }

    #[test]
    fn near_is_25_ms_and_no_more_than_a_quarter() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let near = |timeout| {
            let deadline = Deadline::of_request(start, Some(timeout), 60 * SECOND);
            let left = (0..=1000).take_while(|&left| {
                let now = deadline.at - ms(left).min(timeout);
                deadline.is_near(start, now)
            });
            left.last().expect("the deadline itself")
        };
        assert_eq!(near(10 * SECOND), 25);
        assert_eq!(near(ms(100)), 25);
        assert_eq!(near(ms(20)), 5);
        let deadline = Deadline::of_request(start, Some(SECOND), 60 * SECOND);
        assert!(deadline.is_near(start, start + 2 * SECOND));
    }

    #[test]
    fn the_reply_margin_is_at_most_a_tenth() {
        let now = Instant::now();
        let margin = |timeout| {
            let deadline = Deadline::of_request(now, Some(timeout), 60 * SECOND);
            deadline.at - deadline.less_reply_margin(now, SECOND / 20).at
        };
        assert_eq!(margin(10 * SECOND), SECOND / 20);
        assert_eq!(margin(SECOND / 10), SECOND / 100);
    }
}
