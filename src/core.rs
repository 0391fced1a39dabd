//! The orchestration: a batch of calls in, one outcome per call out. It is made of tokio
//! and std, and knows neither how calls come and go nor who watches them.

pub mod admission;
pub mod aggregate;
pub mod buffered;
pub mod call;
pub mod connections;
pub mod deadline;
pub mod drain;
pub mod error;
pub mod fanout;
pub mod observer;
pub(crate) mod overflow;
pub mod reservation;
pub mod status;
pub mod suggest;
pub(crate) mod worker;
pub mod workers;
