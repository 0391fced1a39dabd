//! Durations and sizes as people write them.

use std::time::Duration;

pub(super) const KIB: u64 = 1024;
pub(super) const MIB: u64 = 1024 * KIB;
/// The longest duration of all settings.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);
const BYTE_UNITS: [(&str, u64); 4] = [("GiB", 1024 * MIB), ("MiB", MIB), ("KiB", KIB), ("B", 1)];

/// As [`humantime::parse_duration`]; `None` also for durations far over
/// [`MAX_DURATION`].
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    // humantime 2.4 panics if the seconds add up to exactly `u64::MAX` and the rest to
    // one more. 15 digits are enough for every nanosecond of a day, and too few for that.
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if digits > 15 {
        None
    } else {
        humantime::parse_duration(text).ok()
    }
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

/// The size in the largest unit that is exact.
pub(super) fn format_bytes(bytes: u64) -> String {
    let exact = BYTE_UNITS
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    let (unit, factor) = exact.unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
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

    proptest! {
        #[test]
        fn sizes_read_back(bytes in any::<u32>(), shift in 0..32) {
            let bytes = u64::from(bytes >> shift << shift);
            prop_assert_eq!(parse_bytes(&format_bytes(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics(text in r"\PC*|([0-9]{1,9}\.?[0-9]{1,9} ?[a-zM]{0,3} ?){1,3}") {
            let _ = (parse_bytes(&text), parse_duration(&text));
        }
    }
}
