//! What a value may be: the parser's own words for it, understood.

use std::time::Duration;

use humantime::{format_duration, parse_duration};

/// The form of a value and its limits. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Boolean,
    Text,
    Integer { min: u64, max: u64 },
    Size { min: u64, max: u64 },
    Duration { min: Duration, max: Duration },
    P95OrDuration { min: Duration, max: Duration },
    OffOrDuration { min: Duration, max: Duration },
    Address,
    AddressOrOff,
    Endpoint,
    Endpoints { max: usize },
    Codes,
    PemFile,
    HostName,
    Compression,
}

const SIZE_UNITS: [(&str, u64); 4] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("B", 1),
];

impl Kind {
    /// Panics if the parser says something new.
    pub fn parse(expected: &str) -> Self {
        let duration = "a duration such as \"250ms\" or \"1m 30s\", from ";
        let size = "a size such as \"64KiB\" or \"4MiB\", from ";
        let address = "an IP address and port such as \"127.0.0.1:50051\"";
        if let Some(range) = expected.strip_prefix("an integer from ") {
            let (min, max) = limits(range, |text| text.parse().unwrap());
            return Self::Integer { min, max };
        }
        if let Some(range) = expected.strip_prefix(size) {
            let (min, max) = limits(range, bytes);
            return Self::Size { min, max };
        }
        let (word, rest) = expected.split_once(" or ").unwrap_or_default();
        let (word, rest) = match word {
            "\"p95\"" | "\"off\"" => (word, rest),
            _ => ("", expected),
        };
        if let Some(range) = rest.strip_prefix(duration) {
            let (min, max) = limits(range, |text| parse_duration(text).unwrap());
            return match word {
                "" => Self::Duration { min, max },
                "\"p95\"" => Self::P95OrDuration { min, max },
                _ => Self::OffOrDuration { min, max },
            };
        }
        if let Some(rest) = expected.strip_prefix("1 to ") {
            let (max, rest) = rest.split_once(' ').unwrap();
            assert!(
                rest.starts_with("different endpoints such as"),
                "{expected}"
            );
            let max = max.parse().unwrap();
            return Self::Endpoints { max };
        }
        match expected.strip_prefix(address) {
            Some("") => return Self::Address,
            Some(", or \"off\"") => return Self::AddressOrOff,
            _ => {}
        }
        match expected {
            "true or false" => Self::Boolean,
            "a string" => Self::Text,
            "an endpoint such as \"http://host:50051\"" => Self::Endpoint,
            "a list of gRPC statuses such as \"UNAVAILABLE\"" => Self::Codes,
            "a PEM file with certificates" | "a PEM file with a private key" => Self::PemFile,
            "a host name or IP address" => Self::HostName,
            "\"none\" or \"gzip\"" => Self::Compression,
            other => panic!("what is {other}?"),
        }
    }

    /// Type and unit, and the limits, for people.
    pub fn words(&self) -> (String, String) {
        let (kind, limits) = match self {
            Self::Boolean => ("`true` or `false`", String::new()),
            Self::Text => ("string", String::new()),
            Self::Integer { min, max } => ("integer", format!("{min} to {max}")),
            Self::Size { min, max } => (
                "size, bytes",
                format!("`{}` to `{}`", size(*min), size(*max)),
            ),
            Self::Duration { min, max } => ("duration", range(*min, *max)),
            Self::P95OrDuration { min, max } => ("duration, or `\"p95\"`", range(*min, *max)),
            Self::OffOrDuration { min, max } => ("duration, or `\"off\"`", range(*min, *max)),
            Self::Address => ("IP address and port", String::new()),
            Self::AddressOrOff => ("IP address and port, or `\"off\"`", String::new()),
            Self::Endpoint => ("URL", String::new()),
            Self::Endpoints { max } => ("array of different URLs", format!("1 to {max}")),
            Self::Codes => ("array of gRPC statuses", "not `OK`".to_owned()),
            Self::PemFile => ("path of a PEM file", String::new()),
            Self::HostName => ("host name or IP address", String::new()),
            Self::Compression => ("`\"none\"` or `\"gzip\"`", String::new()),
        };
        (kind.to_owned(), limits)
    }

    /// Values just within the limits, and just outside of them, as TOML.
    pub fn boundaries(&self) -> (Vec<String>, Vec<String>) {
        let tick = Duration::from_nanos(1);
        match self {
            Self::Integer { min, max } => around(*min, *max),
            Self::Size { min, max } => {
                let (mut good, mut bad) = around(*min, *max);
                let text = |bytes: u64| format!("\"{bytes}B\"");
                good.extend([text(*min), text(*max)]);
                bad.extend([text(min - 1), text(max + 1), "1.5".to_owned()]);
                (good, bad)
            }
            Self::Duration { min, max }
            | Self::P95OrDuration { min, max }
            | Self::OffOrDuration { min, max } => {
                let text = |duration| format!("\"{}\"", format_duration(duration));
                let below = min
                    .checked_sub(tick)
                    .map_or_else(|| "\"-1s\"".to_owned(), text);
                (vec![text(*min), text(*max)], vec![below, text(*max + tick)])
            }
            Self::Endpoints { max } => {
                let hosts = |count| {
                    let hosts: Vec<_> = (0..count).map(|n| format!("\"https://h{n}\"")).collect();
                    format!("[{}]", hosts.join(", "))
                };
                (vec![hosts(1), hosts(*max)], vec![hosts(0), hosts(max + 1)])
            }
            Self::Compression => {
                let quoted = |text: &str| format!("\"{text}\"");
                let bad = ["", "off", "deflate", "GZIP"];
                (["none", "gzip"].map(quoted).into(), bad.map(quoted).into())
            }
            _ => (Vec::new(), Vec::new()),
        }
    }
}

fn around(min: u64, max: u64) -> (Vec<String>, Vec<String>) {
    let below = min
        .checked_sub(1)
        .map_or_else(|| "-1".to_owned(), |below| below.to_string());
    let good = vec![min.to_string(), max.to_string()];
    (good, vec![below, (max + 1).to_string()])
}

/// `MIN to MAX`.
fn limits<T>(range: &str, parse: impl Fn(&str) -> T) -> (T, T) {
    let (min, max) = range
        .split_once(" to ")
        .unwrap_or_else(|| panic!("{range}"));
    (parse(min), parse(max))
}

fn range(min: Duration, max: Duration) -> String {
    // Not "1day".
    let hours = max.as_secs() / 3600;
    format!("`{}` to `{hours}h`", format_duration(min))
}

fn bytes(text: &str) -> u64 {
    let unit = SIZE_UNITS.iter().find(|(unit, _)| text.ends_with(unit));
    let (unit, factor) = unit.unwrap_or_else(|| panic!("{text}"));
    let number: u64 = text.trim_end_matches(unit).parse().unwrap();
    number * factor
}

fn size(bytes: u64) -> String {
    let exact = SIZE_UNITS
        .iter()
        .rev()
        .skip(1)
        .find(|(_, factor)| bytes.is_multiple_of(*factor));
    let (unit, factor) = exact.unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
}
