//! Traces and metrics: what the standard `OTEL_*` variables ask for, and how it
//! gets to a collector.

pub mod export;
pub mod settings;
