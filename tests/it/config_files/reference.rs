//! `reference.md`: a table for each section.

use super::{Key, Section, forms::words};

const HEAD: &str = "\
<!-- Written by tests/it/config_files.rs out of src/config; change it there. -->
# Configuration reference

One TOML file, `fanfare serve --config FILE`. A key that is not here is a mistake, and every mistake is named at once;
`fanfare check --config FILE` names them without serving, and prints the settings that result.
[`fanfare.example.toml`](fanfare.example.toml) has every key; with [`fanfare.schema.json`](fanfare.schema.json) an editor
completes, explains and checks them (`#:schema PATH` in the first line, for Taplo and Even Better TOML).

- A *duration* is a string with units: `\"250ms\"`, `\"1m 30s\"`, `\"1.5h\"`.
- A *size* is a number of bytes, or a string with a unit: `4096`, `\"64KiB\"`, `\"4MiB\"`, `\"1GiB\"`.
- Paths are from the working directory of the process. A change takes a restart.

Telemetry and logs are set up by environment variables (`OTEL_*`, `RUST_LOG`): see
[Logs, traces and metrics](../observability/telemetry.md).
";

pub fn write(sections: &[Section]) -> String {
    let mut page = HEAD.to_owned();
    for section in sections {
        let heading = format!("\n## `[{}]`\n\n{}\n\n", section.path, section.intro);
        page.push_str(&heading);
        page.push_str("| key | type, unit | default | limits | meaning, and why this default |\n");
        page.push_str("|---|---|---|---|---|\n");
        page.extend(section.keys.iter().map(row));
    }
    page
}

fn row(key: &Key) -> String {
    let (kind, limits) = words(&key.form);
    let default = match &key.default {
        Some(default) => format!("`{default}`"),
        None if key.required => "required".to_owned(),
        None => String::new(),
    };
    let docs = key.docs.replace('|', "\\|");
    format!(
        "| `{}` | {kind} | {default} | {limits} | {docs} |\n",
        key.name
    )
}
