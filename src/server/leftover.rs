//! What is left of a request's body when its answer is complete.
//!
//! If nobody read it, h2 would reset the stream and forget it, and answer each DATA
//! frame that still comes for it with another reset. Those count over the life of the
//! connection, and after 1024 it ends, for the calls of others as well. A gateway that
//! multiplexes many callers gets there within seconds. So what is left is read and
//! thrown away, up to a bound.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::poll_fn;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{runtime::Handle, time::timeout};

use crate::core::{buffered::Buffered, overflow::Overflow};

/// Long enough for a caller to hear that it has its answer, and to stop.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a stream takes meanwhile, for the task and in h2.
const STREAM_BYTES: usize = 2 << 10;
/// What all of them may take.
const MAX_BYTES: usize = 16 << 20;

/// Who reads what is left, for as many requests at a time as there is memory for.
#[derive(Clone, Debug)]
pub(super) struct Leftovers {
    memory: Buffered,
    /// Of one request.
    max_bytes: usize,
}

impl Leftovers {
    /// At most `max_bytes` of each request are read.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            memory: Buffered::new(MAX_BYTES),
            max_bytes,
        }
    }
}

/// The body of a request, whose rest is read after it is dropped.
#[derive(Debug)]
pub(super) struct Inbound {
    body: Option<Incoming>,
    leftovers: Leftovers,
}

impl Inbound {
    pub(super) fn new(body: Incoming, leftovers: Leftovers) -> Self {
        Self {
            body: Some(body),
            leftovers,
        }
    }

    /// The body alone: what is left of it is nobody's business.
    pub(super) fn into_incoming(mut self) -> Option<Incoming> {
        self.body.take()
    }
}

impl http_body::Body for Inbound {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.as_ref().map(Incoming::size_hint);
        hint.unwrap_or_else(|| SizeHint::with_exact(0))
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        // Outside of a runtime there is no connection either.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let Some(held) = self.leftovers.memory.try_hold(STREAM_BYTES) else {
            Overflow::UnreadBodies.count();
            let throttle = "unread_bodies";
            tracing::warn!(
                throttle,
                "too many requests send on although they are answered"
            );
            return;
        };
        let max_bytes = self.leftovers.max_bytes;
        runtime.spawn(async move {
            let _ = timeout(PATIENCE, throw_away(body, max_bytes)).await;
            drop(held);
        });
    }
}

/// Until the end of the body, its caller gives up, or it is too long.
async fn throw_away(mut body: Incoming, max_bytes: usize) {
    let mut bytes = 0;
    while bytes <= max_bytes {
        let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(Ok(frame)) = frame else { return };
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}
