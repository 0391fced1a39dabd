//! `[tools.NAME.retry]`

use std::time::Duration;

use toml::de::DeValue;

use super::{
    form::Form,
    kind::{Kind, TICK, duration, integer},
    reader::Reader,
    section::{Entry, Section, section},
    text::{quoted, shown},
};
use crate::core::{status::Code, suggest::nearest};

/// gRFC A6.
const MAX_ATTEMPTS: u64 = 5;
/// Settings that repeat what may have run.
const ONLY_IDEMPOTENT: [&str; 2] = ["max_attempts", "codes"];
pub(super) const NOT_IDEMPOTENT: &str = "only for a tool with idempotent = true";

section! {
    /// `[tools.NAME.retry]`: when a call is sent again.
    ///
    /// A call that certainly did not run (there was no connection, or it was refused
    /// unseen) is sent again for any tool, one that may have run only for a tool that is
    /// `idempotent`.
    pub struct Retry {
        /// How often a call may be sent to the tool, the first time included; 1 to 5.
        /// Only for an idempotent tool.
        ///
        /// Default 3: two failures in a row are bad luck, three are a pattern; gRPC
        /// allows 5 (gRFC A6).
        pub max_attempts: u32 = 3, integer(1..=MAX_ATTEMPTS);

        /// The statuses of the tool after which a call is sent again. Only for an
        /// idempotent tool; a connection that breaks needs no code.
        ///
        /// Default `["UNAVAILABLE"]`: the only one that always means "try again".
        pub codes: Vec<Code> = vec![Code::Unavailable], codes();

        /// How long to wait before the first retry, give or take a fifth; each later
        /// wait is twice as long as the one before. 1 ms to 24 hours.
        ///
        /// Default 50 ms: longer than a tool service's hiccup, shorter than a person
        /// notices.
        pub initial_backoff: Duration = Duration::from_millis(50), duration(TICK);

        /// The longest of these waits. At least `initial_backoff`.
        ///
        /// Default 1 s: a service that is back is found soon, and one call a second
        /// is no burden.
        pub max_backoff: Duration = Duration::from_secs(1), duration(TICK);

        /// How long a call is tried that can't even be sent; 0 (once) to 24 hours. A call
        /// that was sent and lost before gets three times as long: most likely its
        /// service is being restarted.
        ///
        /// Default 1 s: outlasts a hiccup; where nobody answers at all, it is over
        /// with the first `connect_timeout`.
        pub connect_patience: Duration = Duration::from_secs(1), duration(Duration::ZERO);
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::defaults()
    }
}

pub(super) fn read(table: &mut Reader<'_, '_>, idempotent: bool) -> Retry {
    let mut r = Retry::defaults();
    r.read_keys(table);
    if !idempotent {
        for key in ONLY_IDEMPOTENT {
            table.refuse(key, NOT_IDEMPOTENT);
        }
    }
    table.keep_ascending(
        ("initial_backoff", r.initial_backoff),
        ("max_backoff", &mut r.max_backoff),
    );
    r
}

/// Those that a tool which is `idempotent` or not may have.
pub(super) fn entries(retry: &Retry, idempotent: bool) -> Vec<Entry> {
    let mut entries = retry.entries();
    entries.retain(|(key, _)| idempotent || !ONLY_IDEMPOTENT.contains(key));
    entries
}

fn codes() -> Kind<Vec<Code>> {
    let parse = |value: &DeValue<'_>| {
        let mut codes = Vec::new();
        for element in value.as_array()? {
            let code = parse_code(element.get_ref())?;
            if !codes.contains(&code) {
                codes.push(code);
            }
        }
        Some(codes)
    };
    let write = |codes: &Vec<Code>| {
        let names: Vec<_> = codes.iter().map(|code| quoted(code.name())).collect();
        format!("[{}]", names.join(", "))
    };
    Kind::new(Form::StatusCodes, parse, write).with_hint(|value| {
        let mut elements = value.as_array()?.iter().map(|element| element.get_ref());
        let unknown = elements.find(|element| parse_code(element).is_none())?;
        let meant = meant(unknown).map(|name| format!(", did you mean \"{name}\"?"));
        let unknown = shown(unknown);
        Some(format!("{unknown} is none{}", meant.unwrap_or_default()))
    })
}

/// The codes of failures.
fn failures() -> impl Iterator<Item = Code> {
    Code::ALL.into_iter().filter(|&code| code != Code::Ok)
}

fn parse_code(value: &DeValue<'_>) -> Option<Code> {
    failures().find(|code| Some(code.name()) == value.as_str())
}

/// The code that was probably meant: by its number, or a name much like it.
fn meant(value: &DeValue<'_>) -> Option<&'static str> {
    if let Some(number) = value.as_integer() {
        let number = number.as_str().parse();
        return failures()
            .find(|code| Ok(code.number()) == number)
            .map(Code::name);
    }
    let name = value.as_str().unwrap_or_default().to_ascii_uppercase();
    nearest(&name, failures().map(Code::name))
}
