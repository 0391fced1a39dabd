//! The answers of the RPCs that run calls: from the bytes of a request to the frames of
//! the response.
//!
//! tonic's server does the same for any service and any stream of messages, for which it
//! boxes and converts what here is known: a tenth of what a request with one call costs.
//! It still serves the rest, and compressed responses.

use std::{
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use http_body::Frame;
use prost::Message;
use tokio_stream::Stream as _;
use tonic::{Status, body::Body};

use super::{
    Orchestrator, RequestContext,
    stream::CompletionStream,
    wire::{codec, status::malformed},
};
use crate::pb;

/// The compressed flag and the length of a message.
const PREFIX_BYTES: usize = 5;

/// How an RPC that runs calls answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Once,
    Stream,
}

impl Orchestrator {
    /// Runs the calls of an encoded request. The future ends by the request's deadline.
    pub(crate) async fn answer(
        self: Arc<Self>,
        answer: Answer,
        request: Bytes,
        context: RequestContext,
    ) -> Response<Body> {
        let body = self.body(answer, request, context);
        match body.await {
            Ok(body) => {
                let mut response = Response::new(Body::new(body));
                let grpc = HeaderValue::from_static("application/grpc");
                response.headers_mut().insert(CONTENT_TYPE, grpc);
                response
            }
            Err(status) => status.into_http(),
        }
    }

    async fn body(
        &self,
        answer: Answer,
        request: Bytes,
        context: RequestContext,
    ) -> Result<AnswerBody, Status> {
        // The arguments are slices of it, which would keep alive all that was read from the
        // connection with it.
        let request = if request.is_unique() {
            request
        } else {
            Bytes::copy_from_slice(&request)
        };
        let request = pb::ExecuteToolsRequest::decode(request)
            .map_err(|error| malformed(&error.to_string()))?;
        let context = Some(context);
        match answer {
            Answer::Once => {
                let mut message = Vec::new();
                put(&mut message, &self.execute(request, context).await?);
                Ok(AnswerBody::Once(message.into()))
            }
            Answer::Stream => Ok(AnswerBody::Stream(self.stream(request, context).await?)),
        }
    }
}

/// Appends a message with its prefix.
fn put(bytes: &mut Vec<u8>, message: &impl Message) {
    let length = message.encoded_len();
    bytes.reserve_exact(PREFIX_BYTES + length);
    bytes.push(0);
    // The limit on responses is lower.
    let prefix = u32::try_from(length).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&prefix.to_be_bytes());
    message.encode_raw(bytes);
}

/// The body of an answer that has begun.
enum AnswerBody {
    Once(Bytes),
    Stream(CompletionStream),
    /// Only the trailers are missing.
    Trailers(Result<(), Status>),
    Ended,
}

impl AnswerBody {
    /// The messages that are there, up to about as many as are sent at once; `None` if
    /// none follows.
    fn poll_messages(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let messages = match self {
            Self::Once(message) => {
                let message = mem::take(message);
                *self = Self::Trailers(Ok(()));
                return Poll::Ready(Some(message));
            }
            Self::Stream(messages) => messages,
            Self::Trailers(_) | Self::Ended => return Poll::Ready(None),
        };
        let mut bytes = Vec::new();
        while bytes.len() < codec::YIELD_BYTES {
            match pin!(&mut *messages).poll_next(context) {
                Poll::Ready(Some(Ok(message))) => put(&mut bytes, &message),
                Poll::Pending if bytes.is_empty() => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(end) => {
                    *self = Self::Trailers(end.map_or(Ok(()), |end| end.map(drop)));
                    break;
                }
            }
        }
        Poll::Ready((!bytes.is_empty()).then(|| bytes.into()))
    }

    fn trailers(&mut self) -> Option<Result<HeaderMap, Status>> {
        let Self::Trailers(end) = mem::replace(self, Self::Ended) else {
            return None;
        };
        let mut trailers = HeaderMap::with_capacity(1);
        Some(match end {
            Ok(()) => {
                trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
                Ok(trailers)
            }
            Err(status) => status.add_header(&mut trailers).map(|()| trailers),
        })
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.poll_messages(context).map(|messages| match messages {
            Some(messages) => Some(Ok(Frame::data(messages))),
            None => Some(self.trailers()?.map(Frame::trailers)),
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Ended)
    }
}
