//! Streams that end only when their caller ends them, and how they end otherwise: with
//! their connection, which a drain or its age ends, or when they are old enough.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, Sleep, sleep_until},
};
use tonic::{Status, body::Body};

use super::leftover::Inbound;
use crate::{
    core::buffered::Held,
    orchestrator::wire::status::{draining, stream_is_old},
};

/// The right to one such stream, and what ends it.
pub(super) struct OpenEnded {
    drained: BoxFuture<'static, ()>,
    deadline: Option<Pin<Box<Sleep>>>,
    _right: (OwnedSemaphorePermit, Held),
    /// Tells by being dropped: see [`UntilAnswered`].
    answering: Option<oneshot::Sender<()>>,
}

impl OpenEnded {
    /// What such a stream takes in memory; tonic's buffers are most of it.
    pub(super) const BYTES: usize = 32 << 10;

    /// A stream that ends when `drained` comes true, and at `deadline`.
    pub(super) fn new(
        drained: BoxFuture<'static, ()>,
        deadline: Option<Instant>,
        right: (OwnedSemaphorePermit, Held),
    ) -> Self {
        Self {
            drained,
            deadline: deadline.map(|at| Box::pin(sleep_until(at))),
            _right: right,
            answering: None,
        }
    }

    /// The response of the stream.
    pub(super) fn of(self, response: Response<Body>) -> Response<Body> {
        if http_body::Body::is_end_stream(response.body()) {
            return response;
        }
        response.map(|inner| {
            Body::new(UntilEnded {
                inner,
                stream: self,
                ended: false,
            })
        })
    }

    /// Why it is to end, if it is.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        if self.drained.as_mut().poll(context).is_ready() {
            return Poll::Ready(draining());
        }
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(context).map(|()| stream_is_old()),
            None => Poll::Pending,
        }
    }
}

/// A response that ends when its stream has to.
struct UntilEnded {
    inner: Body,
    stream: OpenEnded,
    ended: bool,
}

impl http_body::Body for UntilEnded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // What is ready goes first: a watcher has to see NOT_SERVING.
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            return Poll::Ready(frame);
        }
        self.stream.poll_end(context).map(|status| {
            self.ended = true;
            let mut trailers = HeaderMap::new();
            Some(match status.add_header(&mut trailers) {
                Ok(()) => Ok(Frame::trailers(trailers)),
                Err(status) => Err(status),
            })
        })
    }

    /// Or an answer that has no body would get one, and lose its status on the way:
    /// it is in the headers, where clients look only if these end the stream.
    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }
}

/// A request whose body ends with its response. Reflection reads on, in a task of
/// its own, as long as the caller might ask more; the stream would stay open, and
/// a drain would wait for it.
pub(super) struct UntilAnswered {
    inner: Option<Incoming>,
    answered: oneshot::Receiver<()>,
}

impl UntilAnswered {
    pub(super) fn new(body: Inbound, stream: &mut OpenEnded) -> Self {
        let (answering, answered) = oneshot::channel();
        stream.answering = Some(answering);
        Self {
            inner: body.into_incoming(),
            answered,
        }
    }
}

impl http_body::Body for UntilAnswered {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(inner).poll_frame(context);
        if frame.is_pending() {
            return self.answered.poll_unpin(context).map(|_| None);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
