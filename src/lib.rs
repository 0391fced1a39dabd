//! Fanfare: runs a batch of tool calls at the same time (being laid out).

pub mod call;
pub mod config;
pub mod error;

/// The generated contract: `proto/fanfare/v1`. Payload fields are opaque bytes.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod pb {
    tonic::include_proto!("fanfare.v1");

    /// The published descriptors, with every import, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
