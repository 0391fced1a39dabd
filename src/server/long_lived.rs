//! Long-lived streams: health watches and reflection. Their caller ends them. Otherwise
//! they end with their connection, on drain or by age, or at a deadline.

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

use super::request_body::RequestBody;
use crate::{
    core::buffered::Held,
    orchestrator::wire::status::{draining, stream_is_old},
};

/// A long-lived stream: its permit, its memory, and what ends it.
pub(super) struct LongLived {
    drained: BoxFuture<'static, ()>,
    deadline: Option<Pin<Box<Sleep>>>,
    _permit: (OwnedSemaphorePermit, Held),
    /// Ends the request body when dropped.
    answering: Option<oneshot::Sender<()>>,
}

impl LongLived {
    /// The memory of such a stream, most of it tonic's buffers.
    pub(super) const BYTES: usize = 32 << 10;

    /// A stream that ends when `drained` completes, and at `deadline`.
    pub(super) fn new(
        drained: BoxFuture<'static, ()>,
        deadline: Option<Instant>,
        permit: (OwnedSemaphorePermit, Held),
    ) -> Self {
        Self {
            drained,
            deadline: deadline.map(|at| Box::pin(sleep_until(at))),
            _permit: permit,
            answering: None,
        }
    }

    /// Has `body` end with the response.
    pub(super) fn request(&mut self, body: RequestBody) -> Body {
        let (answering, answered) = oneshot::channel();
        self.answering = Some(answering);
        Body::new(UntilAnswered {
            inner: body.into_incoming(),
            answered,
        })
    }

    /// Has `response` end with the stream.
    pub(super) fn response(self, response: Response<Body>) -> Response<Body> {
        if http_body::Body::is_end_stream(response.body()) {
            return response;
        }
        response.map(|inner| {
            Body::new(LongLivedBody {
                inner,
                stream: self,
                ended: false,
            })
        })
    }

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

struct LongLivedBody {
    inner: Body,
    stream: LongLived,
    ended: bool,
}

impl http_body::Body for LongLivedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // Messages before the end: a watcher has to see NOT_SERVING.
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

    /// Keeps a trailers-only response what it is: clients look for the status in the
    /// headers only if these end the stream.
    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }
}

/// A request body that ends with its response. The task of reflection reads as long as
/// the caller may send more, which would keep the stream open and hold up a drain.
struct UntilAnswered {
    inner: Option<Incoming>,
    answered: oneshot::Receiver<()>,
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
