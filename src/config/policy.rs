//! How calls survive tools that fail: the settings of retries, hedging, bulkheads
//! and circuit breakers, with their defaults and the reasons for them.

use std::time::Duration;

use tonic::Code;

/// `[tools.NAME.retry]`: when a call is sent again.
///
/// What certainly did not run (no connection, or refused unseen) is sent again for
/// any tool; what may have run only for one that is `idempotent`.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// How often a call may be with the tool, the first time included; 1 to 5.
    /// Only for an idempotent tool.
    ///
    /// Default 3: two failures in a row are bad luck, three are a pattern; gRPC
    /// allows 5 (gRFC A6).
    pub max_attempts: u32,
    /// The tool's own statuses after which to send a call again. Only for an
    /// idempotent tool; a connection that breaks needs no code.
    ///
    /// Default `["UNAVAILABLE"]`: the one that means nothing else.
    pub codes: Vec<Code>,
    /// How long to wait before the first retry, give or take a fifth; each later
    /// wait is twice as long as the one before. 1 ms to 24 hours.
    ///
    /// Default 50 ms: longer than a tool service's hiccup, shorter than a person
    /// notices.
    pub initial_backoff: Duration,
    /// The longest of these waits. At least `initial_backoff`.
    ///
    /// Default 1 s: a service that is back is found soon, and one call a second
    /// burdens none.
    pub max_backoff: Duration,
    /// How long a call is tried that can't even be sent; 0 (not again) to 24
    /// hours. A call that was sent and lost before gets three times as long: most
    /// likely its service is being restarted.
    ///
    /// Default 1 s: outlasts a hiccup; where nobody answers at all, it is over
    /// with the first `connect_timeout`.
    pub connect_patience: Duration,
}

/// `[tools.NAME.hedge]`: when a second attempt races the first; the first answer
/// wins. Only for an idempotent tool, and only if the section is there: it costs
/// the tool more calls.
///
/// Required. How long the tool may take before it is asked a second time, while
/// the first attempt goes on; `"p95"` is as long as 19 of 20 attempts took lately,
/// and nothing is hedged until that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeDelay {
    /// So long.
    Fixed(Duration),
    /// `"p95"`.
    P95,
}

/// `[services.NAME.breaker]`: when a service that fails is left alone, with all of
/// its tools; and the defaults of `[tools.NAME.breaker]`, when one tool is.
///
/// What counts for a service is what happens to its connections: there is none, or
/// one is lost or answers no pings, while no call of the service is answered either.
/// What counts for a tool is what it does itself: no answer by the call's deadline
/// (if that left it 500 ms, or half of its `timeout`), an end without an answer, or a
/// status of its `retry.codes`, while no other call of it is answered. Any other
/// status is an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Breaker {
    /// How many such failures in a row open the breaker. Calls that are lost
    /// together count as one, as with a connection or in a restart behind a proxy;
    /// so do those that come while a service is not dialed.
    ///
    /// Default 5: one lost connection or restart is no reason yet.
    pub failures: u32,
    /// How long it then stays open before a call may try; 1 ms to 24 hours.
    ///
    /// Default 500 ms: a process restarts within about that time.
    pub open_time: Duration,
    /// Each failed trial doubles the time until the next, up to this. At least
    /// `open_time`.
    ///
    /// Default 800 ms: the end of an outage is noticed within a second. How many
    /// calls a tool that hangs may keep waiting is what `probes` bounds.
    pub max_open_time: Duration,
    /// How many calls may be on trial at a time. The first answer closes the
    /// breaker; of a service that could not be reached, a connection does.
    ///
    /// Default 3: one that hangs must not delay the recovery.
    pub probes: u32,
}

/// `[services.NAME.retry_budget]`: how much more than its calls a service gets
/// (gRFC A6). Retries and hedges stop while it is half used up.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryBudget {
    /// How many tokens there are. A failure that could be retried takes one, a hedge
    /// when it is sent; calls that are lost together take one.
    ///
    /// Default 10: as gRFC A6 proposes.
    pub max_tokens: u32,
    /// How many answers bring one back.
    ///
    /// Default 10: in the long run a tenth more than the calls, as gRFC A6
    /// proposes.
    pub answers_per_token: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            codes: vec![Code::Unavailable],
            initial_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(1),
            connect_patience: Duration::from_secs(1),
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 5,
            open_time: Duration::from_millis(500),
            max_open_time: Duration::from_millis(800),
            probes: 3,
        }
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            max_tokens: 10,
            answers_per_token: 10,
        }
    }
}
