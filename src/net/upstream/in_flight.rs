//! A call that was sent: how it ends, and what becomes of its stream when it does not.

use h2::RecvStream;
use http::Response;
use tokio::time::Instant;

use super::Upstream;
use crate::net::{address::Address, connection::Call, eject::Answers, linger::Lingers};

/// What the upstream has to know of the call that it sends.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'a> {
    /// When the call ends.
    pub(crate) deadline: Instant,
    /// The answers of its tool.
    pub(crate) answers: &'a Answers,
    pub(crate) call: &'a dyn Lingers,
}

/// What the end of an attempt says of the address that was called, or of a proxy in
/// front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressHealth {
    /// It answers.
    Works,
    /// It failed.
    Fails,
    /// Nothing, as when it shuts down in good order.
    Unknown,
}

/// An attempt that was sent. Dropped before [`ended`](Self::ended), it was cancelled or
/// ran out of time.
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
    pub(crate) async fn response(&mut self) -> Result<Response<RecvStream>, h2::Error> {
        self.call.response().await
    }

    /// Takes note that the stream has ended, so that there is nothing to reset.
    pub(crate) fn is_over(&mut self) {
        self.call.is_over();
    }

    /// Takes note of how the attempt ended.
    pub(crate) fn ended(mut self, health: AddressHealth) {
        self.ended = true;
        let address = self.call.address();
        match health {
            AddressHealth::Works => {
                self.terms.answers.note();
                if address.is_suspect() {
                    self.upstream.ended(address, false);
                }
            }
            AddressHealth::Fails => self.upstream.ended(address, true),
            AddressHealth::Unknown => {}
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let Terms {
            deadline,
            answers,
            call,
        } = self.terms;
        if !self.ended && Instant::now() >= deadline {
            self.upstream.timed_out(&self.call, answers);
        }
        self.call.cancel(|now| call.linger(now));
    }
}
