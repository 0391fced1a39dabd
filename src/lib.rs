//! Fanfare runs the tool calls of one model turn at the same time: a caller sends
//! them in one gRPC request, Fanfare calls the remote tool services in parallel
//! under one deadline, streams each completion as it is known, and answers with
//! all results in the order of the calls.
//!
//! This page is the architecture. It is meant to be read with the file list
//! open; the whole path of a request is a dozen small files.
//!
//! # The path of a request
//!
//! ```text
//!        edges (hyper, tonic)              core (tokio)                edges
//!
//!  caller ─→ server ─→ orchestrator ─→ core ─→ catalog ─→ tool ─→ policy ─→ net ─→ tools
//!            accept     wire: parse     fanout             fanfare  retry     upstream
//!            edge       run, stream       │                         breaker   connection
//!                          ↑              │ (index, outcome)
//!                          └── aggregate ←┘ as each completes
//! ```
//!
//! 1. [`server`] accepts a connection and serves HTTP/2 on it (`server/connection.rs`).
//!    Its edge (`server/edge.rs`) notes the arrival, reads `grpc-timeout` and sets the one
//!    absolute [`deadline`](core::deadline).
//! 2. [`orchestrator`] has the RPCs. It parses the request
//!    ([`orchestrator::wire`], the only place where field paths and gRPC statuses are
//!    known), takes the calls on ([`core::admission`]), looks up their tools
//!    ([`catalog`]) and starts the fan-out.
//! 3. [`core::fanout`] runs the calls through the trait [`core::fanout::Tool`] and yields
//!    each completion as it is known. It owns the timer, the concurrency limit, the
//!    failure policy, and catches panics.
//! 4. A run ([`orchestrator::run`]) fills the completions into an
//!    [`aggregate`](core::aggregate), which becomes the answer; the streaming RPC
//!    ([`orchestrator::stream`]) sends each on the way as well. With the answer goes its
//!    [`reservation`](core::reservation), what the request takes up of admission's calls
//!    and [`buffered`](core::buffered)'s bytes, until the edge has handed on the last byte.
//! 5. [`tool`] is the other edge: one outgoing call, under the policies of its tool
//!    ([`policy`]), straight on h2, over a connection that is made when needed, to one of
//!    the service's addresses ([`net`]), with every failure classified.
//!
//! [`telemetry`] wraps both edges: the server's begins a trace, a run tells of its
//! calls as they complete, the client of its attempts. [`core::drain`] is how the end of
//! the process reaches all of them; [`server::admin`] is the page for operators.
//! [`config`], [`logging`] and [`probe`] are for the binary, [`demo`] is a tool service
//! to try things with, [`json`] is for the ends of the path, [`transport`] is what both
//! edges need of the wire.
//!
//! # What always holds
//!
//! Each line names the tests (in `tests/it/`) that fail when it is broken.
//!
//! 1. **Parallel**: a request takes as long as its slowest tool.
//!    `execute::a_request_takes_as_long_as_its_slowest_tool`
//! 2. **Exactly one outcome per call**, at expiry, cancellation, crash and panic,
//!    and however malformed it is. `ordering::*`, `tool_faults::*`, `panics::*`,
//!    `bad_calls::*`
//! 3. **Deterministic order**: `results[i]` answers `calls[i]`, and the aggregate
//!    does not depend on the order of completion. `ordering::*`
//! 4. **A tool's failure is data**; an RPC's status speaks of the request.
//!    `execute::failures_are_data_beside_the_other_results`, `hostile_replies::*`
//! 5. **One absolute deadline**, with time left to answer. `deadline::*`
//! 6. **Structured concurrency**: when the caller goes, its calls end on the wire;
//!    nothing outlives its request. `cancel::*`, `vanishing_callers::*`
//! 7. **Everything has a bound**, and says so at the bound. `limits::*`,
//!    `bulkhead::*`, `slow_reader::*`, `unread::*`, `memory::*`
//! 8. **Payloads are opaque**: they pass through as the bytes that arrived.
//!    `interop::payloads_pass_through_byte_for_byte`
//! 9. **Telemetry wraps, it does not weave**: the core knows neither it nor gRPC, it
//!    never blocks or fails a call, and what each RPC, call and attempt came to is
//!    told once. `tidy::*`, `telemetry::*`
//! 10. **What can be saved is saved, and nothing is done twice**: a call is sent
//!     again only if it can't have run or may run twice, and within a budget; callers
//!     are told what they may send again.
//!     `retries::*`, `hedging::*`, `breaker::*`, `bulkhead::*`, `not_served::*`
//!
//! # Who may name whom
//!
//! [`core`] is made of tokio and std: it never names tonic, hyper or the generated
//! messages. [`orchestrator::wire`] is where both worlds meet. Everything else is an edge.

pub mod catalog;
pub mod config;
pub mod core;
pub mod demo;
pub mod json;
pub mod logging;
pub mod mistakes;
pub mod net;
pub mod orchestrator;
pub mod policy;
pub mod probe;
pub mod server;
pub mod telemetry;
pub mod tool;
pub mod transport;

/// The generated contract: `proto/fanfare/v1`. Payload fields are opaque bytes.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod pb {
    tonic::include_proto!("fanfare.v1");

    /// The published descriptors, with every import, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
