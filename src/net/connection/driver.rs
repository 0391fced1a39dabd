//! The task that drives a connection: it looks after its peer, and after the calls that
//! nobody waits for any more.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::{Reason, client::Connection};
use tokio::sync::Notify;

use super::{State, Wire};
use crate::net::{
    address::Draining,
    cancelled::{Cancelled, Next},
    liveness::{Liveness, Step},
};

/// Connections to an address that get no more calls and still have some. Beyond them,
/// those that are worn go on.
const MAX_DRAINING: usize = 64;

/// Drives a connection until it ends. Dropping it fails the calls on it.
pub(crate) struct Driver {
    pub(super) connection: Connection<Wire, Bytes>,
    pub(super) liveness: Liveness,
    pub(super) cancelled: Cancelled,
    /// Those on it go on, and there will be no others.
    pub(super) draining: Option<Draining>,
    pub(super) state: Arc<State>,
    /// Told of each change of what calls may wait for.
    pub(super) changed: Arc<Notify>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer did not answer within that time.
    Silent(Duration),
    /// The peer complained of pings.
    TooManyPings,
    Closed,
}

impl Future for Driver {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
        let this = &mut *self;
        loop {
            let wanted = this.state.signals.wanted();
            if let Poll::Ready(result) = this.connection.poll_unpin(context) {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection to a tool service broke");
                }
                return Poll::Ready(this.reason());
            }
            this.note_limit();
            let has_calls = this.state.calls.load(Ordering::Relaxed) > 0;
            let step = this
                .liveness
                .poll(&mut this.connection, wanted, has_calls, context);
            match step {
                Poll::Ready(Step::Asked) => continue,
                Poll::Ready(Step::Silent(limit)) => {
                    let reason = format!("the service did not answer within {limit:?}");
                    this.state.heard.give_up(reason);
                    // Has the calls fail for this reason.
                    let _ = this.connection.poll_unpin(context);
                    return Poll::Ready(End::Silent(limit));
                }
                Poll::Pending => {}
            }
            match this.reset_the_cancelled(context) {
                Next::Send => {}
                Next::Close => return Poll::Ready(End::Closed),
                Next::Wait => return Poll::Pending,
            }
        }
    }
}

impl Driver {
    /// SETTINGS may have come.
    fn note_limit(&self) {
        let limit = self.connection.max_concurrent_send_streams();
        if self.state.limit.load(Ordering::Relaxed) != limit {
            self.state.limit.store(limit, Ordering::Relaxed);
            self.changed.notify_waiters();
        }
    }

    fn reset_the_cancelled(&mut self, context: &mut Context<'_>) -> Next {
        let state = &self.state;
        self.cancelled.take(context);
        let before = self.cancelled.len();
        if before == 0 && self.draining.is_none() {
            return Next::Wait;
        }
        let calls = state.calls.load(Ordering::Relaxed);
        let ended = state.begun.load(Ordering::Relaxed).wrapping_sub(calls);
        if self.draining.is_none() && self.cancelled.is_worn(ended) {
            self.draining = state.address.drain(MAX_DRAINING);
            if self.draining.is_some() {
                tracing::debug!(address = %state.address, "a connection is worn by cancels");
                state.worn.store(true, Ordering::Relaxed);
                let endpoint = state.address.endpoint();
                endpoint.worn.fetch_add(1, Ordering::Relaxed);
                state.closed.store(true, Ordering::Relaxed);
                self.changed.notify_waiters();
            }
        }
        if self.draining.is_some() && calls == before {
            // That ends them all at once.
            return Next::Close;
        }
        let next = self.cancelled.poll(context, ended);
        let gone = before - self.cancelled.len();
        state.calls.fetch_sub(gone, Ordering::Relaxed);
        next
    }

    /// Why it ended.
    fn reason(&self) -> End {
        match self.state.heard.error() {
            Some(error)
                if error.code == Reason::ENHANCE_YOUR_CALM
                    && error.debug_data == "too_many_pings" =>
            {
                End::TooManyPings
            }
            _ => End::Closed,
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::Relaxed);
        self.state.signals.end();
        let left = self.cancelled.give_up();
        self.state.calls.fetch_sub(left, Ordering::Relaxed);
        self.changed.notify_waiters();
    }
}
