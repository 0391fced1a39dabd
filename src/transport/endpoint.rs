//! URLs of servers: tool services, collectors, and what is probed.

use http::{
    Uri,
    uri::{PathAndQuery, Scheme},
};

/// An `http` or `https` URL of a host and an optional port, and nothing else.
pub(crate) fn parse_endpoint(text: &str) -> Option<Uri> {
    // `Uri` drops a fragment silently.
    let uri = parse_url(text).filter(|_| !text.contains('#'))?;
    let path = uri.path_and_query().map(PathAndQuery::as_str);
    matches!(path, None | Some("/")).then_some(uri)
}

/// An `http` or `https` URL with a host, an optional port, and no user.
pub(crate) fn parse_url(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    let port = authority.as_str().strip_prefix(authority.host())?;
    // `Uri::port` ignores a port over 65,535.
    let port_is_valid = match port.strip_prefix(':') {
        Some(port) => {
            port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|n| n > 0)
        }
        None => port.is_empty(),
    };
    let scheme_is_valid = [Scheme::HTTP, Scheme::HTTPS].contains(uri.scheme()?);
    (scheme_is_valid && !authority.host().is_empty() && port_is_valid).then_some(uri)
}

/// The host, without the brackets of an IPv6 address, and the port, which by default is
/// that of the scheme.
pub(crate) fn host_and_port(uri: &Uri) -> (&str, u16) {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_https = uri.scheme() == Some(&Scheme::HTTPS);
    (
        host,
        uri.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_a_scheme_a_host_and_no_path() {
        let good = "http://a http://a/ http://a-b.c:1 http://10.0.0.1:65535 http://[::1]:80 \
                    https://a https://[::1]:443";
        for text in good.split(' ') {
            let uri = parse_endpoint(text).unwrap();
            assert_eq!(uri, text);
            assert_eq!(parse_endpoint(&uri.to_string()), Some(uri));
        }
        let bad = "a a:1 /a //a:1 http:// http://:1 http:///a http://a: http://a:0 http://a:65536 \
                   http://a:x http://a:+1 http://u@a:1 http://u:p@a:1 http://a:1/path http://a:1?q \
                   http://a:1/?q http://a:1#f https://u@a grpc://a:1 unix:/a http://[::1 *";
        for text in bad.split(' ').chain(["", "http://a b", "http://a/\u{e9}"]) {
            assert_eq!(parse_endpoint(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_port_is_that_of_the_scheme_by_default() {
        let of = |text: &str| {
            let uri = parse_url(text).unwrap();
            let (host, port) = host_and_port(&uri);
            format!("{host} {port}")
        };
        assert_eq!(of("http://a"), "a 80");
        assert_eq!(of("https://[::1]/b"), "::1 443");
        assert_eq!(of("https://[::1]:81"), "::1 81");
    }

    #[test]
    fn urls_may_have_a_path() {
        for text in ["http://a/b?c", "https://[::1]:1/b", "http://a"] {
            assert_eq!(parse_url(text).unwrap(), text);
        }
        for text in "http://u@a/b http://a:0/b ftp://a/b /b".split(' ') {
            assert_eq!(parse_url(text), None, "{text:?}");
        }
    }
}
