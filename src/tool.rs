//! One outgoing call: the gRPC client of a remote tool service.
//!
//! [`GrpcTool`] is what the fan-out calls through (`client.rs`). It sends in gRPC's
//! framing (`grpc.rs`), reads what comes back (`reply.rs`), makes sure that the
//! observation can't spoil the response that it becomes part of (`payload.rs`), holds
//! it (`observation.rs`), and tells whose failure it was (`failure.rs`); others than
//! the tool may have answered (`not_grpc.rs`).
//!
//! How a call survives what fails is put together in `policy.rs`: circuit breakers
//! (`breaker.rs`) of the tool and of its service (`policy/guard.rs`) around each
//! attempt (`policy/guarded.rs`), a bound with a fair queue (`bulkhead.rs`), retries
//! (`retry.rs`, `backoff.rs`, `budget.rs`) or hedges (`policy/hedged.rs`,
//! `policy/race.rs`, `hedge.rs`).
//!
//! An [`Upstream`] finds it a connection (`upstream.rs`): at which of the addresses
//! (`resolve.rs`, `balance.rs`, `eject.rs`), on which of the connections there
//! (`place.rs`, `pool.rs`), each of which speaks HTTP/2 (`link.rs`), with a peer that
//! is asked whether it is there (`liveness.rs`, `ping.rs`), over what was dialed
//! (`dial.rs`, `redial.rs`, `tls.rs`). What is cancelled there is reset at a pace that
//! no service takes for an attack (`cancelled.rs`, `pacer.rs`).
//!
//! This is built on h2 rather than on tonic's client and hyper, for three
//! reasons. A failed call must say whether it ever left and whether a status came
//! from the tool: those layers blur both. A hostile reply must cost its own call:
//! tonic's client panics on some. And a call's cost is the product: a task, two
//! channels and several allocations per call fall away.

mod address;
mod backoff;
mod balance;
mod breaker;
mod budget;
mod bulkhead;
mod cancelled;
mod client;
mod dial;
mod eject;
mod failure;
mod grpc;
mod hedge;
mod linger;
mod link;
mod liveness;
mod not_grpc;
mod observation;
mod pacer;
mod payload;
mod ping;
mod place;
mod policy;
mod pool;
mod redial;
mod reply;
mod resolve;
mod retry;
mod tls;
mod upstream;

pub(crate) use dial::OnePlace;

pub use address::Address;
pub use breaker::{Breaker, BreakerState};
pub use client::GrpcTool;
pub use dial::{Connect, Internet, Io, Network};
pub use policy::{Guard, ServiceGuard};
pub use upstream::{Connectivity, Upstream};
