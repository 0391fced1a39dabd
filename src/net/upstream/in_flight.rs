//! A call that was sent: how it ends, and what becomes of its stream when it does not.

use std::sync::Arc;

use h2::RecvStream;
use http::Response;
use tokio::time::Instant;

use super::Upstream;
use crate::{
    core::fanout::Invocation,
    net::{address::Address, connection::Call, eject::Answers, linger::Linger},
    policy::bulkhead::Bulkhead,
    tool::fanfare::failure::Fault,
};

/// For whom something is sent.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) invocation: &'a Invocation,
    /// Of its tool.
    pub(crate) answers: &'a Answers,
    pub(crate) bulkhead: &'a Arc<Bulkhead>,
}

/// An attempt at a call that was sent. If nobody has said how it ended when it is
/// dropped, it was cancelled or ran out of time.
pub(crate) struct InFlight<'a> {
    upstream: &'a Upstream,
    call: Call,
    terms: Terms<'a>,
    ended: bool,
}

impl<'a> InFlight<'a> {
    pub(super) fn new(upstream: &'a Upstream, call: Call, terms: Terms<'a>) -> Self {
        Self {
            upstream,
            call,
            terms,
            ended: false,
        }
    }

    /// Where the attempt went.
    pub(crate) fn address(&self) -> &Address {
        self.call.address()
    }

    /// What the service answers.
    pub(crate) async fn response(&mut self) -> Result<Response<RecvStream>, Fault> {
        self.call.response().await.map_err(Fault::unanswered)
    }

    /// Notes that its stream has ended: there is nothing to reset.
    pub(crate) fn is_over(&mut self) {
        self.call.is_over();
    }

    /// Notes how the attempt ended: with an answer, or with this fault. To be left
    /// out if it did not end.
    pub(crate) fn ended(mut self, fault: Option<&Fault>) {
        self.ended = true;
        let address = self.call.address();
        let speaks_against_it = fault.map_or(Some(false), Fault::speaks_against_address);
        if speaks_against_it == Some(false) {
            self.terms.answers.note();
        }
        match speaks_against_it {
            Some(true) => {
                tracing::debug!(address = %self.address(), ?fault, "a call was lost");
                self.upstream.ended(address, true);
            }
            Some(false) if address.is_suspect() => self.upstream.ended(address, false),
            _ => {}
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let Terms {
            invocation,
            answers,
            bulkhead,
        } = self.terms;
        if !self.ended && Instant::now() >= invocation.deadline().at {
            self.upstream.timed_out(&self.call, answers);
        }
        self.call
            .cancel(|now| Linger::of(invocation, bulkhead, now));
    }
}
