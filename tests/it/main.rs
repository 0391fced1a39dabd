//! One test binary, a file per behaviour. `support` is the kit: scripted tools,
//! the server over in-memory pipes with a paused clock, real processes.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is its purpose"
)]

mod support;

/// The operators' page: paths, garbage, readiness, those who say nothing.
mod admin;
/// Arguments as the JSON text that a model wrote.
mod arguments_json;
/// Calls that can't be made, among those that can.
mod bad_calls;
/// Requests that can't be served, and what the caller is told.
mod bad_input;
/// Answers of proxies and other servers in place of the tool.
mod between;
/// A service that fails is left alone, and found again.
mod breaker;
/// A tool's places, and whose turn it is.
mod bulkhead;
/// The caller goes away; the failure policy; nothing outlives its request.
mod cancel;
/// Services that are asked which tools they have.
mod catalogue;
/// A Fanfare whose tools are another one's.
mod chained;
/// `fanfare tools` and `fanfare call`.
mod commands;
/// Compressed answers, and what they stand for.
mod compressed;
/// `deploy/config/` is what the code says.
mod config_files;
/// How many connections a tool service gets, and which call goes on which.
mod connections;
/// Whose limit runs out when, and what the tool is told.
mod deadline;
/// Several addresses, names that change, and what keeps failing.
mod endpoints;
/// All calls at once, the results in the order of the calls.
mod execute;
/// What ends a call as its deadline comes.
mod expiry;
/// OTLP exporters and collectors, with TLS and without, there and not there.
mod export;
/// Everything at once that takes memory before a request is admitted.
mod floods;
/// Definitions of tools for models.
mod formats;
/// Replicas that freeze, or answer nothing, among others that are well.
mod frozen;
/// Services that allow no stream, and connections that do not last.
mod full;
/// Methods of gRPC services as tools.
mod grpc_method;
/// A second attempt races the first.
mod hedging;
/// Tool services that answer with what they should not.
mod hostile_replies;
/// Reflection, health and what gRPC's interop tests ask for.
mod interop;
/// Pings: how often, and what is done about complaints.
mod keepalive;
/// What comes for calls that are over, and what else h2 counts as long as a connection
/// lasts.
mod late_answers;
/// Every bound, at it and one above.
mod limits;
/// What `ListTools` says, and the two names of a tool.
mod listing;
/// Thousands of calls in a request, and of cancels a second.
mod load;
/// Peers that would have a log line written for each frame or call.
mod log_flood;
/// Log lines: never in the way, never lost in silence.
mod logs;
/// What the process holds in memory while callers do not read.
mod memory;
/// Observations that JSON has no words for.
mod no_json;
/// Requests that are refused, and what that says of their tools.
mod not_served;
/// Any completion order, any mix of outcomes: the same aggregate.
mod ordering;
/// Tool services that are killed, freeze or are cut off, and come back.
mod outages;
/// Panics where there should be none.
mod panics;
/// `fanfare probe`: health, for those who start a command.
mod probe;
/// Which services can be reached, before any call.
mod reachable;
/// The README's tables of errors are what the code says.
mod readme;
/// Requests as they arrive: in pieces, twice, compressed, or never.
mod receiving;
/// What h2 refuses, and what the log says of it.
mod refused;
/// The bodies of requests that were refused before they came.
mod refused_bodies;
/// Replicas of a service that refuse, die and restart, and what each of them met.
mod replicas;
/// Cancels, at a pace that no tool service takes for an attack.
mod resets;
/// What is sent again, when, and how often.
mod retries;
/// Tools whose arguments have a schema; names that no tool has.
mod schemas;
/// SIGTERM, drain, health, the second signal.
mod shutdown;
/// A caller that does not read its stream.
mod slow_reader;
/// A new generation of tools and limits beside requests of the one before.
mod snapshots;
/// What keeps it from starting, named by `fanfare check` before that.
mod starting;
/// Each completion at the moment it is known, then the aggregate.
mod stream;
/// What a caller's request leaves behind: spans, metrics, the trace at the tool.
mod telemetry;
/// Files stay small, the core stays free of gRPC.
mod tidy;
/// Tool services that die, freeze, refuse or never answer: real processes.
mod tool_faults;
/// Tool services behind TLS, and who is not believed.
mod tool_tls;
/// An error without results is one HEADERS frame that ends its stream.
mod trailers_only;
/// Answers that nobody takes.
mod unread;
/// Callers that are killed, frozen or gone.
mod vanishing_callers;
mod workers;
