//! Fanfare runs the tool calls of one model turn at the same time: a caller sends
//! them in one gRPC request, Fanfare calls the remote tool services in parallel
//! under one deadline, streams each completion as it is known, and answers with
//! all results in the order of the calls.
//!
//! This page is the architecture. It is meant to be read with the file list open.
//!
//! # Where things are
//!
//! | directory | what it does |
//! |---|---|
//! | [`core`] | the orchestration itself: a batch of calls in, one outcome per call out |
//! | [`server`] | the front door: connections, limits, deadlines, drain, the operators' page |
//! | [`orchestrator`] | the RPCs: a request is parsed, planned, started and answered |
//! | [`catalog`] | which tools there are; the snapshot that a request keeps to |
//! | [`policy`] | retries, hedging, budget, circuit breakers, bulkhead; knows no protocol |
//! | [`net`] | which address and which connection a call takes |
//! | [`tool`] | protocols for tools: arguments to bytes on the wire to outcome |
//! | [`protobuf`] | messages that are known by their descriptors only: from and to JSON |
//! | [`telemetry`], [`logging`] | spans, metrics and the log |
//! | [`config`] | a file per section: its keys, defaults and checks |
//! | [`transport`] | what both ends need of the wire: HTTP/2 frames, gzip, certificates |
//! | [`demo`], [`waterfall`] | a tool service to try things with; a run of calls as a person sees it |
//! | [`probe`], [`json`], [`mistakes`] | the health probe; JSON; what is wrong with settings |
//!
//! # The path of a request
//!
//! ```text
//!   caller ─→ server ─→ orchestrator ─→ core ─→ tool ─→ policy ─→ tool ─→ net ─→ service
//!             accept    wire: parse    fanout   remote  breakers  fanfare upstream
//!             edge      plan, start      │              retry     grpc    connection
//!                            ↑           │ (index, outcome)
//!                       run, stream ←────┘ as each call ends
//! ```
//!
//! 1. `server/accept.rs` accepts a connection, `core/workers.rs` says which worker gets it,
//!    and `server/connection.rs` serves HTTP/2 on it.
//!    `server/edge.rs` notes the arrival of a request, reads `grpc-timeout` and sets the one
//!    absolute deadline (`core/deadline.rs`); `server/receive.rs` reads the message.
//! 2. `orchestrator.rs` has the RPCs; `orchestrator/answer.rs` makes the answers of those that
//!    run calls, from bytes to frames; `orchestrator/call_tool.rs` is how a Fanfare is the
//!    tool service of another one. `orchestrator/wire.rs` parses the request: only there
//!    are field paths and gRPC statuses known. `orchestrator/plan.rs` pins the snapshot
//!    (`catalog/snapshot.rs`) and plans the calls: their tools, deadlines, what is sent
//!    for them (`tool/fanfare.rs`, `tool/schema.rs`), and what is refused. To start it, the request is admitted (`core/admission.rs`) and its memory
//!    reserved (`core/buffered.rs`, `core/reservation.rs`).
//! 3. `core/fanout.rs` runs the calls and yields each completion as it is known. It owns the
//!    timer, the concurrency limit and the failure policy, and catches panics.
//! 4. `tool/remote.rs` is a call to a remote tool. `policy.rs` lets it through the breakers
//!    (`policy/breakers.rs`) and the bulkhead (`policy/bulkhead.rs`), and makes as many
//!    attempts as it may have (`policy/retry.rs`, `policy/hedged.rs`, `policy/budget.rs`),
//!    each under the eyes of the breakers (`policy/attempt.rs`).
//! 5. An attempt is made by the tool's protocol (`tool/fanfare.rs`, `tool/method.rs`), in gRPC's framing
//!    (`tool/grpc/request.rs`), on a connection of `net/upstream.rs`: the address by
//!    `net/balance.rs` and `net/eject.rs`, the connection by `net/address_pool.rs`, HTTP/2
//!    by `net/connection.rs`.
//! 6. What comes back is read by `tool/grpc/reply.rs`; a failure is told whose it is, and
//!    whether the tool may have run, by `tool/grpc/failure.rs`.
//! 7. `orchestrator/run.rs` fills the completions into `core/aggregate.rs`, which becomes
//!    the answer; `orchestrator/stream.rs` sends each one on the way as well.
//! 8. `server/response_body.rs` gives back what the request held once the last byte is handed on.
//!
//! [`telemetry`] watches both ends: `telemetry/rpc.rs` a request from its arrival to its last
//! byte, and through `core/observer.rs` its calls and attempts. `core/drain.rs` is how the
//! end of the process reaches all of them.
//!
//! # Threads
//!
//! `fanfare serve` has as many *workers* as the process may use cores: threads, each with a
//! current-thread runtime of its own. A caller's connection stays on the worker that had the
//! least to do when it came (`core/workers/placement.rs`), and so do its requests, their
//! tasks and timers, and the connections to tools that they use
//! (`net/address_pool/share.rs`): nothing of a call hops between threads. Workers share what
//! must be counted together (admission, bulkheads, breakers, budgets, the health of
//! addresses) and the snapshot: atomics, and locks that are held for a few instructions.
//!
//! The main thread accepts, and does what belongs to no worker or may be slow: names are
//! looked up, services are asked which tools they have (`catalog/discovery.rs`), the admin
//! port is served, telemetry exported. It also looks after the workers
//! (`server/supervision.rs`). Code asks `core/worker.rs` where it runs; in tests, and for the
//! demo, all is as on one worker.
//!
//! # To add something
//!
//! - **A protocol for tools**: a type in `tool/` that implements `tool/protocol.rs`
//!   (one attempt: arguments to bytes to observation, or to a `policy/failure.rs`), its keys
//!   in `config/service.rs`, and the line of
//!   `catalog/builder.rs` that makes it. What is spoken over
//!   gRPC finds framing, replies and the meaning of failures in `tool/grpc.rs`. Deadlines,
//!   retries, breakers and telemetry are around it.
//! - **A way to learn which tools a service has**: a file in `catalog/source/`, which
//!   gives offers; `catalog/discovery.rs` asks, `catalog/naming.rs` names,
//!   `catalog/builder.rs` makes tools of them, of which each catalogue has its own.
//! - **A setting**: one entry in the file of its section in `config/`; the reference, the
//!   example and the JSON Schema are written out of it.
//! - **A metric or an attribute of a span**: its name in `telemetry/names.rs`.
//! - **A way for a call to fail**: `core/error.rs`; `orchestrator/wire/status.rs` makes the
//!   status that the caller gets.
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
//!    never blocks or fails a call, and the end of each RPC, call and attempt is
//!    told once. `tidy::*`, `telemetry::*`
//! 10. **What can be saved is saved, and nothing is done twice**: a call is sent
//!     again only if it can't have run or may run twice, and within a budget; callers
//!     are told what they may send again.
//!     `retries::*`, `hedging::*`, `breaker::*`, `bulkhead::*`, `not_served::*`
//! 11. **One bad tool harms only itself**: what a service says of a tool that can't be used
//!     leaves out that tool. `catalogue::a_bad_tool_is_left_out_alone`, `catalogue::*`
//! 12. **A request sees one generation** of the tools and limits; what is replaced goes
//!     with the last request that began with it. `snapshots::*`, `catalogue::*`
//!
//! # Who may name whom
//!
//! Dependencies run one way, and `tests/it/tidy.rs` checks it: no circles between files, and
//!
//! - [`core`] is made of tokio and std. It names nothing of ours, and neither tonic, hyper,
//!   the generated messages nor telemetry.
//! - [`policy`] names [`core`] and [`config`], and no protocol: neither gRPC nor h2.
//! - [`net`] names [`core`], [`config`] and [`transport`], but no policy and no tool.
//! - [`tool`] brings these together; [`catalog`] makes the tools.
//! - [`orchestrator`] names no connection, and [`server`] is named by nobody but the binary.

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
pub mod protobuf;
pub mod server;
pub mod telemetry;
pub mod tool;
pub mod transport;
pub mod waterfall;

/// The generated contract: `proto/fanfare/v1`. Payload fields are opaque bytes.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod pb {
    tonic::include_proto!("fanfare.v1");

    /// The published descriptors, with every import, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
