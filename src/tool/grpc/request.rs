//! gRPC's framing of one unary request
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>): HEADERS and one
//! length-prefixed message.

use std::{sync::LazyLock, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{CONTENT_TYPE, TE, USER_AGENT},
};
use tokio::time::Instant;

use crate::{
    core::{
        deadline::Deadline,
        observer::{Carrier, Context},
    },
    net::Outgoing,
    transport::{
        frames::FIELD_BYTES,
        grpc_timeout::{self, GRPC_TIMEOUT},
        gzip::deflate,
    },
};

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

/// A request to `uri` with a framed `message`, in one piece or two, made now, which tells
/// the tool that it has time until `deadline`; compressed if `gzip`, and if that makes it
/// shorter. Of `context` it carries what the peer takes beside the other headers, in header
/// lists of
/// `max_header_list` bytes (RFC 9113, 6.5.2).
pub(crate) fn request(
    uri: Uri,
    max_header_list: Option<u32>,
    deadline: Deadline,
    message: (Bytes, Option<Bytes>),
    gzip: bool,
    context: Option<&dyn Context>,
) -> Outgoing {
    let made = Instant::now();
    let mut head = head(uri, deadline.remaining(made));
    let compressed = if gzip {
        compressed(&message.0, message.1.as_ref())
    } else {
        None
    };
    let (body, rest) = match compressed {
        Some(body) => {
            let gzip = HeaderValue::from_static("gzip");
            head.headers_mut().insert(ENCODING, gzip);
            (body, None)
        }
        None => message,
    };
    if let Some(context) = context {
        let room = room(&head, max_header_list);
        let headers = head.headers_mut();
        context.inject(&mut Headers { headers, room });
    }
    Outgoing {
        made,
        head,
        body,
        rest,
    }
}

/// Headers, and how much may be added to them.
struct Headers<'a> {
    headers: &'a mut HeaderMap,
    room: usize,
}

impl Carrier for Headers<'_> {
    fn set(&mut self, name: &'static str, value: &Bytes) -> bool {
        let size = name.len() + value.len() + FIELD_BYTES;
        let Some(room) = self.room.checked_sub(size) else {
            return false;
        };
        let Ok(mut value) = HeaderValue::from_maybe_shared(value.clone()) else {
            return false;
        };
        // HPACK never indexes it then: it is of one request, and of one caller among those
        // whose calls share the connection (RFC 7541, 7.1.3).
        value.set_sensitive(true);
        self.room = room;
        self.headers.insert(HeaderName::from_static(name), value);
        true
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
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_static("0u"));
        headers
    });
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    let mut headers = HEADERS.clone();
    if let Some(value) = headers.get_mut(GRPC_TIMEOUT) {
        *value = grpc_timeout::value(timeout);
    }
    *request.headers_mut() = headers;
    request
}

/// The framed message `head` and `rest`, compressed, if that is shorter.
fn compressed(head: &[u8], rest: Option<&Bytes>) -> Option<Bytes> {
    let rest = rest.map_or(&[][..], |rest| rest);
    let message = deflate(&[&head[PREFIX_BYTES..], rest].concat())?;
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(COMPRESSED);
    framed.put_u32(u32::try_from(message.len()).ok()?);
    framed.extend_from_slice(&message);
    Some(framed.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_of_a_request_is_not_indexed() {
        struct Trace;
        impl Context for Trace {
            fn inject(&self, carrier: &mut dyn Carrier) {
                assert!(carrier.set("traceparent", &Bytes::from_static(b"00-1-2-03")));
            }
        }
        let now = Instant::now();
        let deadline = Deadline::of_request(now, None, Duration::from_secs(10));
        let uri = Uri::from_static("http://tools:50061/fanfare.v1.ToolService/CallTool");
        let message = (Bytes::new(), None);
        let made = request(uri, None, deadline, message, false, Some(&Trace));
        for (name, value) in made.head.headers() {
            assert_eq!(value.is_sensitive(), name == "traceparent", "{name}");
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
