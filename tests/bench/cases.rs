//! What is measured: a table of named cases. To add one, add a line; `checks.rs`
//! refers to cases by name.

/// A load: so many callers, each of which sends its next request when the answer
/// to the last one is complete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Calls in one request.
    pub(crate) fan_out: usize,
    /// The length of the text in each call's arguments.
    pub(crate) argument_bytes: usize,
    /// By `StreamExecuteTools` rather than `ExecuteTools`.
    pub(crate) stream: bool,
    /// Worker threads of what is measured.
    pub(crate) threads: usize,
    pub(crate) callers: usize,
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

const fn case(name: &'static str, fan_out: usize, argument_bytes: usize) -> Case {
    Case {
        name,
        fan_out,
        argument_bytes,
        stream: false,
        threads: 1,
        callers: 8,
        tool_ms: 0,
        memory: false,
        quick: false,
        telemetry: false,
    }
}

/// `callers` times 50 calls in flight, for a second each.
const fn in_flight(name: &'static str, callers: usize) -> Case {
    Case {
        callers,
        tool_ms: 1000,
        memory: true,
        ..case(name, 50, 100)
    }
}

/// Cases that are compared stand side by side: the machine changes its pace.
pub(crate) const CASES: &[Case] = &[
    Case {
        callers: 1,
        quick: true,
        ..case("1x100B-1caller", 1, 100)
    },
    case("1x100B", 1, 100),
    case("8x12kB", 8, 12 * KB),
    Case {
        telemetry: true,
        ..case("8x100B", 8, 100)
    },
    Case {
        stream: true,
        ..case("8x100B-stream", 8, 100)
    },
    case("8x256kB", 8, 256 * KB),
    Case {
        quick: true,
        ..case("64x12kB", 64, 12 * KB)
    },
    Case {
        quick: true,
        telemetry: true,
        ..case("64x100B", 64, 100)
    },
    Case {
        stream: true,
        quick: true,
        ..case("64x100B-stream", 64, 100)
    },
    // As many calls in flight as 64 x 8, about: with 8 callers the cost would be
    // that of 8,000 calls in flight, which the memory cases have.
    Case {
        callers: 1,
        ..case("1000x100B", 1000, 100)
    },
    Case {
        threads: 2,
        ..case("8x100B-2threads", 8, 100)
    },
    Case {
        threads: 2,
        ..case("64x100B-2threads", 64, 100)
    },
    Case {
        tool_ms: 20,
        ..case("8x100B-20ms", 8, 100)
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

impl Case {
    /// How many calls are in flight at a time.
    pub(crate) fn in_flight(&self) -> usize {
        self.callers * self.fan_out
    }
}
