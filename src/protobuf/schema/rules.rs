//! The rules of `buf.validate` that JSON Schema has words for; others are told in the
//! description. The service remains the judge of all of them.

use std::str::from_utf8;

use serde_json::{Map, Value as Json, json};

use super::describe;
use crate::{
    json::wire::{self, Raw},
    protobuf::{
        decode::integer,
        types::{Field, Kind, Types},
    },
};

/// How many values of `in` are listed.
const MAX_VALUES: usize = 200;

/// `buf.validate.Ignore`
const IF_ZERO_VALUE: u64 = 1;
const ALWAYS: u64 = 3;

/// Whether `buf.validate` wants a field to be there.
pub(super) fn is_required(field: &Field) -> bool {
    Rules::of(field).required
}

/// An encoded `buf.validate.FieldRules`, as far as it was looked into.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules<'a> {
    required: bool,
    /// The rules of the field's type.
    of_type: &'a [u8],
    /// What must hold, in words or in CEL.
    conditions: Vec<&'a str>,
}

impl<'a> Rules<'a> {
    pub(super) fn of(field: &'a Field) -> Self {
        Self::new(field.rules.as_deref().unwrap_or_default())
    }

    fn new(encoded: &'a [u8]) -> Self {
        let mut rules = Self::default();
        let mut ignore = 0;
        for (number, raw) in fields(encoded) {
            match (number, raw) {
                (25, Raw::Varint(it)) => rules.required = it != 0,
                (27, Raw::Varint(it)) => ignore = it,
                (23, Raw::Bytes(rule)) => {
                    let of_rule = |wanted| {
                        let mut fields = fields(rule).filter(move |(number, _)| *number == wanted);
                        fields
                            .find_map(|(_, raw)| text(raw))
                            .filter(|text| !text.is_empty())
                    };
                    // Its message, or else its expression.
                    rules.conditions.extend(of_rule(2).or_else(|| of_rule(3)));
                }
                (29, raw) => rules.conditions.extend(text(raw)),
                (1..=22, Raw::Bytes(it)) => rules.of_type = it,
                _ => {}
            }
        }
        rules.required &= ignore != IF_ZERO_VALUE;
        if ignore == ALWAYS {
            Self::default()
        } else {
            rules
        }
    }

    /// The rules in this field of the rules of the type.
    fn inner(&self, wanted: u32) -> Self {
        let inner = fields(self.of_type).find_map(|(number, raw)| match raw {
            Raw::Bytes(rules) if number == wanted => Some(rules),
            _ => None,
        });
        Self::new(inner.unwrap_or_default())
    }

    pub(super) fn of_items(&self) -> Self {
        self.inner(4)
    }

    pub(super) fn of_keys(&self) -> Self {
        self.inner(4)
    }

    pub(super) fn of_values(&self) -> Self {
        self.inner(5)
    }

    /// To the schema of a list.
    pub(super) fn apply_to_list(&self, schema: &mut Map<String, Json>) {
        for (number, raw) in fields(self.of_type) {
            match (number, raw) {
                (1, Raw::Varint(it)) => set(schema, "minItems", it),
                (2, Raw::Varint(it)) => set(schema, "maxItems", it),
                (3, Raw::Varint(it)) => set(schema, "uniqueItems", it != 0),
                _ => {}
            }
        }
        self.tell_conditions(schema);
    }

    /// To the schema of a map.
    pub(super) fn apply_to_map(&self, schema: &mut Map<String, Json>) {
        for (number, raw) in fields(self.of_type) {
            match (number, raw) {
                (1, Raw::Varint(it)) => set(schema, "minProperties", it),
                (2, Raw::Varint(it)) => set(schema, "maxProperties", it),
                _ => {}
            }
        }
        self.tell_conditions(schema);
    }

    /// To the schema of one value.
    pub(super) fn apply(&self, types: &Types, kind: Kind, schema: &mut Map<String, Json>) {
        match kind {
            Kind::String => self.of_string(schema),
            Kind::Enum(at) => {
                let of = types.enumeration(at);
                self.of_enum(schema, |name| of.number_of(name));
            }
            Kind::Bool | Kind::Bytes | Kind::Message(_) | Kind::Group(_) => {}
            kind => self.of_number(kind, schema),
        }
        self.tell_conditions(schema);
    }

    fn tell_conditions(&self, schema: &mut Map<String, Json>) {
        for condition in &self.conditions {
            let condition = &condition[..condition.floor_char_boundary(500)];
            describe(schema, Some(format!("Must hold: {condition}")));
        }
    }

    fn of_string(&self, schema: &mut Map<String, Json>) {
        let mut allowed = Vec::new();
        for (number, raw) in fields(self.of_type) {
            let format = match (number, raw) {
                (19, Raw::Varint(it)) => {
                    set(schema, "minLength", it);
                    set(schema, "maxLength", it);
                    continue;
                }
                (12, Raw::Varint(1)) => "email",
                (13, Raw::Varint(1)) => "hostname",
                (15, Raw::Varint(1)) => "ipv4",
                (16, Raw::Varint(1)) => "ipv6",
                (17, Raw::Varint(1)) => "uri",
                (18, Raw::Varint(1)) => "uri-reference",
                (22, Raw::Varint(1)) => "uuid",
                (2, Raw::Varint(it)) => {
                    set(schema, "minLength", it);
                    continue;
                }
                (3, Raw::Varint(it)) => {
                    set(schema, "maxLength", it);
                    continue;
                }
                (number, raw) => {
                    if let Some(text) = text(raw) {
                        match number {
                            1 => set(schema, "const", text),
                            6 if is_ecma(text) => set(schema, "pattern", text),
                            6 => tell(schema, "Must match the pattern", text),
                            7 => tell(schema, "Must begin with", text),
                            8 => tell(schema, "Must end with", text),
                            9 => tell(schema, "Must contain", text),
                            23 => tell(schema, "Must not contain", text),
                            10 => allowed.push(text),
                            11 => tell(schema, "Must not be", text),
                            _ => {}
                        }
                    }
                    continue;
                }
            };
            set(schema, "format", format);
        }
        if (1..=MAX_VALUES).contains(&allowed.len()) {
            set(schema, "enum", allowed);
        }
    }

    fn of_number(&self, kind: Kind, schema: &mut Map<String, Json>) {
        let as_text = schema.get("type").and_then(Json::as_str) == Some("string");
        let mut bounds: [Option<Json>; 4] = Default::default();
        let mut allowed = Vec::new();
        for (number, raw) in fields(self.of_type) {
            for value in numbers(kind, raw) {
                match number {
                    1 if as_text => set(schema, "const", value.to_string()),
                    1 => set(schema, "const", value),
                    2..=5 => bounds[number as usize - 2] = Some(value),
                    6 if as_text => allowed.push(Json::String(value.to_string())),
                    6 => allowed.push(value),
                    7 => tell(schema, "Must not be", &value.to_string()),
                    _ => {}
                }
            }
        }
        if (1..=MAX_VALUES).contains(&allowed.len()) {
            set(schema, "enum", allowed);
        }
        let [lt, lte, gt, gte] = bounds;
        let bound = |one: &Option<Json>, other: &Option<Json>| {
            one.as_ref().or(other.as_ref()).and_then(Json::as_f64)
        };
        let (upper, lower) = (bound(&lt, &lte), bound(&gt, &gte));
        // A lower bound above the upper one means: outside of both.
        let outside = lower.zip(upper).is_some_and(|(lower, upper)| lower > upper);
        for (bound, keyword, words) in [
            (lt, "exclusiveMaximum", "Must be less than"),
            (lte, "maximum", "Must be at most"),
            (gt, "exclusiveMinimum", "Must be greater than"),
            (gte, "minimum", "Must be at least"),
        ] {
            match bound {
                Some(bound) if outside => tell(schema, &format!("Or: {words}"), &bound.to_string()),
                // Strings have no bounds.
                Some(bound) if as_text => tell(schema, words, &bound.to_string()),
                Some(bound) => set(schema, keyword, bound),
                None => {}
            }
        }
    }

    fn of_enum(&self, schema: &mut Map<String, Json>, number_of: impl Fn(&str) -> Option<i32>) {
        let Some(Json::Array(names)) = schema.get_mut("enum") else {
            return;
        };
        let (mut allowed, mut refused) = (Vec::new(), Vec::new());
        for (number, raw) in fields(self.of_type) {
            let values = numbers(Kind::Int32, raw)
                .into_iter()
                .filter_map(|it| it.as_i64());
            match number {
                1 | 3 => allowed.extend(values),
                4 => refused.extend(values),
                _ => {}
            }
        }
        let kept = names.iter().filter(|name| {
            let number = name.as_str().and_then(&number_of).map(i64::from);
            number.is_some_and(|number| {
                (allowed.is_empty() || allowed.contains(&number)) && !refused.contains(&number)
            })
        });
        let kept: Vec<_> = kept.cloned().collect();
        // An enum without values could not be written.
        if !kept.is_empty() {
            *names = kept;
        }
    }
}

/// The fields of an encoded message, as far as it is one.
fn fields(mut left: &[u8]) -> impl Iterator<Item = (u32, Raw<'_>)> {
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        wire::field(&mut left)
    })
}

fn text(raw: Raw<'_>) -> Option<&str> {
    match raw {
        Raw::Bytes(text) => from_utf8(text).ok(),
        _ => None,
    }
}

/// The numbers of a kind that are in a field: one, or those that are packed.
fn numbers(kind: Kind, raw: Raw<'_>) -> Vec<Json> {
    let one = |raw: Raw<'_>| match (kind, raw) {
        (Kind::Double, Raw::Fixed64(bits)) => finite(f64::from_bits(bits)),
        (Kind::Float, Raw::Fixed32(bits)) => {
            finite(f32::from_bits(bits).to_string().parse().unwrap_or(f64::NAN))
        }
        _ => {
            let value = integer(kind, raw)?;
            let signed = i64::try_from(value).map(Json::from);
            signed
                .or_else(|_| u64::try_from(value).map(Json::from))
                .ok()
        }
    };
    let Raw::Bytes(mut packed) = raw else {
        return one(raw).into_iter().collect();
    };
    let mut values = Vec::new();
    while !packed.is_empty() && values.len() <= MAX_VALUES {
        let raw = match kind {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => {
                wire::fixed64(&mut packed).map(Raw::Fixed64)
            }
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => {
                wire::fixed32(&mut packed).map(Raw::Fixed32)
            }
            _ => wire::varint(&mut packed).map(Raw::Varint),
        };
        match raw.and_then(one) {
            Some(value) => values.push(value),
            None => break,
        }
    }
    values
}

fn finite(number: f64) -> Option<Json> {
    if number.fract() == 0.0 && number.abs() < 2f64.powi(53) {
        return Some(Json::from(number as i64));
    }
    serde_json::Number::from_f64(number).map(Json::Number)
}

fn set(schema: &mut Map<String, Json>, keyword: &str, value: impl Into<Json>) {
    schema.insert(keyword.to_owned(), value.into());
}

fn tell(schema: &mut Map<String, Json>, words: &str, value: &str) {
    let value = &value[..value.floor_char_boundary(200)];
    describe(schema, Some(format!("{words} {}.", json!(value))));
}

/// Whether a pattern of RE2 means the same in ECMAScript, as far as can be seen.
fn is_ecma(pattern: &str) -> bool {
    const ONLY_RE2: [&str; 7] = ["[[:", "\\A", "\\z", "\\Q", "\\C", "\\a", "\\x{"];
    let groups = pattern.match_indices("(?");
    let mut groups = groups.map(|(at, _)| &pattern[at + 2..]);
    let classes = pattern
        .match_indices("\\p")
        .chain(pattern.match_indices("\\P"));
    let mut classes = classes.map(|(at, _)| &pattern[at + 2..]);
    pattern.len() <= 1024
        && groups.all(|rest| rest.starts_with(':'))
        && classes.all(|rest| rest.starts_with('{'))
        && !ONLY_RE2.iter().any(|it| pattern.contains(it))
}
