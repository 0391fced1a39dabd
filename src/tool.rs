//! One outgoing call: the gRPC client of a remote tool service.
//!
//! [`GrpcTool`] is what the fan-out calls through. It sends over a [`Connection`]
//! that is made when first needed, watches the reply on its way in
//! (`reply.rs`) and tells from what it saw whose failure it was (`failure.rs`).
//!
//! tonic's generated client does the gRPC; its `Channel` is not used, because it
//! hides what must be known here: whether a failed request ever left, and
//! whether a status came from the tool or from the transport.

mod client;
mod connection;
mod dial;
mod failure;
mod reply;

pub use client::GrpcTool;
pub use connection::Connection;
pub use dial::{Connect, Io, TcpConnect};
