//! What both edges share of the wire formats: URLs, `grpc-timeout`, HTTP/2 frames,
//! gzip, TLS certificates.

pub(crate) mod endpoint;
pub(crate) mod frames;
pub mod grpc_timeout;
pub mod gzip;
pub(crate) mod peer;
pub(crate) mod tls;
pub(crate) mod writes;
