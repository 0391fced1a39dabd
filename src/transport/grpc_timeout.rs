//! The `grpc-timeout` header: at most 8 digits and a unit
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use std::time::Duration;

use http::{HeaderName, HeaderValue};

/// The header.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The value is not a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 8 digits and a unit out of H M S m u n")]
pub struct MalformedTimeout;

/// Parses a value of the header.
///
/// # Errors
/// If it is malformed. Such a request must not run without a deadline.
pub fn parse(value: &str) -> Result<Duration, MalformedTimeout> {
    let unit = value.chars().next_back().ok_or(MalformedTimeout)?;
    let digits = value.strip_suffix(unit).ok_or(MalformedTimeout)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(MalformedTimeout);
    }
    let amount: u64 = digits.parse().map_err(|_| MalformedTimeout)?;
    match unit {
        'H' => Ok(Duration::from_secs(amount * 3600)),
        'M' => Ok(Duration::from_secs(amount * 60)),
        'S' => Ok(Duration::from_secs(amount)),
        'm' => Ok(Duration::from_millis(amount)),
        'u' => Ok(Duration::from_micros(amount)),
        'n' => Ok(Duration::from_nanos(amount)),
        _ => Err(MalformedTimeout),
    }
}

/// The value of the header, in microseconds if these fit into 8 digits, else in
/// milliseconds. Rounded up to the millisecond, if that adds less than a hundredth: then
/// most requests have a value that others had before them, which HPACK finds in its table.
/// Values that differ by microseconds would fill it, and each would be compared with all of
/// them. gRPC C-core rounds more coarsely (`timeout_encoding.cc`).
pub(crate) fn value(timeout: Duration) -> HeaderValue {
    const MAX: u128 = 99_999_999;
    const ROUNDED_FROM: u128 = 100_000;
    let mut micros = timeout.as_micros();
    if micros >= ROUNDED_FROM {
        micros = micros.next_multiple_of(1000);
    }
    let (mut count, unit) = if micros <= MAX {
        (micros as u32, b'u')
    } else {
        ((micros / 1000).min(MAX) as u32, b'm')
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_strictly() {
        for (text, expected) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("1S", Duration::from_secs(1)),
            ("100m", Duration::from_millis(100)),
            ("500u", Duration::from_micros(500)),
            ("0n", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "S",
            "1",
            "1s",
            "-1S",
            "+1S",
            "1.5S",
            "123456789S",
            "bogus",
            "1 S",
            " 1S",
            "\u{661}S",
        ] {
            assert_eq!(parse(bad), Err(MalformedTimeout), "{bad:?}");
        }
    }

    #[test]
    fn values_have_at_most_eight_digits() {
        for (micros, text) in [
            (0, "0u"),
            (7, "7u"),
            (99_999, "99999u"),
            (100_000, "100000u"),
            (100_001, "101000u"),
            (999_001, "1000000u"),
            (1_000_000, "1000000u"),
            (99_999_000, "99999000u"),
            (99_999_001, "100000m"),
            (100_000_000, "100000m"),
            (99_999_999_000, "99999999m"),
            (u64::MAX, "99999999m"),
        ] {
            assert_eq!(value(Duration::from_micros(micros)), text);
        }
    }
}
