//! gRPC's framing of one unary request
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>): HEADERS and one
//! length-prefixed message.

use std::{sync::LazyLock, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{CONTENT_TYPE, TE, USER_AGENT},
};
use prost::encoding::{self, WireType, encode_key, encode_varint, string, uint32};

use tokio::time::Instant;

use crate::{
    core::{call::ToolCall, deadline::Deadline, reservation::UNCOPIED_BYTES},
    net::connection::Outgoing,
    transport::{frames::FIELD_BYTES, gzip::deflate},
};

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// How the message is compressed that says that it is.
pub(crate) const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// The flag of a message that is compressed.
pub(crate) const COMPRESSED: u8 = 1;
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// How a tool may compress its answer.
const UNDERSTOOD: &str = "identity,gzip";
const AGENT: &str = concat!("fanfare/", env!("CARGO_PKG_VERSION"));
/// A flag for compression, then four bytes of length.
pub(crate) const PREFIX_BYTES: usize = 5;

/// A request to `uri` for one attempt at `call`, made now, which tells the tool that it
/// has time until `deadline`; compressed if `gzip`, and if that makes it shorter.
/// `add_headers` learns how much the peer takes beside what is there, of header lists of
/// `max_header_list` bytes (RFC 9113, 6.5.2).
pub(crate) fn request(
    uri: Uri,
    max_header_list: Option<u32>,
    deadline: Deadline,
    (call, attempt): (&ToolCall, u32),
    gzip: bool,
    add_headers: Option<impl FnOnce(&mut HeaderMap, usize)>,
) -> Outgoing {
    let made = Instant::now();
    let mut head = head(uri, deadline.remaining(made));
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
    if let Some(add_headers) = add_headers {
        let room = room(&head, max_header_list);
        add_headers(head.headers_mut(), room);
    }
    Outgoing {
        made,
        head,
        body,
        rest,
    }
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
    /// What all requests have; a copy costs less than the hashes of the names.
    static HEADERS: LazyLock<HeaderMap> = LazyLock::new(|| {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(UNDERSTOOD));
        headers.insert(TIMEOUT, HeaderValue::from_static("0u"));
        headers
    });
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    let mut headers = HEADERS.clone();
    if let Some(value) = headers.get_mut(TIMEOUT) {
        *value = timeout_value(timeout);
    }
    *request.headers_mut() = headers;
    request
}

/// In microseconds, or what is too long for their eight digits in milliseconds.
fn timeout_value(timeout: Duration) -> HeaderValue {
    const MAX: u128 = 99_999_999;
    let micros = timeout.as_micros();
    let (mut count, unit) = if micros <= MAX {
        (micros as u32, b'u')
    } else {
        (timeout.as_millis().min(MAX) as u32, b'm')
    };
    let mut text = [unit; 9];
    let mut start = text.len() - 1;
    loop {
        start -= 1;
        text[start] = b'0' + (count % 10) as u8;
        count /= 10;
        if count == 0 {
            break;
        }
    }
    // Digits and a letter are a valid value.
    HeaderValue::from_bytes(&text[start..]).unwrap_or(HeaderValue::from_static("0u"))
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
/// second. It is written field by field: the generated message owns its strings.
fn message(call: &ToolCall, attempt: u32) -> (Bytes, Option<Bytes>) {
    const ID: u32 = 1;
    const NAME: u32 = 2;
    const ARGUMENTS: u32 = 3;
    const ATTEMPT: u32 = 4;
    let arguments = call.arguments.as_ref();
    let length = string::encoded_len(ID, &call.id)
        + string::encoded_len(NAME, &call.name)
        + uint32::encoded_len(ATTEMPT, &attempt)
        + arguments.map_or(0, |arguments| {
            encoding::bytes::encoded_len(ARGUMENTS, arguments)
        });
    // One more DATA frame is cheaper then than a copy.
    let apart = arguments.filter(|arguments| arguments.len() >= UNCOPIED_BYTES);
    let copied = length - apart.map_or(0, Bytes::len);
    let mut head = BytesMut::with_capacity(PREFIX_BYTES + copied);
    head.put_u8(0);
    // The limit on requests is far below 4 GiB.
    head.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    string::encode(ID, &call.id, &mut head);
    string::encode(NAME, &call.name, &mut head);
    uint32::encode(ATTEMPT, &attempt, &mut head);
    // Last, so that they can go apart: the order of fields does not matter.
    if let Some(arguments) = arguments {
        encode_key(ARGUMENTS, WireType::LengthDelimited, &mut head);
        encode_varint(arguments.len() as u64, &mut head);
        if apart.is_none() {
            head.put_slice(arguments);
        }
    }
    (head.freeze(), apart.cloned())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::pb::CallToolRequest;

    #[test]
    fn a_message_is_what_the_generated_code_reads_in_one_piece_or_two() {
        let lengths = [0, 1, 200, UNCOPIED_BYTES - 1, UNCOPIED_BYTES, 100_000];
        let arguments = lengths.map(|length| Some(Bytes::from(vec![7; length])));
        for arguments in [None].into_iter().chain(arguments) {
            for (id, attempt) in [("", 0), ("an id", 1), ("\u{e9}", u32::MAX)] {
                let call = ToolCall {
                    id: id.to_owned(),
                    name: "tool".to_owned(),
                    arguments: arguments.clone(),
                    timeout: None,
                };
                let (head, rest) = message(&call, attempt);
                let length = arguments.as_ref().map_or(0, Bytes::len);
                assert_eq!(rest.is_some(), length >= UNCOPIED_BYTES);
                let framed = [head, rest.unwrap_or_default()].concat();
                let (prefix, message) = framed.split_at(PREFIX_BYTES);
                assert_eq!(prefix[0], 0);
                assert_eq!(prefix[1..], (message.len() as u32).to_be_bytes());
                let read = CallToolRequest::decode(message).unwrap();
                assert_eq!((read.id, read.name), (call.id, call.name));
                assert_eq!((read.arguments, read.attempt), (arguments.clone(), attempt));
            }
        }
    }

    #[test]
    fn timeouts_have_at_most_eight_digits() {
        for (micros, text) in [
            (0, "0u"),
            (7, "7u"),
            (1_000_000, "1000000u"),
            (99_999_999, "99999999u"),
            (100_000_000, "100000m"),
            (99_999_999_000, "99999999m"),
            (u64::MAX, "99999999m"),
        ] {
            assert_eq!(timeout_value(Duration::from_micros(micros)), text);
        }
    }

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
