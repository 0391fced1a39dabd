//! Streams that end only when their caller ends them, and how they end otherwise:
//! a drain does not wait for them.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tonic::{Status, body::Body};

use crate::wire::status::draining;

/// A response that ends in UNAVAILABLE when the server drains.
pub(super) struct UntilDrain {
    inner: Body,
    drained: BoxFuture<'static, ()>,
    ended: bool,
    /// Tells by being dropped: see [`UntilAnswered`].
    _answering: Option<oneshot::Sender<()>>,
}

impl UntilDrain {
    pub(super) fn new(
        inner: Body,
        drained: BoxFuture<'static, ()>,
        answering: Option<oneshot::Sender<()>>,
    ) -> Self {
        Self {
            inner,
            drained,
            ended: false,
            _answering: answering,
        }
    }
}

impl http_body::Body for UntilDrain {
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
        ready!(self.drained.as_mut().poll(context));
        self.ended = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(match draining().add_header(&mut trailers) {
            Ok(()) => Some(Ok(Frame::trailers(trailers))),
            Err(status) => Some(Err(status)),
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
    pub(super) inner: Incoming,
    pub(super) answered: oneshot::Receiver<()>,
}

impl http_body::Body for UntilAnswered {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if frame.is_pending() {
            return self.answered.poll_unpin(context).map(|_| None);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
