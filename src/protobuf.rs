//! Messages of services that are known by their descriptors only: JSON into the wire
//! format and back, and JSON Schema out of what the descriptors say.
//!
//! A [`Pool`] is made of the descriptors of one service at one time, by whatever way they
//! came; it knows no network. Descriptors and answers are data of strangers: all that is
//! read of them is bounded.

mod decode;
mod descriptor;
mod encode;
mod features;
mod message;
mod names;
mod oneofs;
mod pool;
mod schema;
mod time;
mod types;

pub use self::{
    decode::Unreadable,
    message::Message,
    pool::{MAX_BYTES, MAX_FILES, MAX_NAME_BYTES, Method, Pool, Problem},
    types::Unusable,
};

#[cfg(test)]
mod tests;
