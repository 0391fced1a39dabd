//! One unary call over gRPC, whatever its messages are: a request is put into gRPC's
//! framing (`request.rs`), what comes back is read (`reply.rs`, or `messages.rs` if it is
//! a stream) and held (`observation.rs`), a failure tells whose it was (`failure.rs`);
//! others than the tool may have answered (`not_grpc.rs`).

pub(super) mod failure;
pub(super) mod messages;
mod not_grpc;
pub(super) mod observation;
pub(super) mod reply;
pub(super) mod request;

use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;

use self::failure::Fault;
use super::attempt::Attempt;
use crate::{
    net::{AddressHealth, Answers, InFlight, Upstream},
    policy::Failure,
};

/// Sends an attempt to the method `path` of `upstream`: what `framed` makes, in one piece or
/// two. `answers` are those of its tool.
///
/// # Errors
/// If there is no connection.
pub(super) async fn send<'a, 'call: 'a>(
    attempt: &mut Attempt<'call>,
    upstream: &'a Arc<Upstream>,
    answers: &'a Answers,
    path: &PathAndQuery,
    framed: impl Fn(&Attempt<'_>) -> (Bytes, Option<Bytes>),
) -> Result<InFlight<'a>, Failure> {
    let terms = attempt.terms(answers);
    let this = &*attempt;
    let request = |uri, max_header_list| {
        let gzip = upstream.gzip();
        let (deadline, context) = (this.deadline(), this.context());
        request::request(uri, max_header_list, deadline, framed(this), gzip, context)
    };
    let sending = upstream.send(this.last_address(), terms, path, request);
    let in_flight = sending.await?;
    attempt.sent(Some(in_flight.address()));
    Ok(in_flight)
}

/// Ends an attempt that was sent, which came to `outcome`; replies may have `max_bytes`.
pub(super) async fn end(
    attempt: &Attempt<'_>,
    mut in_flight: InFlight<'_>,
    outcome: Result<Bytes, Fault>,
    max_bytes: usize,
) -> Result<Bytes, Failure> {
    let classified = match outcome {
        Ok(observation) => {
            in_flight.is_over();
            in_flight.ended(AddressHealth::Works);
            return Ok(observation);
        }
        Err(fault) => fault.classify(max_bytes),
    };
    if classified.ends_stream {
        in_flight.is_over();
    }
    if classified.may_be_of_expiry && attempt.is_near_deadline() {
        if classified.ends_connection {
            in_flight.ended(classified.address);
            return attempt.expire().await;
        }
        // Dropped with the call: that it ran out of time counts against its address.
        let _in_flight = in_flight;
        return attempt.expire().await;
    }
    if classified.address == AddressHealth::Fails {
        let address = in_flight.address();
        tracing::debug!(%address, error = classified.failure.message, "a call was lost");
    }
    in_flight.ended(classified.address);
    Err(classified.failure)
}
