//! Files with a JSON Schema: read with the configuration. That a schema is one of
//! objects, and means something, is seen where it is used.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Map, Value};
use toml::de::DeValue;

use super::{
    form::Form,
    kind::Kind,
    reader::Reader,
    text::{quoted, shown_text},
};

const JSON_SCHEMA: &str = "a JSON Schema";
const MAX_BYTES: u64 = 256 << 10;

/// What such a file has in it.
pub type InputSchema = Arc<Map<String, Value>>;

pub(super) fn path() -> Kind<PathBuf> {
    let parse = |value: &DeValue<'_>| {
        let path = value.as_str().filter(|path| !path.is_empty())?;
        Some(PathBuf::from(path))
    };
    let write = |path: &PathBuf| quoted(&path.to_string_lossy());
    Kind::new(Form::File(JSON_SCHEMA), parse, write)
}

/// What is in the file that `key` names; `None` if it names none, or one that is a
/// mistake, or if files are not read.
pub(super) fn load(
    table: &mut Reader<'_, '_>,
    key: &'static str,
    path: Option<&Path>,
) -> Option<InputSchema> {
    let path = path?;
    if table.is_offline() {
        table.leave_unread(key, path.display());
        return None;
    }
    let problem = match read(path) {
        Ok(schema) => return Some(schema),
        Err(problem) => problem,
    };
    let (expected, got) = (Form::File(JSON_SCHEMA), shown_text(&path.to_string_lossy()));
    table.refuse(
        key,
        format_args!("expected {expected} ({problem}), got {got}"),
    );
    None
}

fn read(path: &Path) -> Result<InputSchema, String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_BYTES {
        return Err(format!("it has {length} bytes, over {MAX_BYTES}"));
    }
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let schema = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    Ok(Arc::new(schema))
}
