//! `[services.NAME.breaker]` and `[tools.NAME.breaker]`

use std::time::Duration;

use super::{
    kind::{TICK, count, duration},
    reader::Reader,
    section::{Section, section},
};

section! {
    /// `[services.NAME.breaker]`: when calls to a failing service stop, with those to all of
    /// its tools; and the defaults of `[tools.NAME.breaker]`, when those to one tool stop.
    ///
    /// A service fails when there is no connection to it, or one is lost or answers no
    /// pings, while none of its calls is answered either. A tool fails when it does not
    /// answer by the call's deadline (if that left it 500 ms, or half of its `timeout`),
    /// ends without an answer, or answers with a status of its `retry.codes`, while no
    /// other call of it is answered. Any other status is an answer.
    pub struct Breaker {
        /// How many failures in a row open the breaker. Calls that are lost together,
        /// with a connection or in a restart behind a proxy, count as one failure; so do
        /// those that fail while the service is not being dialed.
        ///
        /// Default 5: one lost connection or restart is no reason yet.
        pub failures: u32 = 5, count();

        /// How long it then stays open before a call may try; 1 ms to 24 hours.
        ///
        /// Default 500 ms: a process restarts within about that time.
        pub open_time: Duration = Duration::from_millis(500), duration(TICK);

        /// Each failed trial doubles the time until the next, up to this. At least
        /// `open_time`.
        ///
        /// Default 800 ms: the end of an outage is noticed within a second. How many
        /// calls a tool that hangs may keep waiting is bounded by `probes`.
        pub max_open_time: Duration = Duration::from_millis(800), duration(TICK);

        /// How many calls may be on trial at a time. The first answer closes the breaker,
        /// and so does a connection if the service could not be reached.
        ///
        /// Default 3: one trial that hangs must not delay the recovery.
        pub probes: u32 = 3, count();
    }
}

/// What `[tools.NAME.breaker]` is for.
pub(super) const OF_TOOL: &str = "When calls to this tool stop. What is not set here is as in \
    `[services.NAME.breaker]` of its service.";

impl Default for Breaker {
    fn default() -> Self {
        Self::defaults()
    }
}

/// What the table does not set is as in `defaults`.
pub(super) fn read(table: &mut Reader<'_, '_>, defaults: Breaker) -> Breaker {
    let mut b = defaults;
    b.read_keys(table);
    table.keep_ascending(
        ("open_time", b.open_time),
        ("max_open_time", &mut b.max_open_time),
    );
    b
}
