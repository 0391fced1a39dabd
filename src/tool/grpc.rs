//! gRPC's framing of one unary call, as its client sees it
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>): HEADERS, one
//! length-prefixed message each way, trailers with the status.

use std::time::Duration;

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::RecvStream;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONTENT_TYPE, TE, USER_AGENT},
};
use percent_encoding::percent_decode;
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};
use tonic::Status;

use super::{
    failure::{Fault, Pushback},
    link::Outgoing,
};
use crate::{
    buffered::{Buffered, Held},
    call::ToolCall,
    error::{MAX_TOOL_DETAILS_BYTES, ToolStatus},
    pb,
};

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const AGENT: &str = concat!("fanfare/", env!("CARGO_PKG_VERSION"));
/// A flag for compression, then four bytes of length.
const PREFIX_BYTES: usize = 5;
/// Arguments of this size are sent as they came in instead of being copied; one
/// more DATA frame is cheaper then.
const UNCOPIED_BYTES: usize = 4096;

/// A request to `uri` for one attempt at `call`, which tells the tool what time is
/// left.
pub(super) fn request(
    uri: Uri,
    timeout: Duration,
    call: &ToolCall,
    attempt: u32,
    add_headers: impl FnOnce(&mut HeaderMap),
) -> Outgoing {
    let (body, rest) = message(call, attempt);
    let mut head = head(uri, timeout);
    add_headers(head.headers_mut());
    Outgoing { head, body, rest }
}

fn head(uri: Uri, timeout: Duration) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(TIMEOUT, timeout_value(timeout));
    *request.headers_mut() = headers;
    request
}

/// In microseconds, or what is too long for their eight digits in milliseconds.
fn timeout_value(timeout: Duration) -> HeaderValue {
    const MAX: u128 = 99_999_999;
    let micros = timeout.as_micros();
    let text = if micros <= MAX {
        format!("{micros}u")
    } else {
        format!("{}m", timeout.as_millis().min(MAX))
    };
    // Digits and a letter are a valid value.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0u"))
}

/// A `CallToolRequest` in its frame: in one piece, or with large arguments in a
/// second.
fn message(call: &ToolCall, attempt: u32) -> (Bytes, Option<Bytes>) {
    const ARGUMENTS_TAG: u32 = 3;
    let mut message = pb::CallToolRequest {
        id: call.id.clone(),
        name: call.name.clone(),
        arguments: call.arguments.clone(),
        attempt,
    };
    let apart = message
        .arguments
        .take_if(|arguments| arguments.len() >= UNCOPIED_BYTES);
    let inline = message.encoded_len();
    // Tag and length of the arguments: the order of fields does not matter.
    let rest = apart.as_ref().map_or(0, |arguments| {
        1 + encoded_len_varint(arguments.len() as u64) + arguments.len()
    });
    let mut head = BytesMut::with_capacity(PREFIX_BYTES + inline + 8);
    head.put_u8(0);
    // The limit on requests is far below 4 GiB.
    head.put_u32(u32::try_from(inline + rest).unwrap_or(u32::MAX));
    message.encode_raw(&mut head);
    if let Some(arguments) = &apart {
        encode_key(ARGUMENTS_TAG, WireType::LengthDelimited, &mut head);
        encode_varint(arguments.len() as u64, &mut head);
    }
    (head.freeze(), apart)
}

/// A reply: the encoded `CallToolResponse`.
pub(super) struct Reply {
    pub(super) message: Bytes,
    /// What it holds; `None` if it is a slice of the connection's read buffer.
    pub(super) held: Option<Held>,
}

/// Reads a reply of at most `max_bytes`, which is held out of `buffered` as it
/// arrives.
///
/// # Errors
/// If the tool failed, its reply is not what it should be, or there is no room for
/// it.
pub(super) async fn read(
    reply: Response<RecvStream>,
    max_bytes: usize,
    buffered: &Buffered,
) -> Result<Reply, Fault> {
    let (head, mut body) = reply.into_parts();
    let is_grpc = head
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if head.status != StatusCode::OK || !is_grpc {
        let status = head.status;
        return Err(Fault::NotGrpc { status });
    }
    // A failure may come with no body at all, its status in the head.
    check_status(&head.headers)?;
    let mut message = Message::default();
    while let Some(data) = body.data().await {
        let data = data.map_err(Fault::Transport)?;
        // Fails only for more than was received.
        let _ = body.flow_control().release_capacity(data.len());
        message.add(data, max_bytes, buffered)?;
    }
    let trailers = body.trailers().await.map_err(Fault::Transport)?;
    let answered = check_status(&trailers.unwrap_or_default())?;
    message.finish(answered)
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

    fn finish(self, answered: bool) -> Result<Reply, Fault> {
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
        message.advance(PREFIX_BYTES);
        let held = self.held;
        Ok(Reply { message, held })
    }
}

/// How many bytes of the message are still to come; `None` if that is not known
/// yet.
fn missing_bytes(received: &[u8], max_bytes: usize) -> Result<Option<usize>, Fault> {
    if received.len() < PREFIX_BYTES {
        return Ok(None);
    }
    if received[0] != 0 {
        return Err(Fault::Invalid(
            "its message is compressed, which was not offered",
        ));
    }
    let length = length(received);
    if length > max_bytes {
        return Err(Fault::TooLarge { bytes: length });
    }
    match length.checked_sub(received.len() - PREFIX_BYTES) {
        Some(missing) => Ok(Some(missing)),
        None => Err(Fault::Invalid("it has more than one message")),
    }
}

fn length(framed: &[u8]) -> usize {
    framed[1..PREFIX_BYTES]
        .iter()
        .fold(0, |length, &byte| length << 8 | usize::from(byte))
}

/// Whether there is a status.
///
/// # Errors
/// If it is not OK.
fn check_status(headers: &HeaderMap) -> Result<bool, Fault> {
    const OK: u32 = 0;
    const UNKNOWN: u32 = 2;
    const LAST: u32 = 16;
    let Some(code) = headers.get(Status::GRPC_STATUS) else {
        return Ok(false);
    };
    let code = code.to_str().ok().and_then(|code| code.parse().ok());
    let code = match code {
        Some(OK) => return Ok(true),
        Some(code @ 1..=LAST) => code,
        _ => UNKNOWN,
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
            code: code.cast_signed(),
            details: details(headers),
        },
        message: headers
            .get(Status::GRPC_MESSAGE)
            .map(text)
            .unwrap_or_default(),
        pushback: headers.get(PUSHBACK).map(Pushback::parse),
    })
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
