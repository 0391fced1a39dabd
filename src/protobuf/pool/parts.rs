//! Parts of linking that need nothing but what they are given.

use std::collections::{BTreeSet, HashMap, HashSet, hash_map::Entry};

use super::{
    MAX_NAME_BYTES,
    index::{Declared, FileEntry},
};
use crate::protobuf::{
    descriptor,
    types::{EnumType, EnumValue, Field, Kind, Mapping, MessageType},
};

/// How much of a comment is kept, in bytes.
const MAX_COMMENT_BYTES: usize = 2048;
/// How many names of what is not there are kept.
pub(super) const MAX_MISSING: usize = 1000;

/// Names of fields, sorted, with the places of the fields.
type Names = Box<[(Box<str>, u32)]>;

/// Gives each field a name of its own in JSON. Returns all names by which they are known,
/// as `MessageType::named` needs them. A name of JSON that is another field's in the `.proto`
/// stays with that one.
pub(super) fn name_fields(fields: &mut [Field]) -> Result<Names, String> {
    let mut known: HashMap<Box<str>, u32> = HashMap::with_capacity(2 * fields.len());
    for (at, field) in (0..).zip(&*fields) {
        if known.insert(field.name.clone(), at).is_some() {
            return Err(format!("has two fields with the name {}", field.name));
        }
    }
    for (at, field) in (0..).zip(fields) {
        match known.entry(field.json_name.clone()) {
            Entry::Vacant(entry) => drop(entry.insert(at)),
            Entry::Occupied(entry) if *entry.get() == at => {}
            Entry::Occupied(_) => field.json_name = field.name.clone(),
        }
    }
    let mut names: Vec<_> = known.into_iter().collect();
    names.sort_unstable_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    Ok(names.into())
}

/// Whether these are the key and the value of a map's entry.
pub(super) fn is_entry(fields: &[Field]) -> bool {
    let is_key = |field: &Field| {
        let no_key = [Kind::Double, Kind::Float, Kind::Bytes].contains(&field.kind);
        field.number == 1
            && !no_key
            && !matches!(field.kind, Kind::Enum(_))
            && field.kind.message().is_none()
    };
    let [key, value] = fields else { return false };
    is_key(key)
        && value.number == 2
        && key.cardinality.is_singular()
        && value.cardinality.is_singular()
        && !matches!(value.kind, Kind::Group(_))
}

/// A type that needs one that can't be used can't be used either.
pub(super) fn spread_unusable(messages: &mut [MessageType]) {
    let mut users: Vec<Vec<u32>> = vec![Vec::new(); messages.len()];
    for (at, message) in (0..).zip(&*messages) {
        for used in message
            .fields
            .iter()
            .filter_map(|field| field.kind.message())
        {
            // Fields of one type are often neighbours.
            let users = &mut users[used as usize];
            if users.last() != Some(&at) {
                users.push(at);
            }
        }
    }
    let is_unusable = |at: &usize| messages[*at].unusable.is_some();
    let mut waiting: Vec<usize> = (0..messages.len()).filter(is_unusable).collect();
    while let Some(at) = waiting.pop() {
        let why = messages[at].unusable.clone();
        for user in std::mem::take(&mut users[at]) {
            let user = user as usize;
            if messages[user].unusable.is_none() {
                messages[user].unusable.clone_from(&why);
                waiting.push(user);
            }
        }
    }
}

/// The mapping of a type that has one of its own.
pub(super) fn mapping(full_name: &str) -> Mapping {
    match full_name.strip_prefix("google.protobuf.") {
        Some("Any") => Mapping::Any,
        Some("Timestamp") => Mapping::Timestamp,
        Some("Duration") => Mapping::Duration,
        Some("FieldMask") => Mapping::FieldMask,
        Some("Struct") => Mapping::Struct,
        Some("Value") => Mapping::Value,
        Some("ListValue") => Mapping::ListValue,
        Some(
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value"
            | "UInt32Value" | "BoolValue" | "StringValue" | "BytesValue",
        ) => Mapping::Wrapper,
        _ => Mapping::Fields,
    }
}

pub(super) fn enumeration(
    declared: &Declared<descriptor::Enum<'_>>,
    files: &[FileEntry<'_>],
) -> EnumType {
    let all = &declared.it.values;
    let named = |name: &str| !name.is_empty() && name.len() <= MAX_NAME_BYTES;
    let values = (0..).zip(all).filter(|(_, (name, _))| named(name));
    let values: Box<[_]> = values
        .map(|(at, (name, number))| EnumValue {
            name: (*name).into(),
            number: *number,
            comment: comment(
                files,
                declared.file,
                &[&declared.path[..], &[2, at]].concat(),
            ),
        })
        .collect();
    let places = 0..u32::try_from(values.len()).unwrap_or(u32::MAX);
    let value = |at: &u32| &values[*at as usize];
    let mut by_number: Vec<u32> = places.clone().collect();
    by_number.sort_by_key(|at| value(at).number);
    by_number.dedup_by_key(|at| value(at).number);
    let mut by_name: Vec<u32> = places.collect();
    by_name.sort_by(|a, b| value(a).name.cmp(&value(b).name));
    EnumType {
        name: declared.full_name.as_str().into(),
        closed: declared.features.closed,
        null: declared.full_name == "google.protobuf.NullValue",
        by_number: by_number.into(),
        by_name: by_name.into(),
        comment: comment(files, declared.file, &declared.path),
        values,
    }
}

/// The comment of what is at this path, as a text without the margin of its lines.
pub(super) fn comment(files: &[FileEntry<'_>], file: usize, path: &[u32]) -> Option<Box<str>> {
    let comments = &files[file].comments;
    if comments.is_empty() {
        return None;
    }
    let comment = comments.get(path)?;
    let lines = comment
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
    let text = lines.collect::<Vec<_>>().join("\n");
    let text = text.trim();
    Some(text[..text.floor_char_boundary(MAX_COMMENT_BYTES)].into())
}

/// The imports that no file is, neither by its name nor by the end of it.
pub(super) fn missing(files: &[FileEntry<'_>], known: &HashSet<&str>) -> BTreeSet<String> {
    let imports = files.iter().flat_map(|file| &file.dependencies);
    let imports: BTreeSet<&str> = imports
        .copied()
        .filter(|import| !known.contains(import))
        .collect();
    let same = |import: &str, name: &str| {
        let ends = |long: &str, short: &str| {
            long.strip_suffix(short)
                .is_some_and(|rest| rest.ends_with('/'))
        };
        ends(import, name) || ends(name, import)
    };
    imports
        .into_iter()
        .filter(|import| !import.is_empty() && import.len() <= MAX_NAME_BYTES)
        .take(MAX_MISSING)
        .filter(|import| files.iter().filter(|file| same(import, file.name)).count() != 1)
        .map(str::to_owned)
        .collect()
}
