//! What both edges need of the wire: URLs, timeouts, HTTP/2 frames as they pass,
//! gzip, TLS certificates.

pub(crate) mod endpoint;
pub(crate) mod frames;
pub mod grpc_timeout;
pub mod gzip;
pub(crate) mod peer;
pub(crate) mod tls;
pub(crate) mod writes;
