//! One outgoing call: the gRPC client of a remote tool service.
//!
//! [`GrpcTool`] is what the fan-out calls through. It sends over a [`Connection`]
//! that is made when first needed (`dial.rs` opens it, `link.rs` speaks HTTP/2 on
//! it), in gRPC's framing (`grpc.rs`), makes sure that the observation can't spoil
//! the response that it becomes part of (`payload.rs`), and tells whose failure it
//! was (`failure.rs`).
//!
//! This is built on h2 rather than on tonic's client and hyper, for three
//! reasons. A failed call must say whether it ever left and whether a status came
//! from the tool: those layers blur both. A hostile reply must cost its own call:
//! tonic's client panics on some. And a call's cost is the product: a task, two
//! channels and several allocations per call fall away.

mod backoff;
mod breaker;
mod budget;
mod bulkhead;
mod client;
mod connection;
mod dial;
mod failure;
mod grpc;
mod hedge;
mod link;
mod payload;
mod policy;
mod retry;

pub use breaker::{Breaker, BreakerState};
pub use client::GrpcTool;
pub use connection::Connection;
pub use dial::{Connect, Io, TcpConnect};
pub use policy::Guard;
