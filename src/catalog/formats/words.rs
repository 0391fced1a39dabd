//! What a format can't express, in words; and the measures of texts and values.

use serde_json::{Map, Value};

/// How much of a schema is quoted.
const QUOTED: usize = 500;

/// Texts, one below the other.
pub(super) fn paragraphs(first: &str, others: &[String]) -> String {
    let others = others.iter().map(String::as_str);
    let texts = [first].into_iter().chain(others);
    let texts: Vec<_> = texts.filter(|text| !text.is_empty()).collect();
    texts.join("\n\n")
}

/// How long a text is for a program that counts in UTF-16.
pub(super) fn length(text: &str) -> usize {
    text.encode_utf16().count()
}

/// `text`, or its beginning and three dots.
pub(super) fn cut(text: &str, max: usize) -> String {
    const DOTS: &str = "...";
    if length(text) <= max {
        return text.to_owned();
    }
    let mut room = max.saturating_sub(DOTS.len());
    let fits = |c: &char| {
        let width = c.len_utf16();
        let fits = width <= room;
        room = if fits { room - width } else { 0 };
        fits
    };
    let beginning: String = text.chars().take_while(fits).collect();
    beginning + DOTS
}

/// Names for a person: `a`, `b`.
pub(super) fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// A value as JSON, not too long.
pub(super) fn quoted(value: &Value) -> String {
    // The text of all of it may be far longer than what is shown.
    cut(&value.to_string(), QUOTED)
}

/// The same of an object.
pub(super) fn quoted_members(members: &Map<String, Value>) -> String {
    let mut text = String::from("{");
    for (index, (key, value)) in members.iter().enumerate() {
        if text.len() > QUOTED {
            break;
        }
        let comma = if index == 0 { "" } else { "," };
        text += &format!("{comma}{}:{value}", Value::from(key.as_str()));
    }
    cut(&(text + "}"), QUOTED)
}

/// How deep a value nests: 0 if it does not.
pub(super) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => depth_of_members(members),
        _ => 0,
    }
}

/// How deep an object nests, itself included.
pub(super) fn depth_of_members(members: &Map<String, Value>) -> usize {
    1 + members.values().map(depth).max().unwrap_or(0)
}

/// How large the texts of a value are, but for objects.
pub(super) fn plain_size(value: &Value) -> usize {
    match value {
        Value::String(text) => 8 + text.len(),
        Value::Array(items) => 8 + items.iter().map(plain_size).sum::<usize>(),
        _ => 8,
    }
}

/// Adds to the description of a schema.
pub(super) fn add(schema: &mut Map<String, Value>, text: &str) {
    let about = schema.get("description").and_then(Value::as_str);
    let text = match about {
        Some(about) if !about.is_empty() => format!("{about} ({text})"),
        _ => text.to_owned(),
    };
    schema.insert("description".to_owned(), text.into());
}
