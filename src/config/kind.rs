//! The kinds of values that keys have: which values there are, how one is read from
//! TOML and how it is written to it. Kinds of only one section are in its file.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use toml::de::DeValue;

use super::{
    form::Form,
    text::quoted,
    units::{MAX_DURATION, format_bytes, parse_bytes, parse_duration},
};

/// The timers' resolution: a shorter duration would come out as this one.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// A larger number than any process could use is a slip of the keyboard.
const MAX_COUNT: u64 = 1_000_000;
const OFF: &str = "off";
const AUTO: &str = "auto";

type Parse<T> = Box<dyn Fn(&DeValue<'_>) -> Option<T>>;
type Hint = fn(&DeValue<'_>) -> Option<String>;
type Write<T> = Box<dyn Fn(&T) -> Option<String>>;

/// A kind of value, held by a field of type `T`.
pub(super) struct Kind<T> {
    /// Which values there are.
    pub(super) form: Form,
    /// Whether the file must have the key.
    pub(super) required: bool,
    /// Reads a value; `None` if it is not of this kind.
    pub(super) parse: Parse<T>,
    /// More to tell about a value that is not of this kind than what is expected.
    pub(super) hint: Hint,
    /// The value as TOML; `None` if a file says it by leaving the key out.
    pub(super) write: Write<T>,
}

impl<T> Kind<T> {
    pub(super) fn new(
        form: Form,
        parse: impl Fn(&DeValue<'_>) -> Option<T> + 'static,
        write: impl Fn(&T) -> String + 'static,
    ) -> Self {
        Self {
            form,
            required: false,
            parse: Box::new(parse),
            hint: |_| None,
            write: Box::new(move |value| Some(write(value))),
        }
    }

    pub(super) fn with_hint(self, hint: Hint) -> Self {
        Self { hint, ..self }
    }
}

/// The same, for a key that must be there.
pub(super) fn required<T>(kind: Kind<T>) -> Kind<T> {
    Kind {
        required: true,
        ..kind
    }
}

/// `None` if the key is left out.
pub(super) fn optional<T: 'static>(kind: Kind<T>) -> Kind<Option<T>> {
    let (parse, write) = (kind.parse, kind.write);
    Kind {
        form: kind.form,
        required: kind.required,
        parse: Box::new(move |value| parse(value).map(Some)),
        hint: kind.hint,
        write: Box::new(move |value| value.as_ref().and_then(&write)),
    }
}

/// `None` if it is `"off"`.
pub(super) fn or_off<T: 'static>(kind: Kind<T>) -> Kind<Option<T>> {
    or(OFF, kind)
}

/// `None` if it is `"auto"`.
pub(super) fn or_auto<T: 'static>(kind: Kind<T>) -> Kind<Option<T>> {
    or(AUTO, kind)
}

/// `None` if it is `word`.
fn or<T: 'static>(word: &'static str, kind: Kind<T>) -> Kind<Option<T>> {
    let Kind {
        form, parse, write, ..
    } = kind;
    Kind {
        form: Form::Or(word, Box::new(form)),
        required: false,
        parse: Box::new(move |value| match value.as_str() {
            Some(text) if text == word => Some(None),
            _ => parse(value).map(Some),
        }),
        hint: kind.hint,
        write: Box::new(move |value| match value {
            None => Some(quoted(word)),
            Some(value) => write(value),
        }),
    }
}

pub(super) fn boolean() -> Kind<bool> {
    let parse = |value: &DeValue<'_>| value.as_bool();
    Kind::new(Form::Boolean, parse, bool::to_string)
}

pub(super) fn text() -> Kind<String> {
    let parse = |value: &DeValue<'_>| value.as_str().map(str::to_owned);
    Kind::new(Form::Text, parse, |text| quoted(text))
}

/// An integer from 1.
pub(super) fn count<T: TryFrom<u64> + ToString + 'static>() -> Kind<T> {
    integer(1..=MAX_COUNT)
}

/// An integer in `range`.
pub(super) fn integer<T>(range: RangeInclusive<u64>) -> Kind<T>
where
    T: TryFrom<u64> + ToString + 'static,
{
    let form = Form::Integer(range.clone());
    let parse = move |value: &DeValue<'_>| {
        let number = parse_integer(value).filter(|number| range.contains(number));
        T::try_from(number?).ok()
    };
    Kind::new(form, parse, T::to_string)
}

/// A number of bytes in `range`.
pub(super) fn size<T>(range: RangeInclusive<u64>) -> Kind<T>
where
    T: Copy + TryFrom<u64> + TryInto<u64>,
{
    let form = Form::Size(range.clone());
    let parse = move |value: &DeValue<'_>| {
        let bytes = match value.as_str() {
            Some(text) => parse_bytes(text),
            None => parse_integer(value),
        };
        T::try_from(bytes.filter(|bytes| range.contains(bytes))?).ok()
    };
    let write = |bytes: &T| quoted(&format_bytes((*bytes).try_into().unwrap_or(u64::MAX)));
    Kind::new(form, parse, write)
}

/// A duration of `min` or more.
pub(super) fn duration(min: Duration) -> Kind<Duration> {
    let form = Form::Duration(min..=MAX_DURATION);
    let parse = move |value: &DeValue<'_>| duration_from(min, value.as_str()?).ok();
    Kind::new(form, parse, write_duration)
}

/// Reads a duration of `min` or more outside of a file.
///
/// # Errors
/// What was expected, to follow that word.
pub(crate) fn duration_from(min: Duration, text: &str) -> Result<Duration, String> {
    let range = min..=MAX_DURATION;
    parse_duration(text)
        .filter(|duration| range.contains(duration))
        .ok_or_else(|| Form::Duration(range.clone()).to_string())
}

pub(super) fn write_duration(duration: &Duration) -> String {
    quoted(&humantime::format_duration(*duration).to_string())
}

pub(super) fn address() -> Kind<SocketAddr> {
    let parse = |value: &DeValue<'_>| value.as_str()?.parse().ok();
    let write = |address: &SocketAddr| quoted(&address.to_string());
    Kind::new(Form::Address, parse, write)
}

fn parse_integer(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}
