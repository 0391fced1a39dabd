//! Tools that remote services run. A [`RemoteTool`](remote::RemoteTool) is what the
//! fan-out calls through: it puts a [protocol for tools](protocol::Protocol) behind the
//! policies ([`policy`](crate::policy)) of one tool.
//!
//! To add a protocol: a directory beside `fanfare/` whose type implements
//! [`Protocol`](protocol::Protocol), and a line in [`catalog`](crate::catalog) that
//! makes it. What is sent over gRPC finds the framing of requests, the reading of
//! replies and the classification of failures in `grpc/`.

pub(crate) mod attempt;
pub(crate) mod fanfare;
pub(crate) mod grpc;
pub(crate) mod protocol;
pub(crate) mod remote;
