//! Watches a tool's reply on its way into tonic's client: notes what only the
//! transport knows, and stops what tonic would not survive.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tonic::{Code, Status};

/// What was seen of a reply.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The tool, or a proxy before it, sent a `grpc-status` other than OK.
    pub(super) failed: bool,
    /// Why the reply can't be used, if that was found.
    pub(super) fault: Option<Fault>,
}

/// Why a reply can't be used.
#[derive(Debug)]
pub(super) enum Fault {
    /// The transport failed.
    Transport(hyper::Error),
    /// An HTTP response that is not gRPC.
    NotGrpc { status: StatusCode },
    /// The message is longer than it may be.
    TooLarge { bytes: u64 },
    /// The message is compressed, which was not offered.
    Compressed,
    /// There is something after the message.
    SecondMessage,
}

/// Shared between the reply's body, which tonic owns, and the call.
pub(super) type Watch = Arc<Mutex<Seen>>;

/// Takes what was seen.
pub(super) fn take(watch: &Watch) -> Seen {
    std::mem::take(&mut *watch.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Notes a fault, and returns the error that ends tonic's part.
pub(super) fn fail(watch: &Watch, fault: Fault) -> Status {
    let mut seen = watch.lock().unwrap_or_else(PoisonError::into_inner);
    seen.fault = Some(fault);
    Status::internal("the reply can't be used")
}

/// Puts a reply under watch.
///
/// # Errors
/// If it is not gRPC.
pub(super) fn watch_reply(
    reply: http::Response<Incoming>,
    watch: Watch,
    max_bytes: usize,
) -> Result<http::Response<ReplyBody>, Status> {
    let (mut head, body) = reply.into_parts();
    let is_grpc = head
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if head.status != StatusCode::OK || !is_grpc {
        let status = head.status;
        return Err(fail(&watch, Fault::NotGrpc { status }));
    }
    note_status(&mut head.headers, &watch);
    let body = ReplyBody {
        inner: body,
        watch,
        max_bytes,
        prefix: Prefix::default(),
    };
    Ok(http::Response::from_parts(head, body))
}

/// A reply's body: one gRPC message, then trailers.
pub(super) struct ReplyBody {
    inner: Incoming,
    watch: Watch,
    max_bytes: usize,
    prefix: Prefix,
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        let checked = match frame {
            Err(error) => Err(Fault::Transport(error)),
            Ok(mut frame) => {
                let max_bytes = self.max_bytes;
                if let Some(data) = frame.data_ref() {
                    self.prefix.check(data.clone(), max_bytes).map(|()| frame)
                } else {
                    if let Some(trailers) = frame.trailers_mut() {
                        note_status(trailers, &self.watch);
                    }
                    Ok(frame)
                }
            }
        };
        Poll::Ready(Some(checked.map_err(|fault| fail(&self.watch, fault))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Follows the length-prefixed framing of gRPC: a byte that flags compression,
/// four of length, the message.
#[derive(Debug, Default)]
struct Prefix {
    bytes: [u8; 5],
    filled: usize,
    message_left: u64,
}

impl Prefix {
    fn check(&mut self, mut data: Bytes, max_bytes: usize) -> Result<(), Fault> {
        while self.filled < self.bytes.len() && data.has_remaining() {
            self.bytes[self.filled] = data.get_u8();
            self.filled += 1;
            if self.filled == self.bytes.len() {
                let [flag, length @ ..] = self.bytes;
                let length = u32::from_be_bytes(length);
                if flag != 0 {
                    return Err(Fault::Compressed);
                }
                if usize::try_from(length).unwrap_or(usize::MAX) > max_bytes {
                    let bytes = u64::from(length);
                    return Err(Fault::TooLarge { bytes });
                }
                self.message_left = u64::from(length);
            }
        }
        match self.message_left.checked_sub(data.remaining() as u64) {
            Some(left) => self.message_left = left,
            None => return Err(Fault::SecondMessage),
        }
        Ok(())
    }
}

/// Notes whether the tool failed, and mends what tonic's client can't read of
/// its status.
fn note_status(headers: &mut HeaderMap, watch: &Watch) {
    let Some(code) = headers.get(Status::GRPC_STATUS) else {
        return;
    };
    if Code::from_bytes(code.as_bytes()) != Code::Ok {
        let mut seen = watch.lock().unwrap_or_else(PoisonError::into_inner);
        seen.failed = true;
    }
    mend_details(headers);
    mend_message(headers);
}

/// Drops details that are not base64: tonic's client panics on them.
fn mend_details(headers: &mut HeaderMap) {
    // As tonic reads them: padded or not.
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    if let Some(details) = headers.get(Status::GRPC_STATUS_DETAILS)
        && ENGINE.decode(details).is_err()
    {
        headers.remove(Status::GRPC_STATUS_DETAILS);
    }
}

/// Escapes a message that does not decode to UTF-8, so that it is read as it was
/// sent: tonic's client would lose the tool's code with it.
fn mend_message(headers: &mut HeaderMap) {
    let Some(message) = headers.get(Status::GRPC_MESSAGE) else {
        return;
    };
    let probe = [
        (Status::GRPC_STATUS, HeaderValue::from_static("0")),
        (Status::GRPC_MESSAGE, message.clone()),
    ];
    let read = Status::from_header_map(&probe.into_iter().collect());
    if read.is_some_and(|status| status.code() == Code::Ok) {
        return;
    }
    let escaped = String::from_utf8_lossy(message.as_bytes()).replace('%', "%25");
    if let Ok(escaped) = HeaderValue::from_maybe_shared(Bytes::from(escaped)) {
        headers.insert(Status::GRPC_MESSAGE, escaped);
    }
}
