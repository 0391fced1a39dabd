//! A response body whose end is the end of its RPC.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Frame, SizeHint};
use tonic::{Code, Status};

use super::{Rpc, status};

/// A response body that ends its RPC, if there is one.
pub(crate) struct Ending<B> {
    inner: B,
    rpc: Option<Rpc>,
}

impl<B> Ending<B> {
    /// The body of `rpc`.
    pub(super) fn of(rpc: Rpc, inner: B) -> Self {
        let rpc = Some(rpc);
        Self { inner, rpc }
    }

    /// The body of a response to something that is not an RPC.
    pub(crate) fn of_none(inner: B) -> Self {
        Self { inner, rpc: None }
    }
}

impl<B> http_body::Body for Ending<B>
where
    B: http_body::Body<Error = Status> + Unpin,
{
    type Data = B::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(rpc) = &mut self.rpc {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        rpc.end(status(trailers).unwrap_or(Code::Unknown));
                    }
                }
                Some(Err(status)) => rpc.end(status.code()),
                None => rpc.end(Code::Unknown),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
