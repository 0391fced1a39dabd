//! Where tool services listen: one URL, or several.

use http::Uri;
use toml::de::DeValue;

use super::{
    form::Form,
    kind::Kind,
    text::{quoted, shown},
};
use crate::transport::endpoint::parse_endpoint;

const MAX_ENDPOINTS: usize = 64;

/// `http://host:port` or `https://host:port`, as the only one of a list.
pub(super) fn endpoint() -> Kind<Vec<Uri>> {
    let parse = |value: &DeValue<'_>| Some(vec![parse_one(value)?]);
    let write = |endpoints: &Vec<Uri>| endpoints.first().map_or_else(String::new, write_one);
    Kind::new(Form::Endpoint, parse, write).with_hint(|value| {
        if value.as_array().is_some() {
            return Some("or `endpoints`, for several".to_owned());
        }
        let uri: Uri = value.as_str()?.parse().ok()?;
        let has_path = uri.path_and_query().is_some_and(|path| path != "/");
        has_path.then(|| "without a path or query".to_owned())
    })
}

/// Several such URLs, each different.
pub(super) fn endpoints() -> Kind<Vec<Uri>> {
    let count = 1..=MAX_ENDPOINTS;
    let form = Form::Endpoints(count.clone());
    let parse = move |value: &DeValue<'_>| {
        let (endpoints, unfit) = parse_all(value)?;
        (unfit.is_none() && count.contains(&endpoints.len())).then_some(endpoints)
    };
    let write = |endpoints: &Vec<Uri>| {
        let endpoints: Vec<_> = endpoints.iter().map(write_one).collect();
        format!("[{}]", endpoints.join(", "))
    };
    Kind::new(form, parse, write).with_hint(|value| match parse_all(value) {
        Some((_, unfit)) => unfit.map(|unfit| format!("not {unfit}")),
        None => parse_one(value).map(|_| "or `endpoint`, for a single one".to_owned()),
    })
}

/// The elements of an array before the first, if any, that is no endpoint or there
/// already, and that one.
fn parse_all(value: &DeValue<'_>) -> Option<(Vec<Uri>, Option<String>)> {
    let mut endpoints = Vec::new();
    for element in value.as_array()? {
        match parse_one(element.get_ref()) {
            Some(endpoint) if !endpoints.contains(&endpoint) => endpoints.push(endpoint),
            _ => return Some((endpoints, Some(shown(element.get_ref())))),
        }
    }
    Some((endpoints, None))
}

fn parse_one(value: &DeValue<'_>) -> Option<Uri> {
    parse_endpoint(value.as_str()?)
}

fn write_one(uri: &Uri) -> String {
    quoted(&uri.to_string())
}
