//! Keys and strings as TOML writes them, and values as messages show them.

use toml::de::DeValue;

/// How much of an offending value a message shows, in characters.
const MAX_SHOWN: usize = 80;

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
        DeValue::String(text) => shown_text(text),
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

/// As [`shown`], of a string.
pub(super) fn shown_text(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", quoted(&text[..end])),
        None => quoted(text),
    }
}
