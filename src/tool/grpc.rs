//! gRPC's framing of one unary request
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>): HEADERS and one
//! length-prefixed message.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{CONTENT_TYPE, TE, USER_AGENT},
};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};

use super::link::Outgoing;
use crate::{call::ToolCall, frames::FIELD_BYTES, gzip::deflate, pb};

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// How the message is compressed that says that it is.
pub(super) const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// The flag of a message that is compressed.
pub(super) const COMPRESSED: u8 = 1;
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// How a tool may compress its answer.
const UNDERSTOOD: &str = "identity,gzip";
const AGENT: &str = concat!("fanfare/", env!("CARGO_PKG_VERSION"));
/// A flag for compression, then four bytes of length.
pub(super) const PREFIX_BYTES: usize = 5;
/// Arguments of this size are sent as they came in instead of being copied; one
/// more DATA frame is cheaper then.
const UNCOPIED_BYTES: usize = 4096;

/// A request to `uri` for one attempt at `call`, which tells the tool what time is
/// left; compressed if `gzip`, and if that makes it shorter. `add_headers` learns how much the peer takes beside what is there, of header
/// lists of `max_header_list` bytes (RFC 9113, 6.5.2).
pub(super) fn request(
    uri: Uri,
    max_header_list: Option<u32>,
    timeout: Duration,
    (call, attempt): (&ToolCall, u32),
    gzip: bool,
    add_headers: impl FnOnce(&mut HeaderMap, usize),
) -> Outgoing {
    let mut head = head(uri, timeout);
    let compressed = if gzip {
        compressed(call, attempt)
    } else {
        None
    };
    let (body, rest) = match compressed {
        Some(body) => {
            let gzip = HeaderValue::from_static("gzip");
            head.headers_mut().insert(ENCODING, gzip);
            (body, None)
        }
        None => message(call, attempt),
    };
    let room = room(&head, max_header_list);
    add_headers(head.headers_mut(), room);
    Outgoing { head, body, rest }
}

/// How much may be added to a head.
fn room(head: &Request<()>, max_header_list: Option<u32>) -> usize {
    /// What gRPC servers take if nobody says otherwise (PROTOCOL-HTTP2).
    const USUAL: u32 = 8 << 10;
    /// gRPC C-core announces twice its limit, and above the limit fails some requests,
    /// drawn by lot.
    const ANNOUNCED_BY_LOT: u32 = 2 * USUAL;
    let max = match max_header_list {
        None => return usize::MAX,
        Some(max) if max <= ANNOUNCED_BY_LOT => max.min(USUAL),
        Some(max) => max,
    };
    let pseudo = [
        (":method", head.method().as_str().len()),
        (":scheme", head.uri().scheme_str().map_or(0, str::len)),
        (
            ":authority",
            head.uri().authority().map_or(0, |a| a.as_str().len()),
        ),
        (":path", head.uri().path().len()),
    ];
    let pseudo = pseudo.map(|(name, value)| name.len() + value + FIELD_BYTES);
    let fields = head.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES);
    let taken = pseudo.iter().sum::<usize>() + fields.sum::<usize>();
    (max as usize).saturating_sub(taken)
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
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(UNDERSTOOD));
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

/// A compressed `CallToolRequest` in its frame, if that is shorter.
fn compressed(call: &ToolCall, attempt: u32) -> Option<Bytes> {
    let (head, rest) = message(call, attempt);
    let rest = rest.unwrap_or_default();
    let message = deflate(&[&head[PREFIX_BYTES..], &rest].concat())?;
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(COMPRESSED);
    framed.put_u32(u32::try_from(message.len()).ok()?);
    framed.extend_from_slice(&message);
    Some(framed.freeze())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_what_the_peer_takes_less_what_is_there() {
        let uri = Uri::from_static("http://tools:50061/fanfare.v1.ToolService/CallTool");
        let head = head(uri, Duration::from_secs(1));
        // Name, value and 32 of each, as HPACK and RFC 9113 count.
        let taken = (7 + 4 + 32)
            + (7 + 4 + 32)
            + (10 + 11 + 32)
            + (5 + 32 + 32)
            + (2 + 8 + 32)
            + (12 + 16 + 32)
            + (10 + AGENT.len() + 32)
            + (12 + 8 + 32)
            + (20 + 13 + 32);
        assert_eq!(head.uri().path().len(), 32);
        assert_eq!(head.headers()["grpc-timeout"].len(), 8);
        for (announced, max) in [
            (8000, 8000),
            (8192, 8192),
            (8193, 8192),
            // What gRPC C-core says, and hyper.
            (16384, 8192),
            (16385, 16385),
            (1 << 20, 1 << 20),
        ] {
            assert_eq!(room(&head, Some(announced)), max - taken, "{announced}");
        }
        assert_eq!(room(&head, Some(100)), 0);
        assert_eq!(room(&head, Some(0)), 0);
        assert_eq!(room(&head, None), usize::MAX);
    }
}
