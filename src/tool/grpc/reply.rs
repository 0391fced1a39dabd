//! A tool's reply to one unary call
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>): HEADERS, one
//! length-prefixed message, trailers with the status; or something else.

use std::time::Duration;

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::{Buf as _, Bytes, BytesMut};
use h2::RecvStream;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header::CONTENT_TYPE, response::Parts,
};
use percent_encoding::percent_decode;
use tokio::time::timeout;
use tonic::Status;

use super::{
    failure::{self, Fault},
    not_grpc,
    request::{COMPRESSED, ENCODING, PREFIX_BYTES},
};
use crate::{
    core::{
        buffered::{Buffered, Held},
        error::{MAX_TOOL_DETAILS_BYTES, ToolStatus},
        status::Code,
    },
    transport::gzip::{InflateError, inflate, max_compressed},
};

const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// The page is read for what it says, and because a gRPC status may still follow it;
/// one that does not end is not waited for.
const PAGE_TIME: Duration = Duration::from_secs(1);

/// A reply: the encoded `CallToolResponse`.
pub(crate) struct Reply {
    pub(crate) message: Bytes,
    /// What it holds; `None` if it is a slice of the connection's read buffer.
    pub(crate) held: Option<Held>,
}

/// Reads a reply of at most `max_bytes`, which is held out of `buffered` as it
/// arrives. A gRPC status decides wherever it is, whatever HTTP says beside it.
///
/// # Errors
/// If the tool failed, its reply is not what it should be, or there is no room for
/// it.
pub(crate) async fn read(
    reply: Response<RecvStream>,
    max_bytes: usize,
    buffered: &Buffered,
) -> Result<Reply, Fault> {
    let (head, mut body) = reply.into_parts();
    // A failure may come with no body at all, its status in the head.
    let mut answered = check_status(&head.headers)?;
    if !answered && (head.status != StatusCode::OK || !is_grpc(&head.headers)) {
        // Apart, to keep the others small.
        return Box::pin(read_page(&head, body, max_bytes, buffered)).await;
    }
    let mut message = Message::default();
    while let Some(data) = body.data().await {
        let data = data.map_err(Fault::Transport)?;
        // Fails only for more than was received.
        let _ = body.flow_control().release_capacity(data.len());
        message.add(data, max_bytes, buffered)?;
    }
    let trailers = body.trailers().await.map_err(Fault::Transport)?;
    answered |= check_status(&trailers.unwrap_or_default())?;
    message.finish(answered, &head.headers, max_bytes, buffered)
}

/// Reads the rest of a reply whose `head` is not gRPC's and has no gRPC status. If
/// one follows, it decides after all.
pub(super) async fn read_page(
    head: &Parts,
    mut body: RecvStream,
    max_bytes: usize,
    buffered: &Buffered,
) -> Result<Reply, Fault> {
    let mut page = BytesMut::new();
    let mut held = buffered.hold(0);
    let reading = async {
        while let Some(Ok(data)) = body.data().await {
            // Fails only for more than was received.
            let _ = body.flow_control().release_capacity(data.len());
            let is_over = page.len() + data.len() > PREFIX_BYTES + max_bytes;
            if is_over || !held.try_grow_leaving_room(data.len()) {
                return None;
            }
            page.extend_from_slice(&data);
        }
        body.trailers().await.ok()
    };
    let end = timeout(PAGE_TIME, reading).await.ok().flatten();
    let is_complete = end.is_some();
    if check_status(&end.flatten().unwrap_or_default())? {
        let mut message = Message::default();
        message.add(page.freeze(), max_bytes, buffered)?;
        return message.finish(true, &head.headers, max_bytes, buffered);
    }
    Err(Fault::NotGrpc {
        status: head.status,
        quote: not_grpc::quote(&head.headers, &page),
        is_complete,
    })
}

/// `application/grpc`, or that with a suffix or parameters.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The bytes of a reply, frame by frame.
#[derive(Default)]
struct Message {
    received: BytesMut,
    /// What came in one piece is not copied.
    whole: Option<Bytes>,
    held: Option<Held>,
}

impl Message {
    fn add(&mut self, data: Bytes, max_bytes: usize, buffered: &Buffered) -> Result<(), Fault> {
        if data.is_empty() {
            return Ok(());
        }
        if self.received.is_empty() && self.whole.is_none() {
            let missing = missing_bytes(&data, max_bytes)?;
            if missing == Some(0) {
                self.whole = Some(data);
                return Ok(());
            }
        }
        if let Some(first) = self.whole.take() {
            self.received.extend_from_slice(&first);
        }
        self.received.extend_from_slice(&data);
        // What is claimed counts only when a good part of it is there.
        if let Some(missing) = missing_bytes(&self.received, max_bytes)?
            && missing / 4 < self.received.len()
        {
            self.received.reserve(missing);
        }
        self.hold(buffered)
    }

    /// Holds what the buffer has grown to.
    fn hold(&mut self, buffered: &Buffered) -> Result<(), Fault> {
        let held = self.held.get_or_insert_with(|| buffered.hold(0));
        let more = self.received.capacity().saturating_sub(held.bytes());
        if more > 0 && !held.try_grow_leaving_room(more) {
            let bytes = self.received.len();
            return Err(Fault::NoMemory { bytes });
        }
        Ok(())
    }

    /// The one message of a reply with these `headers`.
    fn finish(
        self,
        answered: bool,
        headers: &HeaderMap,
        max_bytes: usize,
        buffered: &Buffered,
    ) -> Result<Reply, Fault> {
        let mut message = match self.whole {
            Some(whole) => whole,
            None => self.received.freeze(),
        };
        if message.is_empty() {
            return Err(Fault::Incomplete(if answered {
                "it has the status OK and no message"
            } else {
                "it has neither a message nor a status"
            }));
        }
        if message.len() < PREFIX_BYTES || message.len() - PREFIX_BYTES < length(&message) {
            return Err(Fault::Incomplete("its message ends early"));
        }
        if !answered {
            return Err(Fault::Incomplete("it has no status"));
        }
        let is_compressed = message[0] == COMPRESSED;
        message.advance(PREFIX_BYTES);
        if is_compressed {
            return inflated(&message, headers, max_bytes, buffered);
        }
        let held = self.held;
        Ok(Reply { message, held })
    }
}

/// What a compressed message stands for. The encodings that are offered are the ones
/// that are understood.
pub(super) fn inflated(
    message: &[u8],
    headers: &HeaderMap,
    max_bytes: usize,
    buffered: &Buffered,
) -> Result<Reply, Fault> {
    match headers.get(ENCODING).map(HeaderValue::as_bytes) {
        Some(b"gzip") => {}
        Some(b"identity") | None => {
            return Err(Fault::Invalid(
                "its message is compressed, and grpc-encoding does not say how",
            ));
        }
        Some(_) => return Err(Fault::Invalid("its grpc-encoding was not offered")),
    }
    let message = inflate(message, max_bytes).map_err(|error| match error {
        InflateError::TooLarge => Fault::TooLarge { bytes: None },
        InflateError::Corrupt => Fault::Invalid("its message is no gzip"),
    })?;
    let mut held = buffered.hold(0);
    if !held.try_grow_leaving_room(message.len()) {
        let bytes = message.len();
        return Err(Fault::NoMemory { bytes });
    }
    let held = Some(held);
    Ok(Reply { message, held })
}

/// How many bytes of the message are still to come; `None` if that is not known
/// yet.
pub(super) fn missing_bytes(received: &[u8], max_bytes: usize) -> Result<Option<usize>, Fault> {
    if received.len() < PREFIX_BYTES {
        return Ok(None);
    }
    let max_bytes = match received[0] {
        0 => max_bytes,
        COMPRESSED => max_compressed(max_bytes),
        _ => return Err(Fault::Invalid("its message has an unknown flag")),
    };
    let length = length(received);
    if length > max_bytes {
        let bytes = Some(length);
        return Err(Fault::TooLarge { bytes });
    }
    match length.checked_sub(received.len() - PREFIX_BYTES) {
        Some(missing) => Ok(Some(missing)),
        None => Err(Fault::Invalid("it has more than one message")),
    }
}

pub(super) fn length(framed: &[u8]) -> usize {
    framed[1..PREFIX_BYTES]
        .iter()
        .fold(0, |length, &byte| length << 8 | usize::from(byte))
}

/// Whether there is a status.
///
/// # Errors
/// If it is not OK.
pub(super) fn check_status(headers: &HeaderMap) -> Result<bool, Fault> {
    let mut values = headers.get_all(Status::GRPC_STATUS).iter();
    let Some(value) = values.next() else {
        return Ok(false);
    };
    if values.any(|other| other != value) {
        return Err(Fault::Invalid("it has two statuses"));
    }
    let code = match status_code(value.as_bytes()) {
        Some(0) => return Ok(true),
        Some(code) => i32::try_from(code).map_or(Code::Unknown, Code::from_number),
        None => return Err(Fault::Invalid("its grpc-status is no number")),
    };
    let text = |value: &HeaderValue| {
        // What does not decode is shown as it came, as gRPC asks for.
        percent_decode(value.as_bytes()).decode_utf8().map_or_else(
            |_| String::from_utf8_lossy(value.as_bytes()).into_owned(),
            |text| text.into_owned(),
        )
    };
    Err(Fault::Tool {
        status: ToolStatus {
            code,
            details: details(headers),
        },
        message: headers
            .get(Status::GRPC_MESSAGE)
            .map(text)
            .unwrap_or_default(),
        pushback: headers.get(PUSHBACK).map(failure::pushback),
    })
}

/// Digits without a zero before them, as PROTOCOL-HTTP2 spells it: parsers of
/// integers take more than that.
fn status_code(value: &[u8]) -> Option<u32> {
    match value {
        [b'0'] => Some(0),
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => {
            Some(str::from_utf8(value).ok()?.parse().unwrap_or(u32::MAX))
        }
        _ => None,
    }
}

/// The encoded `google.rpc.Status`; empty if there is none, or none that can be
/// read, or one that is too large to pass on.
fn details(headers: &HeaderMap) -> Bytes {
    // Peers may leave the padding out.
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    headers
        .get(Status::GRPC_STATUS_DETAILS)
        .and_then(|encoded| ENGINE.decode(encoded).ok())
        .filter(|details| details.len() <= MAX_TOOL_DETAILS_BYTES)
        .map(Bytes::from)
        .unwrap_or_default()
}
