//! Answers without a gRPC status: of a proxy, a gateway or another server in place of
//! the tool. What such an HTTP status stands for is written down in
//! <https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>.
//!
//! A caller sees them as `TOOL_UNAVAILABLE` if they mean UNAVAILABLE, else as
//! `INVALID_RESPONSE` with the code of that table: never as `TOOL_FAILED`, for the
//! tool has not said so.

use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};

use crate::core::status::Code;

/// How much of a page the message of an error quotes, in bytes.
const MAX_QUOTE_BYTES: usize = 200;

/// The gRPC status that an HTTP status stands for. So does one of 200, whose
/// content is not gRPC.
pub(crate) fn code(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// The printable beginning of a page, if it is a text.
pub(crate) fn quote(headers: &HeaderMap, page: &[u8]) -> String {
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes());
    let is_text = kind.is_some_and(|kind| {
        let has = |part: &[u8]| kind.windows(part.len()).any(|window| window == part);
        kind.starts_with(b"text/") || has(b"json") || has(b"xml")
    });
    let mut quote = String::new();
    if !is_text || headers.contains_key(CONTENT_ENCODING) {
        return quote;
    }
    for word in String::from_utf8_lossy(page).split(|c: char| c.is_whitespace() || c.is_control()) {
        if !word.is_empty() && !quote.is_empty() {
            quote.push(' ');
        }
        quote.push_str(word);
        if quote.len() > MAX_QUOTE_BYTES {
            quote.truncate(quote.floor_char_boundary(MAX_QUOTE_BYTES));
            break;
        }
    }
    quote
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_one_of_grpc() {
        for status in 200..600 {
            let expected = match status {
                400 => Code::Internal,
                401 => Code::Unauthenticated,
                403 => Code::PermissionDenied,
                404 => Code::Unimplemented,
                429 | 502 | 503 | 504 => Code::Unavailable,
                _ => Code::Unknown,
            };
            assert_eq!(code(StatusCode::from_u16(status).unwrap()), expected);
        }
    }

    #[test]
    fn of_a_text_the_printable_beginning_is_quoted() {
        let quoted = |kind: &'static str, page: &[u8]| {
            let headers = [(CONTENT_TYPE, kind.parse().unwrap())];
            quote(&headers.into_iter().collect(), page)
        };
        let page = b"\x1b[2J<h1>No\r\n\t\t such  host</h1>\0\n";
        let expected = "[2J<h1>No such host</h1>";
        for kind in ["text/html", "text/plain; charset=utf-8", "application/json"] {
            assert_eq!(quoted(kind, page), expected, "{kind}");
        }
        for kind in ["application/grpc", "image/png", ""] {
            assert_eq!(quoted(kind, page), "", "{kind}");
        }
        let long = "é".repeat(1000);
        assert_eq!(quoted("text/plain", long.as_bytes()), "é".repeat(100));
        let long = format!("x{long}");
        assert_eq!(quoted("text/plain", long.as_bytes()).len(), 199);
        assert_eq!(quoted("text/plain", b"a\xff b"), "a\u{fffd} b");
        let words = "a ".repeat(1000);
        assert_eq!(quoted("text/plain", words.as_bytes()).len(), 200);
        let gzip = [
            (CONTENT_TYPE, "text/html".parse().unwrap()),
            (CONTENT_ENCODING, "gzip".parse().unwrap()),
        ];
        assert_eq!(quote(&gzip.into_iter().collect(), b"x"), "");
    }
}
