//! Fanfare: runs a batch of tool calls at the same time.

pub mod admission;
pub mod aggregate;
pub mod call;
pub mod config;
pub mod deadline;
pub mod demo;
pub mod drain;
pub mod error;
pub mod fanout;
pub mod logging;
pub mod registry;
pub mod server;
pub mod service;
pub mod stream;
pub mod tool;
pub mod wire;

/// The generated contract: `proto/fanfare/v1`. Payload fields are opaque bytes.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod pb {
    tonic::include_proto!("fanfare.v1");

    /// The published descriptors, with every import, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
