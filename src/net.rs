//! How a call gets to a remote service: which of its addresses, over which connection.
//!
//! An [`Upstream`] is one service (`upstream.rs`). Name servers tell it its addresses
//! (`resolve.rs`), of which one is drawn (`balance.rs`) unless it was ejected
//! (`eject.rs`). Each address has a few connections (`address_pool.rs`, `pool.rs`), each
//! of which speaks HTTP/2 (`connection.rs`) over what was dialed (`dial.rs`, `tls.rs`,
//! `connect_backoff.rs`), with a peer that is asked whether it is there (`liveness.rs`,
//! `ping.rs`). What is cancelled there is reset at a pace that no service takes for an
//! attack (`cancelled.rs`, `pacer.rs`).
//!
//! This is built on h2 rather than on tonic's client and hyper, for three
//! reasons. A failed call must say whether it ever left and whether a status came
//! from the tool: those layers blur both. A hostile reply must cost its own call:
//! tonic's client panics on some. And a call's cost is the product: a task, two
//! channels and several allocations per call fall away.

mod address;
mod address_pool;
mod balance;
mod cancelled;
mod connect_backoff;
mod connection;
mod dial;
mod eject;
mod linger;
mod liveness;
mod network;
mod pacer;
mod ping;
mod pool;
mod resolve;
mod tls;
mod upstream;

pub(crate) use connection::Outgoing;
pub(crate) use eject::Answers;
pub(crate) use linger::{Linger, Lingers};
pub(crate) use network::OneAddress;
pub(crate) use upstream::{AddressHealth, Apart, InFlight, NoConnection, Terms};

pub use address::Address;
pub use network::{Connect, Internet, Io, Network};
pub use upstream::{Connectivity, Upstream};
