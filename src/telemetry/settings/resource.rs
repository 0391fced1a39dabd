//! The resource: the attributes that say of which process spans and metrics are.

use std::collections::BTreeMap;

use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};
use percent_encoding::percent_decode_str;

use super::variables::{Variables, shown};

const SERVICE_NAME: &str = "service.name";
const SERVICE_VERSION: &str = "service.version";
const SERVICE_INSTANCE_ID: &str = "service.instance.id";
const K8S_POD_UID: &str = "k8s.pod.uid";

pub(super) fn read(variables: &mut Variables<'_>) -> Vec<(String, String)> {
    let mut attributes = variables
        .read(&["OTEL_RESOURCE_ATTRIBUTES"], attributes)
        .unwrap_or_default();
    if let Some((_, name)) = variables.first(&["OTEL_SERVICE_NAME"]) {
        attributes.insert(SERVICE_NAME.to_owned(), name);
    }
    let pod = attributes.get(K8S_POD_UID).cloned();
    let mut default = |name: &str, value: &dyn Fn() -> String| {
        attributes.entry(name.to_owned()).or_insert_with(value);
    };
    default(SERVICE_NAME, &|| "fanfare".to_owned());
    default(SERVICE_VERSION, &|| env!("CARGO_PKG_VERSION").to_owned());
    // It distinguishes replicas.
    default(SERVICE_INSTANCE_ID, &|| {
        pod.clone().unwrap_or_else(random_uuid)
    });
    attributes.into_iter().collect()
}

/// `key=value,key=value`, percent-encoded; the last of equal keys wins. With a mistake
/// anywhere, none of it is used, as the specification asks.
fn attributes(text: &str) -> Result<BTreeMap<String, String>, String> {
    pairs(text)
        .map(|pair| {
            let (_, key, value) = pair.map_err(|number| {
                let entry = text.split(',').nth(number - 1).unwrap_or_default();
                format!(
                    "key=value,key=value with percent-encoding (not {})",
                    shown(entry)
                )
            })?;
            Ok((key, value))
        })
        .collect()
}

/// The decoded pairs of `key=value,key=value`, each with its number, from 1; of a malformed
/// one, only the number. Empty entries are skipped.
pub(super) fn pairs(
    text: &str,
) -> impl Iterator<Item = Result<(usize, String, String), usize>> + '_ {
    (1..)
        .zip(text.split(','))
        .filter(|(_, entry)| !entry.trim().is_empty())
        .map(|(number, entry)| {
            let (key, value) = entry.split_once('=').ok_or(number)?;
            let key = decoded(key.trim()).filter(|key| !key.is_empty());
            let value = decoded(value.trim());
            Ok((number, key.ok_or(number)?, value.ok_or(number)?))
        })
}

/// `None` if a `%` does not begin an encoded byte, or the bytes are not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let encoded = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(encoded) {
        return None;
    }
    let decoded = percent_decode_str(text).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

/// Version 4, variant 1 (RFC 9562).
fn random_uuid() -> String {
    let mut bytes = RandomIdGenerator::default().new_trace_id().to_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}
