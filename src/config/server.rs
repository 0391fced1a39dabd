//! `[server]`

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use super::{
    compression::{Compression, compression},
    kind::{TICK, address, boolean, count, duration, integer, or_auto, or_off, size},
    reader::Reader,
    section::{Section, section},
    units::{KIB, MIB},
};

/// HTTP/2's own and its largest (RFC 9113, 6.9.1 and 6.9.2).
const WINDOWS: RangeInclusive<u64> = 64 * KIB..=i32::MAX as u64;

/// More than machines have cores.
pub const MAX_WORKERS: u64 = 1024;

section! {
    /// `[server]`: where and how callers connect.
    ///
    /// Durations are from 1 ms, the resolution of the timers, to 24 hours unless
    /// said otherwise; counts are from 1 to 1,000,000.
    pub struct Server {
        /// Where the gRPC services listen; port 0 takes a free one.
        ///
        /// Default `127.0.0.1:50051`: gRPC's customary port, and reachable from
        /// elsewhere only when somebody asks for it.
        pub listen: SocketAddr = (Ipv4Addr::LOCALHOST, 50051).into(), address();

        /// Where `/metrics`, `/healthz` and `/readyz` are served; port 0 takes a free
        /// one; `"off"`: nowhere.
        ///
        /// Default `127.0.0.1:9464`: where OpenTelemetry's Prometheus exporters
        /// listen by default.
        pub admin_listen: Option<SocketAddr> = Some((Ipv4Addr::LOCALHOST, 9464).into()),
            or_off(address());

        /// How many threads serve; 1 to 1024. Each is a worker with connections and timers
        /// of its own. A caller's connection stays on the worker that had the least to do
        /// when it came, and its calls use that worker's connections to the tools: who
        /// sends a lot should open several.
        ///
        /// Default `"auto"`: what `TOKIO_WORKER_THREADS` says, or else one for each core
        /// that the process may use, by its affinity and its cgroup's CPU quota.
        pub workers: Option<usize> = None, or_auto(integer(1..=MAX_WORKERS));

        /// Whether the server describes its services to those who ask.
        ///
        /// Default `true`: `grpcurl` then works without the proto files, and these
        /// are no secret.
        pub reflection: bool = true, boolean();

        /// How answers are compressed, for callers that accept it; `"none"` or
        /// `"gzip"`. Requests may be compressed with gzip in any case.
        ///
        /// Default `"none"`: within a data centre compressing takes longer than
        /// sending.
        pub compression: Compression = Compression::None, compression();

        /// The most connections that callers may have at a time. Another one is closed
        /// at once, so that its client tries another address, and `/readyz` answers 503.
        /// There may be fewer: `ulimit -n`, which is raised as far as possible, has to
        /// leave room for tool services and `admin_listen`.
        ///
        /// Default 4096: far more than callers have replicas, and a bound on memory.
        pub max_connections: usize = 4096, count();

        /// The most RPCs at a time on one connection, which the server announces
        /// as HTTP/2's `SETTINGS_MAX_CONCURRENT_STREAMS`; callers queue the rest.
        ///
        /// Default 1024: without a limit, which is tonic's default, one caller could
        /// hold any amount of memory; with hyper's 200 busy callers would queue.
        pub max_streams_per_connection: u32 = 1024, count();

        /// The most bytes that the headers of one RPC may have, counted as in HTTP/2;
        /// 4 KiB to 1 MiB. More are refused with `RESOURCE_EXHAUSTED`, more than four
        /// times as many with HTTP status 431, and more than sixteen times as many close
        /// the connection.
        ///
        /// Default 16 KiB: gRPC servers accept 8 to 16 KiB by default.
        pub max_header_list_bytes: u32 = 16 * KIB as u32, size(4 * KIB..=MIB);

        /// How many bytes of one request may be on their way before the server has
        /// read them; 64 KiB to 2 GiB less one.
        ///
        /// Default 1 MiB: a request of 4 MiB then takes some four round trips, where
        /// HTTP/2's own 64 KiB would take 64, and a stalled one holds no more than that.
        pub stream_window_bytes: u32 = MIB as u32, size(WINDOWS);

        /// The same for all requests of one connection together.
        ///
        /// Default 8 MiB. It is not larger, as what has arrived is not counted in
        /// `limits.max_buffered_bytes` before it is read. It is not smaller, as h2 charges
        /// each unread DATA frame of less than 256 bytes up to 256 bytes against half of
        /// this window, and closes the connection when that half is used up: 8 MiB let
        /// 16,000 small requests be unread, tonic's 1 MiB some 2,000.
        pub connection_window_bytes: u32 = 8 * MIB as u32, size(WINDOWS);

        /// How long a new connection may be silent before it is closed.
        ///
        /// Default 5 s: a caller speaks in its first packet, and hyper would wait
        /// for ever, even when the server wants to stop.
        pub first_byte_timeout: Duration = Duration::from_secs(5), duration(TICK);

        /// How long a request may take to arrive, from its headers to its last byte,
        /// whatever its deadline is; then it ends with `DEADLINE_EXCEEDED`.
        ///
        /// Default 20 s: 4 MiB arrive within that time at 2 Mbit/s, and a caller that
        /// never completes its requests holds memory no longer than that.
        pub receive_timeout: Duration = Duration::from_secs(20), duration(TICK);

        /// How long a connection may be quiet before the server pings the caller.
        ///
        /// Default 30 s: finds callers that vanished without closing, whose calls
        /// would run on, with next to no traffic.
        pub keepalive_interval: Duration = Duration::from_secs(30), duration(TICK);

        /// How long such a ping may stay unanswered before the connection is closed.
        ///
        /// Default 10 s: longer than a packet takes that was lost several times.
        pub keepalive_timeout: Duration = Duration::from_secs(10), duration(TICK);

        /// How old a connection gets, plus or minus a tenth, before the server asks
        /// the caller to open another. Calls in flight finish.
        ///
        /// Default 30 min: callers spread over new replicas within that time, and
        /// reconnecting that seldom costs nothing.
        pub max_connection_age: Duration = Duration::from_secs(30 * 60), duration(TICK);

        /// How long the server still accepts requests after it was asked to stop, while
        /// its health already says so; 0 to 24 hours.
        ///
        /// Default 0 s. Where load balancers learn of the stop only later, set it to
        /// the time that they need, and raise `terminationGracePeriodSeconds` by as much.
        pub drain_delay: Duration = Duration::ZERO, duration(Duration::ZERO);

        /// How long requests in flight may take to finish after that. A connection that
        /// has none is closed once its caller has been silent for a second, or for 5 s
        /// while it has not read its answer.
        ///
        /// Default 25 s: Kubernetes kills 30 s after its SIGTERM by default.
        pub drain_timeout: Duration = Duration::from_secs(25), duration(TICK);

        /// A call that takes longer than this, with waiting and all attempts, gets a line
        /// in the log at level `info`; `"off"`: no call does. A failed call always gets one.
        ///
        /// Default `"off"`: what is slow for one tool is fast for another, and the
        /// metrics tell more about many calls than lines can.
        pub slow_call: Option<Duration> = None, or_off(duration(TICK));
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::defaults()
    }
}

pub(super) fn read(table: &mut Reader<'_, '_>) -> Server {
    let mut server = Server::defaults();
    server.read_keys(table);
    if let Some(admin) = server.admin_listen {
        table.check(
            !clash(server.listen, admin),
            "admin_listen",
            "listen",
            format_args!("another port than listen ({})", server.listen),
            admin,
        );
    }
    server
}

/// Whether two listeners can't be there at the same time.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let overlap = match [one.ip(), other.ip()].map(|ip| ip.to_canonical()) {
        // `::` takes what comes by IPv4 as well.
        [IpAddr::V6(Ipv6Addr::UNSPECIFIED), _] | [_, IpAddr::V6(Ipv6Addr::UNSPECIFIED)] => true,
        [IpAddr::V4(one), IpAddr::V4(other)] => {
            one == other || one.is_unspecified() || other.is_unspecified()
        }
        [one, other] => one == other,
    };
    one.port() == other.port() && one.port() != 0 && overlap
}
