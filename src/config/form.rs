//! The values that a key may have, in words.

use std::{fmt, ops::RangeInclusive, time::Duration};

use humantime::format_duration;

use super::units::format_bytes;

/// The values that a key may have. Displays as what a message says it expected.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// `true` or `false`.
    Boolean,
    /// Any string.
    Text,
    /// A whole number.
    Integer(RangeInclusive<u64>),
    /// A number of bytes, as an integer or as a string with a unit.
    Size(RangeInclusive<u64>),
    /// A string such as `"1m 30s"`.
    Duration(RangeInclusive<Duration>),
    /// An IP address and port.
    Address,
    /// The URL of a tool service.
    Endpoint,
    /// An array of this many different ones.
    Endpoints(RangeInclusive<usize>),
    /// An array of names of gRPC status codes.
    StatusCodes,
    /// The path of a PEM file that has this in it.
    PemFile(&'static str),
    /// The path of a file that has this in it.
    File(&'static str),
    /// An array of names with `*` for anything.
    Patterns,
    /// What a tool's name may begin with, of at most so many characters.
    NamePrefix(usize),
    /// A host name or IP address.
    HostName,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// This word, or something else.
    Or(&'static str, Box<Form>),
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("true or false"),
            Self::Text => f.write_str("a string"),
            Self::Integer(range) => {
                let (min, max) = (range.start(), range.end());
                write!(f, "an integer from {min} to {max}")
            }
            Self::Size(range) => {
                let (min, max) = (format_bytes(*range.start()), format_bytes(*range.end()));
                write!(
                    f,
                    "a size such as \"64KiB\" or \"4MiB\", from {min} to {max}"
                )
            }
            Self::Duration(range) => {
                let min = format_duration(*range.start());
                // humantime would call 24 hours a day.
                let max = range.end().as_secs() / 3600;
                write!(
                    f,
                    "a duration such as \"250ms\" or \"1m 30s\", from {min} to {max}h"
                )
            }
            Self::Address => f.write_str("an IP address and port such as \"127.0.0.1:50051\""),
            Self::Endpoint => f.write_str("an endpoint such as \"http://host:50051\""),
            Self::Endpoints(count) => {
                let (min, max) = (count.start(), count.end());
                write!(
                    f,
                    "{min} to {max} different endpoints such as \
                     [\"http://a:50051\", \"http://b:50051\"]"
                )
            }
            Self::StatusCodes => f.write_str("a list of gRPC statuses such as \"UNAVAILABLE\""),
            Self::PemFile(content) => write!(f, "a PEM file with {content}"),
            Self::File(content) => write!(f, "the path of a file with {content}"),
            Self::Patterns => f.write_str("a list of names such as \"acme.Books/*\""),
            Self::NamePrefix(most) => {
                write!(f, "at most {most} of A-Z a-z 0-9 _ - . /")
            }
            Self::HostName => f.write_str("a host name or IP address"),
            Self::OneOf(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
                f.write_str(&words.join(" or "))
            }
            Self::Or(word, other) => write!(f, "{word:?} or {other}"),
        }
    }
}
