//! Tools that remote services run. A `RemoteTool` (`remote.rs`) is what the fan-out calls
//! through: it puts a protocol for tools (the trait of `protocol.rs`) behind the policies
//! of one tool ([`policy`](crate::policy)).
//!
//! To add a protocol: a directory beside `fanfare/` whose type implements that trait, and
//! the line in [`catalog`](crate::catalog) that makes it. What is sent over gRPC finds the
//! framing of requests, the reading of replies and the classification of failures in
//! `grpc/`.

pub(crate) mod attempt;
pub(crate) mod fanfare;
pub(crate) mod grpc;
pub(crate) mod method;
pub(crate) mod protocol;
pub(crate) mod remote;
pub mod schema;
