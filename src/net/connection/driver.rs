//! The task that drives a connection, checks that its peer is alive, and resets the
//! streams of cancelled calls.

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

/// How many connections to an address may take no new calls while they still carry some.
/// Beyond that, worn connections stay in use.
const MAX_DRAINING: usize = 64;

/// Drives a connection until it ends. Dropping it fails the calls on it.
pub(crate) struct Driver {
    pub(super) connection: Connection<Wire, Bytes>,
    pub(super) liveness: Liveness,
    pub(super) cancelled: Cancelled,
    /// Set when it takes no new calls; those on it continue.
    pub(super) draining: Option<Draining>,
    pub(super) state: Arc<State>,
    /// Notified of what calls may wait for.
    pub(super) changed: Arc<Notify>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer did not answer within that time.
    Silent(Duration),
    /// The peer sent GOAWAY with too_many_pings.
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
                    this.state.frames.abort(reason);
                    // The calls fail with this reason.
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
    /// The peer may have changed its SETTINGS.
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
            // Ends all calls at once.
            return Next::Close;
        }
        let next = self.cancelled.poll(context, ended);
        let gone = before - self.cancelled.len();
        state.calls_end(gone);
        next
    }

    /// Why it ended.
    fn reason(&self) -> End {
        match self.state.frames.goaway() {
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
        self.state.calls_end(left);
        self.changed.notify_waiters();
    }
}
