//! Tools that remote services run. [`GrpcTool`] is what the fan-out calls through
//! (`client.rs`): it puts a protocol for tools (`fanfare.rs`) behind the policies
//! ([`policy`](crate::policy)) of one tool.

mod client;
pub(crate) mod fanfare;

pub use client::GrpcTool;
