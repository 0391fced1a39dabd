//! A call that was sent: how it ends, and what becomes of its stream when it does not.

use std::sync::Arc;

use h2::RecvStream;
use http::Response;
use tokio::time::Instant;

use super::Upstream;
use crate::{
    fanout::Invocation,
    tool::{
        address::Address, bulkhead::Bulkhead, eject::Answers, failure::Fault, linger::Linger,
        link::Call,
    },
};

/// For whom something is sent.
#[derive(Clone, Copy)]
pub(in crate::tool) struct Terms<'a> {
    pub(in crate::tool) invocation: &'a Invocation,
    /// Of its tool.
    pub(in crate::tool) answers: &'a Answers,
    pub(in crate::tool) bulkhead: &'a Arc<Bulkhead>,
}

/// An attempt at a call that was sent. If nobody has said how it ended when it is
/// dropped, it was cancelled or ran out of time.
pub(in crate::tool) struct Lease<'a> {
    upstream: &'a Upstream,
    call: Call,
    terms: Terms<'a>,
    ended: bool,
}

impl<'a> Lease<'a> {
    pub(super) fn new(upstream: &'a Upstream, call: Call, terms: Terms<'a>) -> Self {
        Self {
            upstream,
            call,
            terms,
            ended: false,
        }
    }

    /// Where the attempt went.
    pub(in crate::tool) fn address(&self) -> &Address {
        self.call.address()
    }

    /// What the service answers.
    pub(in crate::tool) async fn response(&mut self) -> Result<Response<RecvStream>, Fault> {
        self.call.response().await.map_err(Fault::unanswered)
    }

    /// Notes that its stream has ended: there is nothing to reset.
    pub(in crate::tool) fn is_over(&mut self) {
        self.call.is_over();
    }

    /// Notes how the attempt ended: with an answer, or with this fault. To be left
    /// out if it did not end.
    pub(in crate::tool) fn ended(mut self, fault: Option<&Fault>) {
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

impl Drop for Lease<'_> {
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
