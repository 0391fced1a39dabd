//! `google.protobuf.Timestamp` and `Duration` as text: RFC 3339, and seconds with an `s`.

use std::fmt::Write as _;

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
const TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// Ten thousand years.
const MAX_DURATION: i64 = 315_576_000_000;
const DAY: i64 = 86_400;

/// Seconds since 1970 and nanoseconds.
pub(super) fn parse_timestamp(text: &str) -> Option<(i64, i32)> {
    let bytes = text.as_bytes();
    let number =
        |at: usize, digits: usize| -> Option<i64> { digits_of(bytes.get(at..at + digits)?) };
    let is = |at: usize, byte: u8| (*bytes.get(at)? == byte).then_some(());
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    for (at, separator) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
        is(at, separator)?;
    }
    if !(1..=12).contains(&month) || day < 1 || day > days_of(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = bytes.get(19..)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = fraction
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        nanos = fraction_of(&fraction[..length])?;
        rest = &fraction[length..];
    }
    let offset = match rest {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), a, b, b':', c, d] => {
            let (hours, minutes) = (digits_of(&[*a, *b])?, digits_of(&[*c, *d])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = 60 * (60 * hours + minutes);
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    let seconds = DAY * days_from_civil(year, month, day) + 3600 * hour + 60 * minute + second;
    let seconds = seconds - offset;
    TIMES.contains(&seconds).then_some((seconds, nanos))
}

/// `None` if it is out of the range that has a text.
pub(super) fn format_timestamp(seconds: i64, nanos: i32) -> Option<String> {
    if !TIMES.contains(&seconds) || !(0..1_000_000_000).contains(&nanos) {
        return None;
    }
    let (year, month, day) = civil_from_days(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = String::with_capacity(30);
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
    );
    put_fraction(&mut text, nanos);
    text.push('Z');
    Some(text)
}

/// Seconds and nanoseconds, of one sign.
pub(super) fn parse_duration(text: &str) -> Option<(i64, i32)> {
    let text = text.strip_suffix('s')?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, nanos) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, fraction_of(fraction.as_bytes())?),
        None => (text, 0),
    };
    if whole.len() > 12 {
        return None;
    }
    let seconds = digits_of(whole.as_bytes())?;
    if seconds > MAX_DURATION || (seconds == MAX_DURATION && nanos > 0) {
        return None;
    }
    Some(if negative {
        (-seconds, -nanos)
    } else {
        (seconds, nanos)
    })
}

/// `None` if it is out of the range that has a text.
pub(super) fn format_duration(seconds: i64, nanos: i32) -> Option<String> {
    let signs = seconds.signum() * i64::from(nanos.signum());
    if seconds.unsigned_abs() > MAX_DURATION.unsigned_abs()
        || nanos.unsigned_abs() >= 1_000_000_000
        || signs < 0
    {
        return None;
    }
    let mut text = String::new();
    if seconds < 0 || nanos < 0 {
        text.push('-');
    }
    let _ = write!(text, "{}", seconds.unsigned_abs());
    put_fraction(&mut text, nanos.abs());
    text.push('s');
    Some(text)
}

/// Three, six or nine digits, as many as it takes.
fn put_fraction(text: &mut String, nanos: i32) {
    let _ = match nanos {
        0 => Ok(()),
        _ if nanos % 1_000_000 == 0 => write!(text, ".{:03}", nanos / 1_000_000),
        _ if nanos % 1000 == 0 => write!(text, ".{:06}", nanos / 1000),
        _ => write!(text, ".{nanos:09}"),
    };
}

fn digits_of(digits: &[u8]) -> Option<i64> {
    let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    all.then(|| {
        digits
            .iter()
            .fold(0, |value, byte| 10 * value + i64::from(byte - b'0'))
    })
}

/// One to nine digits behind a point, as nanoseconds.
fn fraction_of(digits: &[u8]) -> Option<i32> {
    let length = u32::try_from(digits.len())
        .ok()
        .filter(|length| (1..=9).contains(length))?;
    let value = i32::try_from(digits_of(digits)?).ok()?;
    Some(value * 10i32.pow(9 - length))
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970 (<https://howardhinnant.github.io/date_algorithms.html>).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year;
    146_097 * era + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + 400 * era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_as_the_mapping_has_them() {
        for (text, time) in [
            ("1970-01-01T00:00:00Z", (0, 0)),
            ("0001-01-01T00:00:00Z", (-62_135_596_800, 0)),
            (
                "9999-12-31T23:59:59.999999999Z",
                (253_402_300_799, 999_999_999),
            ),
            ("2024-02-29T12:30:45.120Z", (1_709_209_845, 120_000_000)),
            ("1969-12-31T23:59:59.000001Z", (-1, 1000)),
            ("2000-03-01T00:00:00.000000001Z", (951_868_800, 1)),
        ] {
            assert_eq!(parse_timestamp(text), Some(time), "{text}");
            assert_eq!(format_timestamp(time.0, time.1).as_deref(), Some(text));
        }
        assert_eq!(parse_timestamp("1970-01-01T01:30:00+01:30"), Some((0, 0)));
        assert_eq!(
            parse_timestamp("1969-12-31T16:00:00.5-08:00"),
            Some((0, 500_000_000))
        );
        for wrong in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01t00:00:00Z",
            "1970-01-01T00:00:00z",
            "1970-13-01T00:00:00Z",
            "1970-02-29T00:00:00Z",
            "1970-01-00T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:60:00Z",
            "1970-01-01T00:00:60Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00.1234567890Z",
            "1970-01-01T00:00:00+24:00",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "+970-01-01T00:00:00Z",
            "1970-01-01 00:00:00Z",
            "1970-01-01T00:00:00Zx",
            "١٩٧٠-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_timestamp(wrong), None, "{wrong}");
        }
        for (seconds, nanos) in [(i64::MAX, 0), (i64::MIN, 0), (0, -1), (0, 1_000_000_000)] {
            assert_eq!(format_timestamp(seconds, nanos), None);
        }
    }

    #[test]
    fn days_follow_each_other() {
        let mut expected = (1, 1, 1);
        for days in -719_162..2_932_897 {
            assert_eq!(civil_from_days(days), expected);
            assert_eq!(days_from_civil(expected.0, expected.1, expected.2), days);
            expected.2 += 1;
            if expected.2 > days_of(expected.0, expected.1) {
                expected = (expected.0, expected.1 + 1, 1);
            }
            if expected.1 > 12 {
                expected = (expected.0 + 1, 1, 1);
            }
        }
        assert_eq!(expected, (10_000, 1, 1));
    }

    #[test]
    fn durations_are_read_and_written_as_the_mapping_has_them() {
        for (text, duration) in [
            ("0s", (0, 0)),
            ("3s", (3, 0)),
            ("-0.500s", (0, -500_000_000)),
            ("1.000340012s", (1, 340_012)),
            ("-315576000000s", (-MAX_DURATION, 0)),
        ] {
            assert_eq!(parse_duration(text), Some(duration), "{text}");
            assert_eq!(
                format_duration(duration.0, duration.1).as_deref(),
                Some(text)
            );
        }
        assert_eq!(parse_duration("1.5s"), Some((1, 500_000_000)));
        for wrong in [
            "",
            "s",
            "1",
            "1.s",
            ".5s",
            "--1s",
            "+1s",
            "1.1234567890s",
            "315576000001s",
            "1e3s",
            "1m",
            "-s",
            " 1s",
            "315576000000.1s",
            "99999999999999999999999s",
        ] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        for (seconds, nanos) in [(i64::MIN, 0), (1, -1), (-1, 1), (0, i32::MIN)] {
            assert_eq!(format_duration(seconds, nanos), None);
        }
    }
}
