//! Single values of the configuration, from TOML and back: counts, sizes,
//! durations, addresses, endpoints, texts.
//!
//! A parser that fails says what it `expected`, to follow that word; the
//! [`reader`](super::reader) adds the key and the offending value.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use http::{Uri, uri::PathAndQuery};
use toml::de::DeValue;

/// What a process could use at all; a larger number is a slip of the keyboard.
const MAX_COUNT: u32 = 1_000_000;
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_ENDPOINTS: usize = 64;
const BYTE_UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];
/// The longest part of an offending value that is repeated, in characters.
const MAX_SHOWN: usize = 80;
/// What switches a listener off.
pub(super) const OFF: &str = "off";

pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "true or false".to_owned())
}

pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    let text = value.as_str().ok_or_else(|| "a string".to_owned())?;
    Ok(text.to_owned())
}

/// An integer from 1 to [`MAX_COUNT`].
pub(super) fn count<T: TryFrom<u32>>(value: &DeValue<'_>) -> Result<T, String> {
    count_up_to(MAX_COUNT)(value)
}

/// An integer from 1 to `max`.
pub(super) fn count_up_to<T: TryFrom<u32>>(max: u32) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        integer(value)
            .and_then(|count| u32::try_from(count).ok())
            .filter(|count| (1..=max).contains(count))
            .and_then(|count| T::try_from(count).ok())
            .ok_or_else(|| format!("an integer from 1 to {max}"))
    }
}

/// A size in bytes: an integer, or a string as [`parse_bytes`] takes it.
pub(super) fn bytes<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        value
            .as_str()
            .map_or_else(|| integer(value), parse_bytes)
            .filter(|bytes| range.contains(bytes))
            .and_then(|bytes| T::try_from(bytes).ok())
            .ok_or_else(|| {
                let [min, max] = [range.start(), range.end()].map(|n| format_bytes(*n as usize));
                format!("a size such as \"64KiB\" or \"4MiB\", from {min} to {max}")
            })
    }
}

/// A duration from `min` to [`MAX_DURATION`].
pub(super) fn duration(min: Duration) -> impl Fn(&DeValue<'_>) -> Result<Duration, String> {
    move |value| duration_from(min, value.as_str().unwrap_or_default())
}

/// `None` if it is [`OFF`]; else from the timers' resolution.
pub(super) fn duration_or_off(value: &DeValue<'_>) -> Result<Option<Duration>, String> {
    if value.as_str() == Some(OFF) {
        return Ok(None);
    }
    duration(Duration::from_millis(1))(value)
        .map(Some)
        .map_err(|expected| format!("\"{OFF}\" or {expected}"))
}

/// The same in a text, which says what was expected if it is none.
pub(crate) fn duration_from(min: Duration, text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|duration| (min..=MAX_DURATION).contains(duration))
        .ok_or_else(|| {
            let min = humantime::format_duration(min);
            format!("a duration such as \"250ms\" or \"1m 30s\", from {min} to 24h")
        })
}

pub(super) fn address(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| "an IP address and port such as \"127.0.0.1:50051\"".to_owned())
}

/// An integer from 0 to 100.
pub(super) fn percent(value: &DeValue<'_>) -> Result<usize, String> {
    integer(value)
        .and_then(|percent| usize::try_from(percent).ok())
        .filter(|percent| *percent <= 100)
        .ok_or_else(|| "an integer from 0 to 100".to_owned())
}

/// Endpoints, each different.
pub(super) fn endpoints(value: &DeValue<'_>) -> Result<Vec<Uri>, String> {
    const FORM: &str =
        "1 to 64 different endpoints such as [\"http://a:50051\", \"http://b:50051\"]";
    let Some(array) = value.as_array() else {
        return Err(match endpoint(value) {
            Ok(_) => format!("{FORM} (or `endpoint`, for a single one)"),
            Err(_) => FORM.to_owned(),
        });
    };
    let mut endpoints = Vec::new();
    for value in array {
        let value = value.get_ref();
        let endpoint = endpoint(value)
            .ok()
            .filter(|endpoint| !endpoints.contains(endpoint))
            .ok_or_else(|| format!("{FORM} (not {})", shown(value)))?;
        endpoints.push(endpoint);
    }
    if (1..=MAX_ENDPOINTS).contains(&endpoints.len()) {
        return Ok(endpoints);
    }
    Err(FORM.to_owned())
}

/// `None` if it is [`OFF`].
pub(super) fn address_or_off(value: &DeValue<'_>) -> Result<Option<SocketAddr>, String> {
    if value.as_str() == Some(OFF) {
        return Ok(None);
    }
    address(value)
        .map(Some)
        .map_err(|expected| format!("{expected}, or \"{OFF}\""))
}

/// The `http://host:port` or `https://host:port` of a tool service.
pub(super) fn endpoint(value: &DeValue<'_>) -> Result<Uri, String> {
    const FORM: &str = "an endpoint such as \"http://host:50051\"";
    if value.as_array().is_some() {
        return Err(format!("{FORM} (or `endpoints`, for several)"));
    }
    let text = value.as_str().ok_or(FORM)?;
    if let Some(uri) = parse_endpoint(text) {
        return Ok(uri);
    }
    let path = |uri: &Uri| {
        uri.path_and_query()
            .is_some_and(|path| path.as_str() != "/")
    };
    match text.parse() {
        Ok(uri) if path(&uri) => Err(format!("{FORM} (without a path or query)")),
        _ => Err(FORM.to_owned()),
    }
}

/// An `http` or `https` URL with nothing in it but a host and perhaps a port.
pub(crate) fn parse_endpoint(text: &str) -> Option<Uri> {
    // `Uri` drops a fragment silently.
    let uri: Uri = text.parse().ok().filter(|_| !text.contains('#'))?;
    let authority = uri.authority()?;
    let port = authority.as_str().strip_prefix(authority.host())?;
    // Not left to `Uri::port`: it takes a port over 65,535 for none.
    let port_is_good = match port.strip_prefix(':') {
        Some(port) => {
            port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|n| n > 0)
        }
        None => port.is_empty(),
    };
    let scheme_is_good = matches!(uri.scheme_str(), Some("http" | "https"));
    let path_is_good = matches!(
        uri.path_and_query().map(PathAndQuery::as_str),
        None | Some("/")
    );
    let good = scheme_is_good && !authority.host().is_empty() && port_is_good && path_is_good;
    good.then_some(uri)
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// An exact number of bytes: `4MiB`, `64KiB`, `1000B` or `1000`.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => 1,
        unit => BYTE_UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// As [`humantime::parse_duration`]; `None` also for durations far over
/// [`MAX_DURATION`].
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    // humantime 2.4 panics when the seconds add up to exactly `u64::MAX` and
    // the rest to one more. With 15 digits, which write every nanosecond of a
    // day, a sum of years can't come near both.
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if digits > 15 {
        None
    } else {
        humantime::parse_duration(text).ok()
    }
}

/// The size in the largest unit that is exact.
pub(super) fn format_bytes(bytes: usize) -> String {
    let bytes = bytes as u64;
    let exact = BYTE_UNITS
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    let (unit, factor) = exact.unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
}

/// A key as TOML writes it: quoted if it must be.
pub(super) fn key(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !key.is_empty() && key.chars().all(bare) {
        key.to_owned()
    } else {
        quoted(key)
    }
}

/// A string as TOML writes it.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A value for a person to recognise, at most [`MAX_SHOWN`] characters of it.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().nth(MAX_SHOWN).is_some() => {
            let start: String = text.chars().take(MAX_SHOWN).collect();
            format!("{}...", quoted(&start))
        }
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => format!("the integer {number}"),
        DeValue::Float(number) => format!("the float {number}"),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(time) => format!("the time {time}"),
        DeValue::Array(array) => {
            let elements = array.iter().map(|element| match element.get_ref() {
                DeValue::Integer(number) => number.to_string(),
                DeValue::Float(number) => number.to_string(),
                DeValue::Array(_) => "[...]".to_owned(),
                element => shown(element),
            });
            let all = elements.collect::<Vec<_>>().join(", ");
            match all.char_indices().nth(MAX_SHOWN) {
                Some((end, _)) => format!("[{}...]", &all[..end]),
                None => format!("[{all}]"),
            }
        }
        DeValue::Table(_) => "a table".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_exact() {
        let sizes = "0=0 1000=1000 007B=7 64KiB=65536 4MiB=4194304 1GiB=1073741824 \
                     18446744073709551615=18446744073709551615";
        for (text, bytes) in sizes.split(' ').filter_map(|size| size.split_once('=')) {
            assert_eq!(parse_bytes(text), bytes.parse().ok(), "{text}");
        }
        let bad = "B KiB -1 +1 1.5MiB 1KB 1K 1kib 1KIB 1b 1KiB2 \u{661} 18446744073709551616 \
                   17179869184GiB";
        for text in bad.split(' ').chain(["", " 1", "1 ", "1 KiB"]) {
            assert_eq!(parse_bytes(text), None, "{text:?}");
        }
    }

    #[test]
    fn durations_are_exact() {
        let durations = "5s=5000,250ms=250,1m 30s=90000,1m30s=90000,0s=0,1.5s=1500,1day=86400000";
        for (text, millis) in durations.split(',').filter_map(|pair| pair.split_once('=')) {
            let millis = millis.parse().map(Duration::from_millis);
            assert_eq!(parse_duration(text), millis.ok(), "{text}");
        }
        let bad = ",5,s, ,-5s,5S,5 parsecs,1e3s,0.1ns,99999999999999999999s,999999999999999y,\
                   18446744073709551615s 1000ms";
        for text in bad.split(',') {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn endpoints_have_a_scheme_and_a_host_and_nothing_behind() {
        let parse = |text: &str| endpoint(&DeValue::String(text.to_owned().into()));

        let good = "http://a http://a/ http://a-b.c:1 http://10.0.0.1:65535 http://[::1]:80 \
                    https://a https://[::1]:443";
        for text in good.split(' ') {
            let uri = parse(text).unwrap();
            assert_eq!(uri, text);
            assert_eq!(parse(&uri.to_string()), Ok(uri));
        }
        let bad = "a a:1 /a //a:1 http:// http://:1 http:///a http://a: http://a:0 http://a:65536 \
                   http://a:x http://a:+1 http://u@a:1 http://u:p@a:1 http://a:1/path http://a:1?q \
                   http://a:1/?q http://a:1#f https://u@a grpc://a:1 unix:/a http://[::1 *";
        for text in bad.split(' ').chain(["", "http://a b", "http://a/\u{e9}"]) {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn sizes_read_back(bytes in any::<u32>(), shift in 0..32) {
            let bytes = bytes >> shift << shift;
            let text = format_bytes(bytes as usize);
            prop_assert_eq!(parse_bytes(&text), Some(u64::from(bytes)));
        }

        #[test]
        fn no_text_panics(text in r"\PC*|([0-9]{1,9}\.?[0-9]{1,9} ?[a-zM]{0,3} ?){1,3}") {
            let _ = (parse_bytes(&text), parse_duration(&text));
        }
    }
}
