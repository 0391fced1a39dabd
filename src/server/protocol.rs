//! Checks the headers of a request, whatever its method is: the protocol, the size of
//! the headers, and `grpc-timeout`.

use std::time::Duration;

use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
    request::Parts,
};
use tonic::{Status, body::Body};

use crate::{
    orchestrator::wire::status::{Violations, headers_too_long},
    transport::{
        frames::FIELD_BYTES,
        grpc_timeout::{self, GRPC_TIMEOUT},
    },
};

/// gRPC is a POST with its own content type; anything else gets a plain HTTP status,
/// which browsers and curl understand
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
pub(super) fn refuse_other_protocols(request: &Parts) -> Option<Response<Body>> {
    let kind = request.headers.get(CONTENT_TYPE);
    let mut refusal = Response::new(Body::empty());
    if request.method != http::Method::POST {
        *refusal.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        refusal
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("POST"));
    } else if !kind.is_some_and(|kind| is_grpc(kind.as_bytes())) {
        *refusal.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    } else {
        return None;
    }
    Some(refusal)
}

/// Whether it is gRPC with protobuf messages, as is gRPC without a suffix. Messages of
/// another format, such as `+json`, would be misread; and gRPC-Web, which begins with
/// the same letters, is another protocol.
fn is_grpc(content_type: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    // Media types are case-insensitive (RFC 9110, 8.3.1).
    let Some((kind, rest)) = content_type.split_at_checked(GRPC.len()) else {
        return false;
    };
    let suffix_end = rest.iter().position(|&c| c == b';').unwrap_or(rest.len());
    let suffix = rest[..suffix_end].trim_ascii_end();
    kind.eq_ignore_ascii_case(GRPC) && (suffix.is_empty() || suffix.eq_ignore_ascii_case(b"+proto"))
}

/// h2 answers headers over its own, larger limit with 431, which gRPC clients map to
/// UNKNOWN.
pub(super) fn check_header_size(request: &Parts, max_bytes: usize) -> Result<(), Status> {
    /// `:method`, `:scheme`, `:authority` and `:path`, with the values of the first two.
    const PSEUDO_FIELDS: usize = 4 * FIELD_BYTES + 7 + 7 + 10 + 5 + "POST".len() + "http".len();
    let uri = &request.uri;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let fields = request.headers.iter();
    let bytes = fields.fold(
        PSEUDO_FIELDS + authority.len() + path.len(),
        |sum, (name, value)| sum + name.as_str().len() + value.len() + FIELD_BYTES,
    );
    if bytes <= max_bytes {
        return Ok(());
    }
    Err(headers_too_long(bytes, max_bytes))
}

/// The caller's timeout, if there is one.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let refuse = |problem: String| {
        let mut violations = Violations::default();
        violations.add(GRPC_TIMEOUT.as_str(), problem);
        Err(violations.into())
    };
    let mut values = headers.get_all(GRPC_TIMEOUT).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return refuse("must be sent once".to_owned());
    }
    let text = String::from_utf8_lossy(value.as_bytes());
    grpc_timeout::parse(&text)
        .map(Some)
        .or_else(|error| refuse(format!("{error}, is {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_from_similar_content_types() {
        for grpc in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;charset=utf-8",
            "application/grpc ; charset=utf-8",
            "application/grpc+proto; charset=utf-8",
            "Application/gRPC+Proto",
        ] {
            assert!(is_grpc(grpc.as_bytes()), "{grpc}");
        }
        for other in [
            "",
            "application",
            "application/json",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc-web-text",
            "application/grpcfoo",
            "application/grpc+json",
            "application/grpc+protobuf",
            "application/grpc+",
            "application/grpc/x",
            "application/grpc charset=utf-8",
            "xapplication/grpc",
        ] {
            assert!(!is_grpc(other.as_bytes()), "{other}");
        }
    }
}
