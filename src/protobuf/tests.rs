//! Messages both ways.

mod both_ways;
mod hostile;
mod property;
mod refused;
mod special;
pub(super) mod support;
