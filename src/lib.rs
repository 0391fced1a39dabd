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
//!          edges (hyper, tonic)                  core (tokio)                     edges
//!
//!  caller ─→ server ─→ service ─→ wire ─→ call, deadline ─→ fanout ─→ registry ─→ tool ─→ tools
//!            accept     admission  parse                      │  (trait Tool)      client, policy
//!            edge       run, stream                           │                    upstream, pool
//!                          ↑                  (index, outcome)│                    link, grpc, failure
//!                          └───── wire ←──── aggregate ←──────┘ as each completes
//! ```
//!
//! 1. [`server`] accepts a connection and serves HTTP/2 on it. Its edge notes the
//!    arrival, reads `grpc-timeout` and sets the one absolute [`deadline`].
//! 2. [`service`] has the RPCs. It parses the request ([`wire`], the only place
//!    where field paths and gRPC statuses are known), takes the calls on
//!    ([`admission`]), looks up their tools ([`registry`]) and starts the fan-out.
//! 3. [`fanout`] runs the calls through the trait [`fanout::Tool`] and yields each
//!    completion as it is known. It owns the timer, the concurrency limit, the
//!    failure policy, and catches panics.
//! 4. A [`run`] fills the completions into an [`aggregate`], which becomes the
//!    answer; the streaming RPC ([`stream`]) sends each on the way as well. With the
//!    answer goes its [`place`], what the request takes up of [`admission`]'s calls
//!    and [`buffered`]'s bytes, until the edge has handed on the last byte.
//! 5. [`tool`] is the other edge: one outgoing gRPC call, straight on h2, over a
//!    connection that is made when needed, to one of the service's addresses, with
//!    every failure classified.
//!
//! [`telemetry`] wraps both edges: the server's begins a trace, a run tells of its
//! calls as they complete, the client of its attempts. [`drain`] is how the end of
//! the process reaches all of them; [`server::admin`] is the page for operators.
//! [`config`], [`logging`] and [`probe`] are for the binary, [`demo`] is a tool service
//! to try things with, [`json`] is for the ends of the path, [`gzip`] for compressed
//! messages at both, `tls` for certificates.
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
//! `call`, `error`, `deadline`, `fanout`, `aggregate`, `admission`, `buffered`,
//! `place` and `drain` are the core: they name each other and tokio, never tonic, hyper or the generated
//! messages. [`wire`] is where both worlds meet. Everything else is an edge.

pub mod admission;
pub mod aggregate;
pub mod buffered;
pub mod call;
pub mod config;
pub mod connections;
pub mod deadline;
pub mod demo;
pub mod descriptors;
pub mod drain;
pub mod error;
pub mod fanout;
mod frames;
pub mod gzip;
pub mod json;
pub mod logging;
mod overflow;
pub mod place;
pub mod probe;
pub mod registry;
pub mod run;
pub mod server;
pub mod service;
pub mod stream;
pub mod telemetry;
mod tls;
pub mod tool;
pub mod wire;
mod writes;

/// The generated contract: `proto/fanfare/v1`. Payload fields are opaque bytes.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod pb {
    tonic::include_proto!("fanfare.v1");

    /// The published descriptors, with every import, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
