//! `fanfare.example.toml`: every key with what it is for; what is a default is a
//! comment, so that a copy of the file follows the defaults of later versions.

use super::{Key, Section};

const HEAD: &str = "\
#:schema ./fanfare.schema.json
# Written by tests/it/config_files.rs out of src/config.
#
# Every setting of Fanfare. A line such as `#reflection = true` shows a default:
# take the sign away to change it. What is not a comment, this example sets.
";

/// What the example sets: section, its name here, key, value.
const SET: [(&str, &str, &str); 8] = [
    (
        "services.NAME",
        "endpoint",
        "\"http://weather.tools.svc:50051\"",
    ),
    ("services.NAME", "expose", "[\"forecast_*\"]"),
    ("services.NAME.tool_defaults.hedge", "delay", "\"p95\""),
    ("tools.NAME", "service", "\"weather\""),
    ("tools.NAME", "description", "\"Current weather of a city\""),
    ("tools.NAME", "timeout", "\"5s\""),
    ("tools.NAME", "idempotent", "true"),
    ("tools.NAME.hedge", "delay", "\"p95\""),
];

/// Values of those that have no default, where this example sets none: files that
/// are not there, and what can't be beside another key. Some have a default that is not
/// the same as saying it, or that not every service may say.
const SHOWN: [(&str, &str); 11] = [
    (
        "endpoints",
        "[\"http://a.tools.svc:50051\", \"http://b.tools.svc:50051\"]",
    ),
    ("ca_file", "\"/etc/fanfare/tls/ca.crt\""),
    ("cert_file", "\"/etc/fanfare/tls/tls.crt\""),
    ("key_file", "\"/etc/fanfare/tls/tls.key\""),
    ("server_name", "\"weather.tools.svc\""),
    ("remote", "\"weather.current\""),
    (
        "input_schema_file",
        "\"/etc/fanfare/get_weather.schema.json\"",
    ),
    ("stream", "\"collect\""),
    ("descriptors", "\"/etc/fanfare/weather.binpb\""),
    ("services.NAME.tool_defaults.timeout", "\"10s\""),
    ("services.NAME.tool_defaults.idempotent", "true"),
];

const TAIL: &str = "
# Behind TLS, with several replicas under one name and one elsewhere.
[services.search]
endpoints = [\"https://search.tools.svc:443\", \"https://search.example.com\"]

[tools.search]
service = \"search\"
description = \"Search the web\"
idempotent = true

# A name with dots or slashes is quoted. Not idempotent: what may have run is never
# sent again.
[tools.\"mail.send\"]
service = \"weather\"
description = \"Send a mail\"
timeout = \"10s\"
max_concurrency = 20
";

pub fn write(sections: &[Section]) -> String {
    let mut file = HEAD.to_owned();
    for section in sections {
        file.push('\n');
        file.push_str(&comment(&section.intro));
        let path = section.path.replace("services.NAME", "services.weather");
        let path = path.replace("tools.NAME", "tools.get_weather");
        // The example has no files.
        let sign = if path.ends_with(".tls") { "# " } else { "" };
        file.push_str(&format!("{sign}[{path}]\n"));
        let mut before = "";
        for key in &section.keys {
            // Two keys may be explained together.
            if key.docs != before {
                file.push_str(&comment(&key.docs));
            }
            file.push_str(&line(section, key));
            before = &key.docs;
        }
    }
    file + TAIL
}

fn line(section: &Section, key: &Key) -> String {
    let of = |(path, name, _): &&(&str, &str, &str)| *path == section.path && *name == key.name;
    if let Some((_, name, value)) = SET.iter().find(of) {
        return format!("{name} = {value}\n");
    }
    let full = format!("{}.{}", section.path, key.name);
    let shown = SHOWN
        .iter()
        .find(|(name, _)| *name == key.name || *name == full);
    match (shown, &key.default) {
        (Some((_, value)), _) => format!("# {} = {value}\n", key.name),
        (None, Some(default)) => format!("#{} = {default}\n", key.name),
        (None, None) => panic!("{} has no value here", key.name),
    }
}

/// Wrapped at 88.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > 88 {
            lines.extend([line.as_str(), "\n"]);
            line = String::from("#");
        }
        line.extend([" ", word]);
    }
    lines + &line + "\n"
}
