//! Fanfare's own protocol for tools: `fanfare.v1.ToolService` over gRPC. A request is
//! written in gRPC's framing (`request.rs`), what comes back is read (`reply.rs`), made
//! sure that it can't spoil the response that it becomes part of (`payload.rs`) and held
//! (`observation.rs`); a failure tells whose it was (`failure.rs`), and others than the
//! tool may have answered (`not_grpc.rs`).

pub(crate) mod failure;
pub(crate) mod not_grpc;
pub(crate) mod observation;
pub(crate) mod payload;
pub(crate) mod reply;
pub(crate) mod request;
