//! Numbers of JSON's grammar, exactly.

/// The most digits that an integer of 128 bits has.
const MAX_DIGITS: usize = 38;

/// The integer that a number of JSON's grammar is, however it is written: `100`, `1e2` and
/// `100.0` are one. `None` if it has a fraction, or 39 digits and more; also of text that
/// is no number.
pub(crate) fn integer(text: &str) -> Option<i128> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, self::exponent(exponent)?),
        None => (rest, 0),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (mantissa, ""),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if whole.is_empty() || leading_zero || !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    // The value is that of all digits, shifted by so many places.
    let shift = exponent - i64::try_from(fraction.len()).ok()?;
    let all = || whole.bytes().chain(fraction.bytes());
    let significant = all().skip_while(|&byte| byte == b'0');
    if significant.clone().next().is_none() {
        return Some(0);
    }
    let count = significant.clone().count();
    let (kept, zeros) = if shift < 0 {
        let dropped = usize::try_from(-shift).ok()?;
        let kept = count.checked_sub(dropped)?;
        if significant.clone().skip(kept).any(|byte| byte != b'0') {
            return None;
        }
        (kept, 0)
    } else {
        (count, usize::try_from(shift).ok()?)
    };
    if kept.checked_add(zeros)? > MAX_DIGITS {
        return None;
    }
    let mut value = 0i128;
    for byte in significant.take(kept) {
        value = 10 * value + i128::from(byte - b'0');
    }
    for _ in 0..zeros {
        value *= 10;
    }
    Some(if negative { -value } else { value })
}

/// What follows the `e`; far ones are all the same.
fn exponent(text: &str) -> Option<i64> {
    const FAR: i64 = 1 << 40;
    let (negative, digits) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = 0i64;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = (10 * value + i64::from(byte - b'0')).min(FAR);
    }
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact_however_they_are_written() {
        for (text, expected) in [
            ("0", 0),
            ("-0", 0),
            ("-0.000e5", 0),
            ("9007199254740993", 9_007_199_254_740_993),
            ("9007199254740993.000", 9_007_199_254_740_993),
            ("-9223372036854775808", i64::MIN.into()),
            ("18446744073709551615", u64::MAX.into()),
            ("1844674407370955161.5e1", u64::MAX.into()),
            ("1e3", 1000),
            ("1E+3", 1000),
            ("1200e-2", 12),
            ("0.05e2", 5),
            ("100000000000000000000", 100_000_000_000_000_000_000),
        ] {
            assert_eq!(integer(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "-",
            "+1",
            "01",
            "1.",
            ".5",
            "0.5",
            "1e",
            "1e-1",
            "1e39",
            "1e99999999999999999999",
            "1e-99999999999999999999",
            " 1",
            "1 ",
            "0x10",
            "1_000",
            "Infinity",
            "NaN",
            "--1",
            "1e1.0",
            "1.5.0",
            "\u{663}",
            "1e+-1",
        ] {
            assert_eq!(integer(text), None, "{text}");
        }
        assert_eq!(integer(&"9".repeat(38)), Some(10i128.pow(38) - 1));
        assert_eq!(integer(&"9".repeat(39)), None);
    }
}
