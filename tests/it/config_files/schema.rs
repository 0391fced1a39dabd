//! `fanfare.schema.json`: JSON Schema draft-07, which is what editors' TOML plugins
//! know best. What a pattern or a bound can say is in it; what it can't is left to
//! `fanfare check`: limits of durations and of sizes with a unit, limits that
//! depend on other values, whether a service or a file is there.

use fanfare::{
    config::{Config, Form},
    core::status::Code,
};
use serde_json::{Map, Value, json};

use super::{Key, Section, forms::words};

/// As `http::Uri` takes it; a port out of range is left to `fanfare check`.
const ENDPOINT: &str =
    r"^[hH][tT][tT][pP][sS]?://(\[[0-9A-Fa-f:.]+\]|[^\s/?#@:\[\]]+)(:[0-9]+)?/?$";
const HTTPS: &str = "^[hH][tT][tT][pP][sS]:";
/// As `SocketAddr` takes it.
const ADDRESS: &str = r"^([0-9.]+|\[[0-9A-Fa-f:.]+(%[0-9]+)?\]):[0-9]+$";
/// As humantime takes it.
const DURATION: &str = concat!(
    r"^(0|\s*([0-9][0-9\s]*(\.[0-9][0-9\s]*)?(nanos|nsec|ns|usec|us|µs|millis|msec|ms|",
    r"seconds|second|secs|sec|s|minutes|minute|min|mins|m|hours|hour|hr|hrs|h|",
    r"days|day|d|weeks|week|wk|wks|w|months|month|M|years|year|yr|yrs|y)\s*)+)$",
);

pub fn write(sections: &[Section]) -> String {
    let section = |path: &str| {
        let section = sections.iter().find(|section| section.path == path);
        section.unwrap_or_else(|| panic!("no [{path}]"))
    };
    let mut service = table(section("services.NAME"));
    for name in ["tls", "breaker", "retry_budget"] {
        let table = table(section(&format!("services.NAME.{name}")));
        service["properties"][name] = table;
    }
    service["properties"]["tls"]["dependencies"] =
        json!({"cert_file": ["key_file"], "key_file": ["cert_file"]});
    service["oneOf"] = json!([{"required": ["endpoint"]}, {"required": ["endpoints"]}]);
    // TLS only where there is an endpoint for it.
    service["if"] = json!({"required": ["tls"]});
    service["then"] = json!({"anyOf": [
        {"required": ["endpoint"], "properties": {"endpoint": {"pattern": HTTPS}}},
        {"required": ["endpoints"],
         "properties": {"endpoints": {"contains": {"pattern": HTTPS}}}},
    ]});

    let mut defaults = table(section("services.NAME.tool_defaults"));
    for name in ["retry", "hedge"] {
        let table = table(section(&format!("services.NAME.tool_defaults.{name}")));
        defaults["properties"][name] = table;
    }
    defaults["properties"]["hedge"]["required"] = json!(["delay"]);
    defaults["if"] = idempotent(false);
    defaults["then"] = unrepeated();
    service["properties"]["tool_defaults"] = defaults;
    let grpc = json!({"required": ["protocol"], "properties": {"protocol": {"const": "grpc"}}});
    let exposing = json!({"required": ["expose"], "properties": {"expose": {"minItems": 1}}});
    let unless_exposing = json!({"hide": false, "prefix": false, "tool_defaults": false});
    let no_stream = json!({"properties": {"stream": false}});
    service["allOf"] = json!([
        {"if": exposing, "else": {"properties": unless_exposing}},
        {"if": grpc, "else": {"properties": {
            "descriptors": false, "tool_defaults": no_stream,
        }}},
        {"if": {"anyOf": [grpc, exposing]}, "else": {"properties": {"refresh_interval": false}}},
    ]);

    let mut tool = table(section("tools.NAME"));
    tool["properties"]["retry"] = table(section("tools.NAME.retry"));
    tool["properties"]["hedge"] = table(section("tools.NAME.hedge"));
    tool["properties"]["breaker"] = table(section("tools.NAME.breaker"));
    tool["required"] = json!(["service"]);
    tool["properties"]["hedge"]["required"] = json!(["delay"]);
    tool["if"] = idempotent(true);
    tool["else"] = unrepeated();

    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Fanfare",
        "description": "The configuration file of `fanfare serve`",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "server": table(section("server")),
            "limits": table(section("limits")),
            "services": named("[A-Za-z0-9_.-]{1,64}", &service, "The remote tool services"),
            "tools": named("[A-Za-z0-9_./-]{1,128}", &tool, "The tools that may be called"),
        },
        "definitions": {
            // One that is over zero has a digit that is not.
            "duration": {"type": "string", "pattern": DURATION},
            "positive_duration": {
                "allOf": [{"$ref": "#/definitions/duration"}, {"pattern": "[1-9]"}],
            },
            "endpoint": {"type": "string", "pattern": ENDPOINT},
        },
    });
    serde_json::to_string_pretty(&schema).unwrap() + "\n"
}

/// Where it is said that tools are idempotent, or that they are not.
fn idempotent(are: bool) -> Value {
    json!({"required": ["idempotent"], "properties": {"idempotent": {"const": are}}})
}

/// Without the settings that repeat calls.
fn unrepeated() -> Value {
    json!({"properties": {
        "hedge": false,
        "retry": {"properties": {"max_attempts": false, "codes": false}},
    }})
}

/// Tables under names that the file chooses.
fn named(name: &str, table: &Value, description: &str) -> Value {
    json!({
        "type": "object",
        "description": description,
        "propertyNames": {"pattern": format!("^{name}$")},
        "additionalProperties": table,
    })
}

fn table(section: &Section) -> Value {
    let properties: Map<_, _> = section
        .keys
        .iter()
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    json!({
        "type": "object",
        "description": section.intro,
        "additionalProperties": false,
        "properties": properties,
    })
}

fn property(key: &Key) -> Value {
    let mut property = values(&key.form);
    let (_, limits) = words(&key.form);
    let limits = match limits.as_str() {
        "" => String::new(),
        limits => format!(" Limits: {limits}."),
    };
    property["description"] = json!(format!("{}{limits}", key.docs));
    if let Some(default) = &key.default {
        // As TOML writes it, JSON does.
        property["default"] = serde_json::from_str(default).unwrap();
    }
    property
}

fn values(form: &Form) -> Value {
    match form {
        Form::Boolean => json!({"type": "boolean"}),
        Form::Text | Form::PemFile(_) => json!({"type": "string"}),
        Form::File(_) => json!({"type": "string", "minLength": 1}),
        Form::Patterns => json!({
            "type": "array",
            "items": {"type": "string", "pattern": "^[!-~]{1,512}$"},
            "maxItems": 256,
        }),
        Form::NamePrefix(most) => json!({
            "type": "string",
            "pattern": format!("^[A-Za-z0-9_./-]{{0,{most}}}$"),
        }),
        Form::HostName => json!({"type": "string", "minLength": 1}),
        Form::OneOf(words) => json!({"enum": words}),
        Form::Or(word, other) => json!({"anyOf": [{"const": word}, values(other)]}),
        Form::Integer(range) => {
            json!({"type": "integer", "minimum": range.start(), "maximum": range.end()})
        }
        Form::Size(range) => json!({"anyOf": [
            {"type": "integer", "minimum": range.start(), "maximum": range.end()},
            {"type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)?$"},
        ]}),
        Form::Duration(range) if range.start().is_zero() => reference("duration"),
        Form::Duration(_) => reference("positive_duration"),
        Form::Address => json!({"type": "string", "pattern": ADDRESS}),
        Form::Endpoint => reference("endpoint"),
        Form::Endpoints(count) => json!({
            "type": "array",
            "items": {"$ref": "#/definitions/endpoint"},
            "minItems": count.start(),
            "maxItems": count.end(),
            "uniqueItems": true,
        }),
        Form::StatusCodes => json!({"type": "array", "items": {"enum": codes()}}),
    }
}

/// What stands beside a `$ref` is ignored in draft-07, so it is wrapped.
fn reference(definition: &str) -> Value {
    json!({"allOf": [{"$ref": format!("#/definitions/{definition}")}]})
}

/// Those that the parser takes.
fn codes() -> Vec<&'static str> {
    let taken = |name: &&str| {
        let text = format!(
            "services.s.endpoint = 'http://a'\ntools.t = {{ service = 's', idempotent = true, \
             retry.codes = ['{name}'] }}"
        );
        Config::parse(&text).is_ok()
    };
    Code::ALL
        .map(Code::name)
        .into_iter()
        .filter(taken)
        .collect()
}
