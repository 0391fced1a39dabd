//! Request bodies, drained after the response.
//!
//! If nobody read the rest of a body, h2 would reset the stream, forget it, and answer
//! each further DATA frame with another reset. It counts these over the life of the
//! connection and closes that after 1024, with the calls of everybody on it; behind a
//! gateway that multiplexes many callers, this takes seconds. So the rest is read and
//! discarded, up to a bound.

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

/// Long enough for a caller to receive the response and stop sending.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// The memory of a stream while it is drained: its task, and its state in h2.
const STREAM_BYTES: usize = 2 << 10;
/// The memory of all streams that are drained.
const MAX_STREAMS_BYTES: usize = 16 << 20;

/// Limits how many bodies are drained at a time, and how much of each.
#[derive(Clone, Debug)]
pub(super) struct BodyDrain {
    memory: Buffered,
    max_body_bytes: usize,
}

impl BodyDrain {
    pub(super) fn new(max_body_bytes: usize) -> Self {
        Self {
            memory: Buffered::new(MAX_STREAMS_BYTES),
            max_body_bytes,
        }
    }
}

/// A request body that is drained when it is dropped before its end.
#[derive(Debug)]
pub(super) struct RequestBody {
    inner: Option<Incoming>,
    drain: BodyDrain,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, drain: BodyDrain) -> Self {
        Self {
            inner: Some(body),
            drain,
        }
    }

    /// The bare body, which is not drained.
    pub(super) fn into_incoming(mut self) -> Option<Incoming> {
        self.inner.take()
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.inner {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.inner.as_ref().map(Incoming::size_hint);
        hint.unwrap_or_else(|| SizeHint::with_exact(0))
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Some(body) = self.inner.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        // Without a runtime, the connection is gone as well.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let Some(held) = self.drain.memory.try_hold(STREAM_BYTES) else {
            Overflow::UnreadBodies.count();
            let throttle = "unread_bodies";
            tracing::warn!(
                throttle,
                "too many callers are still sending requests that have been answered"
            );
            return;
        };
        let max_bytes = self.drain.max_body_bytes;
        runtime.spawn(async move {
            let _ = timeout(DRAIN_TIMEOUT, drain(body, max_bytes)).await;
            drop(held);
        });
    }
}

/// Reads until the body ends, fails, or is too long.
async fn drain(mut body: Incoming, max_bytes: usize) {
    let mut bytes = 0;
    while bytes <= max_bytes {
        let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(Ok(frame)) = frame else { return };
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}
