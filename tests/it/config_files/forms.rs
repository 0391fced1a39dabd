//! The values that a key may have: for tables, and at the edges of what is allowed.

use std::time::Duration;

use fanfare::config::Form;
use humantime::format_duration;

/// Type and unit, and the limits, for people.
pub fn words(form: &Form) -> (String, String) {
    let (kind, limits) = match form {
        Form::Boolean => ("`true` or `false`", String::new()),
        Form::Text => ("string", String::new()),
        Form::Integer(range) => ("integer", format!("{} to {}", range.start(), range.end())),
        Form::Size(range) => {
            let limits = format!("`{}` to `{}`", size(*range.start()), size(*range.end()));
            ("size, bytes", limits)
        }
        Form::Duration(range) => {
            // humantime would call 24 hours a day.
            let hours = range.end().as_secs() / 3600;
            let limits = format!("`{}` to `{hours}h`", format_duration(*range.start()));
            ("duration", limits)
        }
        Form::Address => ("IP address and port", String::new()),
        Form::Endpoint => ("URL", String::new()),
        Form::Endpoints(count) => {
            let limits = format!("{} to {}", count.start(), count.end());
            ("array of different URLs", limits)
        }
        Form::StatusCodes => ("array of gRPC statuses", "not `OK`".to_owned()),
        Form::PemFile(_) => ("path of a PEM file", String::new()),
        Form::File(_) => ("path of a file", String::new()),
        Form::Patterns => ("array of names with `*`", String::new()),
        Form::NamePrefix(most) => ("string", format!("at most {most} of `A-Z a-z 0-9 _ - . /`")),
        Form::HostName => ("host name or IP address", String::new()),
        Form::OneOf(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
            return (words.join(" or "), String::new());
        }
        Form::Or(word, other) => {
            let (kind, limits) = self::words(other);
            return (format!("{kind}, or `\"{word}\"`"), limits);
        }
    };
    (kind.to_owned(), limits)
}

/// Values just within the limits, and just outside of them, as TOML.
pub fn boundaries(form: &Form) -> (Vec<String>, Vec<String>) {
    let tick = Duration::from_nanos(1);
    let quoted = |text: &str| format!("\"{text}\"");
    match form {
        Form::Integer(range) => around(*range.start(), *range.end()),
        Form::Size(range) => {
            let (min, max) = (*range.start(), *range.end());
            let (mut good, mut bad) = around(min, max);
            let text = |bytes: u64| format!("\"{bytes}B\"");
            good.extend([text(min), text(max)]);
            bad.extend([text(min - 1), text(max + 1), "1.5".to_owned()]);
            (good, bad)
        }
        Form::Duration(range) => {
            let (min, max) = (*range.start(), *range.end());
            let text = |duration| format!("\"{}\"", format_duration(duration));
            let below = min
                .checked_sub(tick)
                .map_or_else(|| "\"-1s\"".to_owned(), text);
            (vec![text(min), text(max)], vec![below, text(max + tick)])
        }
        Form::Endpoints(count) => {
            let hosts = |count| {
                let hosts: Vec<_> = (0..count).map(|n| format!("\"https://h{n}\"")).collect();
                format!("[{}]", hosts.join(", "))
            };
            let (min, max) = (*count.start(), *count.end());
            let good = vec![hosts(min), hosts(max)];
            (good, vec![hosts(min - 1), hosts(max + 1)])
        }
        Form::Patterns => {
            let patterns = |count| format!("[{}]", vec!["\"a*\""; count].join(", "));
            let bad = ["[\"\"]", "[\"a b\"]", "\"a\""].map(str::to_owned);
            let good = vec!["[]".to_owned(), patterns(256)];
            (good, [&bad[..], &[patterns(257)]].concat())
        }
        Form::NamePrefix(most) => {
            let good = vec![quoted(""), quoted(&"a".repeat(*most))];
            (good, vec![quoted("a b"), quoted(&"a".repeat(most + 1))])
        }
        Form::OneOf(words) => {
            let good = words.iter().map(|word| quoted(word)).collect();
            (good, ["", "off", "deflate", "GZIP"].map(quoted).into())
        }
        Form::Or(word, other) => {
            let (mut good, mut bad) = boundaries(other);
            good.push(quoted(word));
            bad.push(quoted(&word.to_ascii_uppercase()));
            (good, bad)
        }
        _ => (Vec::new(), Vec::new()),
    }
}

fn around(min: u64, max: u64) -> (Vec<String>, Vec<String>) {
    let below = min
        .checked_sub(1)
        .map_or_else(|| "-1".to_owned(), |below| below.to_string());
    let good = vec![min.to_string(), max.to_string()];
    (good, vec![below, (max + 1).to_string()])
}

/// In the largest unit of which it is a multiple.
fn size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let exact = units
        .iter()
        .find(|(_, factor)| bytes.is_multiple_of(*factor));
    let (unit, factor) = exact.unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
}
