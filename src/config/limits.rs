//! `[limits]`

use std::time::Duration;

use super::{
    kind::{TICK, count, duration, size},
    memory,
    reader::Reader,
    section::{Section, section},
    units::{KIB, MIB, format_bytes},
};

/// protobuf's largest message.
const MAX_MESSAGE: u64 = i32::MAX as u64;
/// More than machines have.
const MAX_BUFFERED: u64 = 1 << 40;
/// What a result needs without its observation: ids, times, an error message.
const RESULT_OVERHEAD: usize = KIB as usize;
/// Of the memory of a process: for connections, calls, code, and what the allocator
/// does not give back.
const RESERVE: u64 = 64 * MIB;

section! {
    /// `[limits]`: what one request and this process may use.
    ///
    /// Durations are from 1 ms to 24 hours unless said otherwise, counts from 1 to
    /// 1,000,000, sizes of messages from 1 byte to 2 GiB less one, which is the most
    /// that protobuf allows.
    pub struct Limits {
        /// The most calls in one request.
        ///
        /// Default 256: an agent picks tens of tools at once, rarely more.
        pub max_calls_per_request: usize = 256, count();

        /// The most calls in flight in this process, over all requests; beyond it
        /// requests are shed. At least `max_calls_per_request`, or the largest
        /// request would never be accepted.
        ///
        /// Default 10,000: `connection_window_bytes` is enough for them.
        pub max_in_flight_calls: usize = 10_000, count();

        /// The most calls of one request that run at a time, unless the request asks
        /// for fewer; the others wait.
        ///
        /// Default: `max_calls_per_request`, that is all of them, so that a request
        /// takes as long as its slowest call.
        pub concurrency_limit: usize = 256, count();

        /// The longest time that a request gets, whatever its deadline is, and
        /// what one without a deadline gets.
        ///
        /// Default 5 min: longer than agents wait for tools, yet a request that
        /// everybody forgot ends.
        pub max_request_timeout: Duration = Duration::from_secs(5 * 60), duration(TICK);

        /// The largest request.
        ///
        /// Default 4 MiB: what gRPC servers accept by default.
        pub max_request_bytes: usize = 4 * MIB as usize, size(1..=MAX_MESSAGE);

        /// The largest observation of one call; a larger one fails that call alone.
        /// At most `max_response_bytes`.
        ///
        /// Default 1 MiB: more than a model reads, and three of that size still fit
        /// into one response.
        pub max_result_bytes: usize = MIB as usize, size(1..=MAX_MESSAGE);

        /// The largest response, and so all results of a request together. At least
        /// 1 KiB for each of `max_calls_per_request`, which is what a result needs
        /// without its observation, or up to 2 KiB if its id is longer than 256 bytes.
        ///
        /// Default 4 MiB: what gRPC clients accept by default.
        pub max_response_bytes: usize = 4 * MIB as usize, size(1..=MAX_MESSAGE);

        /// The most bytes that this process holds for its callers and tools, all
        /// together: requests that arrive or run, arguments that are written anew for their
        /// tool, observations, and answers until their last byte was handed on. Beyond it
        /// requests are shed, and such arguments or an observation fail their own call.
        /// These must leave room for seven more of their size, or an eighth of all, so that
        /// large ones do not keep small ones out. A
        /// request counts 8 KiB by itself, each call 2 KiB, and a text of arguments, while
        /// it is read, 128 bytes for each of its values. At least
        /// `max_request_bytes` and `max_response_bytes` together, or the largest request
        /// could not be answered.
        ///
        /// Default 256 MiB: 60 times the largest request. If the process's cgroup has a
        /// memory limit, no more than three quarters of it less 64 MiB: the rest is for
        /// connections, calls and code.
        pub max_buffered_bytes: usize = 256 * MIB as usize, size(1..=MAX_BUFFERED);

        /// How long before the caller's deadline the server stops waiting for
        /// tools, so that the answer still arrives; 0 to 24 hours, and never more
        /// than a tenth of the time that remains.
        ///
        /// Default 50 ms: more than it takes to send a response of 4 MiB within a
        /// data centre.
        pub reply_margin: Duration = Duration::from_millis(50), duration(Duration::ZERO);
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::defaults()
    }
}

pub(super) fn read(table: &mut Reader<'_, '_>) -> Limits {
    let mut l = Limits::defaults();
    l.read_keys(table);
    if !table.has("concurrency_limit") {
        l.concurrency_limit = l.max_calls_per_request;
    }
    if !table.has("max_buffered_bytes") {
        l.max_buffered_bytes = default_max_buffered_bytes(&l, memory::cgroup_limit());
    }
    check(table, &l);
    l
}

fn check(table: &mut Reader<'_, '_>, l: &Limits) {
    let bytes = |bytes: usize| format_bytes(bytes as u64);
    let calls = l.max_calls_per_request;
    table.check(
        l.max_in_flight_calls >= calls,
        "max_in_flight_calls",
        "max_calls_per_request",
        format_args!("at least max_calls_per_request ({calls})"),
        l.max_in_flight_calls,
    );
    let response = bytes(l.max_response_bytes);
    table.check(
        l.max_result_bytes <= l.max_response_bytes,
        "max_result_bytes",
        "max_response_bytes",
        format_args!("at most max_response_bytes ({response})"),
        bytes(l.max_result_bytes),
    );
    table.check(
        l.max_response_bytes / RESULT_OVERHEAD >= calls,
        "max_response_bytes",
        "max_calls_per_request",
        format_args!("at least 1KiB x max_calls_per_request ({calls}KiB)"),
        response,
    );
    let least = l.max_request_bytes + l.max_response_bytes;
    table.check(
        l.max_buffered_bytes >= least,
        "max_buffered_bytes",
        "max_response_bytes",
        format_args!(
            "at least max_request_bytes and max_response_bytes together ({})",
            bytes(least)
        ),
        bytes(l.max_buffered_bytes),
    );
}

/// For a process with these limits that may have so much `memory`.
fn default_max_buffered_bytes(limits: &Limits, memory: Option<u64>) -> usize {
    let default = Limits::default().max_buffered_bytes;
    let share = memory.map_or(u64::MAX, |limit| (limit / 4 * 3).saturating_sub(RESERVE));
    let fits = usize::try_from(share).map_or(default, |share| share.min(default));
    // Less would refuse requests that the other limits allow.
    let least = limits.max_request_bytes + limits.max_response_bytes;
    fits.max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_leaves_room_and_serves_the_largest_request() {
        let of = |limits: &Limits, memory| default_max_buffered_bytes(limits, memory) as u64 / MIB;
        let default = |mib: u64| of(&Limits::default(), Some(mib * MIB));
        assert_eq!(default(1024), 256);
        assert_eq!(default(512), 256);
        assert_eq!(default(256), 128);
        assert_eq!(default(128), 32);
        assert_eq!(default(64), 8);
        assert_eq!(of(&Limits::default(), None), 256);
        // What version 1 of cgroups has for no limit.
        let unlimited = Some(9_223_372_036_854_771_712);
        assert_eq!(of(&Limits::default(), unlimited), 256);
        let large = Limits {
            max_response_bytes: 400 * MIB as usize,
            ..Limits::default()
        };
        assert_eq!(of(&large, None), 404);
    }
}
