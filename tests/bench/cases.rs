//! What is measured: a table of named cases. To add one, add a line; `checks.rs`
//! refers to cases by name.

/// A load: so many callers, each of which sends its next request when the answer
/// to the last one is complete. Its name is `CALLERSxCALLS-ARGUMENTS`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) callers: usize,
    /// Calls in one request.
    pub(crate) fan_out: usize,
    /// The length of the text in each call's arguments.
    pub(crate) argument_bytes: usize,
    /// Which the callers share.
    pub(crate) connections: usize,
    /// By `StreamExecuteTools` rather than `ExecuteTools`.
    pub(crate) stream: bool,
    /// How long each tool takes, in milliseconds.
    pub(crate) tool_ms: u64,
    /// Whether the memory of the calls in flight is the point: the load comes
    /// several times, with rests, and memory is read in each.
    pub(crate) memory: bool,
    /// Part of `--quick`.
    pub(crate) quick: bool,
    /// Whether the price of telemetry is measured with it.
    pub(crate) telemetry: bool,
}

const KB: usize = 1000;
/// As a backend of two replicas has.
pub(crate) const CONNECTIONS: usize = 2;

const fn case(name: &'static str, callers: usize, fan_out: usize, argument_bytes: usize) -> Case {
    Case {
        name,
        callers,
        fan_out,
        argument_bytes,
        connections: CONNECTIONS,
        stream: false,
        tool_ms: 0,
        memory: false,
        quick: false,
        telemetry: false,
    }
}

/// `callers` times 50 calls in flight, for a second each.
const fn in_flight(name: &'static str, callers: usize) -> Case {
    Case {
        tool_ms: 1000,
        memory: true,
        ..case(name, callers, 50, 100)
    }
}

/// Cases that are compared stand side by side: the machine changes its pace.
pub(crate) const CASES: &[Case] = &[
    Case {
        quick: true,
        ..case("1x1-100B", 1, 1, 100)
    },
    case("8x1-100B", 8, 1, 100),
    case("1x8-100B", 1, 8, 100),
    case("8x8-12kB", 8, 8, 12 * KB),
    Case {
        telemetry: true,
        ..case("8x8-100B", 8, 8, 100)
    },
    Case {
        stream: true,
        ..case("8x8-100B-stream", 8, 8, 100)
    },
    Case {
        connections: 1,
        ..case("8x8-1connection", 8, 8, 100)
    },
    Case {
        connections: 8,
        ..case("8x8-8connections", 8, 8, 100)
    },
    case("8x8-256kB", 8, 8, 256 * KB),
    case("8x64-12kB", 8, 64, 12 * KB),
    Case {
        quick: true,
        telemetry: true,
        ..case("8x64-100B", 8, 64, 100)
    },
    Case {
        stream: true,
        quick: true,
        ..case("8x64-100B-stream", 8, 64, 100)
    },
    // As many calls in flight as 8 x 64, about: with 8 callers the cost would be
    // that of 8,000 calls in flight, which the memory cases have.
    case("1x1000-100B", 1, 1000, 100),
    Case {
        tool_ms: 20,
        ..case("8x8-100B-20ms", 8, 8, 100)
    },
    in_flight("in-flight-100", 2),
    in_flight("in-flight-1000", 20),
    Case {
        quick: true,
        ..in_flight("in-flight-10000", 200)
    },
    // So long that all are in flight at a time.
    Case {
        tool_ms: 4000,
        ..in_flight("in-flight-50000", 1000)
    },
    Case {
        tool_ms: 8000,
        ..in_flight("in-flight-100000", 2000)
    },
];

/// One call, a turn's calls, and a large batch, by one caller and by several: what
/// the numbers of threads are compared in.
pub(crate) const ROWS: [&str; 5] = ["1x1-100B", "8x1-100B", "1x8-100B", "8x8-100B", "8x64-100B"];

impl Case {
    /// How many calls are in flight at a time.
    pub(crate) fn in_flight(&self) -> usize {
        self.callers * self.fan_out
    }

    /// Whether it is about one thing, which fewer systems show.
    pub(crate) fn special(&self) -> bool {
        self.memory || self.tool_ms > 0 || self.connections != CONNECTIONS
    }
}
