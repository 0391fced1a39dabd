//! Services that are asked which tools they have, and what is said of those.

use std::{fs, time::Duration};

use super::{Config, assert_refused, mistaken_keys, problem, tool_name};
use crate::config::{
    Descriptors, FromSource, HedgeDelay, Limits, Pattern, Protocol, Stream, ToolDefaults,
};

fn grpc(keys: &str) -> String {
    format!("[services.a]\nendpoint = 'http://b:1'\nprotocol = 'grpc'\n{keys}\n")
}

fn fanfare(keys: &str) -> String {
    format!("[services.a]\nendpoint = 'http://b:1'\n{keys}\n")
}

#[test]
fn three_lines_make_the_methods_of_a_service_tools() {
    let config = Config::parse(&grpc("expose = ['acme.Books/*']")).unwrap();
    let service = &config.services["a"];
    assert_eq!(service.protocol, Protocol::Grpc);
    assert_eq!(service.descriptors, Descriptors::Reflection);
    assert!(service.expose[0].matches("acme.Books/GetBook"));
    assert_eq!(service.refresh_interval, Duration::from_secs(300));
    let defaults = ToolDefaults::of(&Limits::default());
    assert_eq!(service.tool_defaults, Some(defaults));
    assert_eq!(Config::parse(&config.to_toml()), Ok(config));
}

#[test]
fn every_setting_of_a_source_can_be_set() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("set.binpb");
    fs::write(&set, "").unwrap();
    let schema = folder.path().join("schema.json");
    fs::write(&schema, r#"{"type": "object"}"#).unwrap();
    let (shown_set, shown_schema) = (set.display(), schema.display());
    let text = grpc(&format!(
        "descriptors = '{shown_set}'
        expose = ['acme.*', 'b.C/D']
        hide = ['*/Delete*']
        prefix = 'books.'
        refresh_interval = '1s'
        [services.a.tool_defaults]
        timeout = '2s'
        idempotent = true
        max_concurrency = 3
        max_queue = 4
        stream = 'collect'
        retry.max_attempts = 5
        hedge.delay = 'p95'
        [tools.get]
        service = 'a'
        remote = 'acme.Books/Get'
        stream = 'collect'
        input_schema_file = '{shown_schema}'"
    ));
    let config = Config::parse(&text).unwrap();
    let service = &config.services["a"];
    assert_eq!(service.descriptors, Descriptors::File(set));
    let pattern = |text| Pattern::new(text).unwrap();
    assert_eq!(service.expose, [pattern("acme.*"), pattern("b.C/D")]);
    assert_eq!(service.hide, [pattern("*/Delete*")]);
    assert_eq!(service.prefix, "books.");
    let defaults = service.tool_defaults.as_ref().unwrap();
    assert_eq!(defaults.timeout, Duration::from_secs(2));
    assert!(defaults.idempotent);
    assert_eq!((defaults.max_concurrency, defaults.max_queue), (3, 4));
    assert_eq!(defaults.stream, Some(Stream::Collect));
    assert_eq!(defaults.retry.max_attempts, 5);
    assert_eq!(defaults.hedge, Some(HedgeDelay::P95));
    assert_eq!(defaults.from_source, FromSource::default());
    let tool = &config.tools["get"];
    assert_eq!(tool.remote(&tool_name("get")), "acme.Books/Get");
    assert_eq!(tool.stream, Some(Stream::Collect));
    assert_eq!(tool.input_schema.as_ref().unwrap()["type"], "object");
    assert_eq!(Config::parse(&config.to_toml()), Ok(config));
}

#[test]
fn what_makes_no_sense_together_is_refused() {
    let refused = |text: String, key: &str| assert_refused(&text, &format!("services.a.{key}"));
    refused(fanfare("descriptors = 'reflection'"), "descriptors");
    refused(fanfare("refresh_interval = '1m'"), "refresh_interval");
    refused(grpc("refresh_interval = '999ms'"), "refresh_interval");
    for keys in ["hide = ['a']", "prefix = 'a'", "tool_defaults = {}"] {
        let key = keys.split(' ').next().unwrap();
        refused(grpc(keys), key);
        refused(fanfare(&format!("expose = []\n{keys}")), key);
    }
    let stream = fanfare("expose = ['*']\ntool_defaults.stream = 'collect'");
    refused(stream, "tool_defaults.stream");
    let defaults = "expose = ['*']\ntool_defaults = { idempotent = false, retry.codes = [] }";
    refused(fanfare(defaults), "tool_defaults.retry.codes");
    let unsaid = fanfare(&defaults.replace("idempotent = false, ", ""));
    assert!(Config::parse(&unsaid).is_ok());
    refused(grpc("expose = ['a b']"), "expose");
    refused(grpc("expose = 'a'"), "expose");
    refused(
        grpc("protocol = 'http'").replacen("protocol = 'grpc'\n", "", 1),
        "protocol",
    );
    // A mistake makes no others.
    let text = fanfare("protocol = 'http'\ndescriptors = 'reflection'\nhide = []\nexpose = 1");
    assert_eq!(
        mistaken_keys(&text),
        ["services.a.protocol", "services.a.expose"]
    );
    refused(grpc("expose = ['*']\nprefix = 'a b'"), "prefix");
    let hint = problem(&grpc("expose = ['a', 'b c']"));
    assert!(hint.contains("(\"b c\" is none)"), "{hint}");
    let unknown = problem(&grpc("exposes = ['a']"));
    assert_eq!(unknown, "unknown key, did you mean `expose`?");
}

#[test]
fn a_tool_of_a_grpc_service_is_one_of_its_methods() {
    let tool = |name: &str, keys: &str| grpc(&format!("[tools.'{name}']\nservice = 'a'\n{keys}"));
    assert!(Config::parse(&tool("a.B/C", "")).is_ok());
    assert_refused(&tool("get", ""), "tools.get.remote");
    for bad in [
        "", "B", "a.B.C", "/a.B/C", "a.B/", "a..B/C", "a.B/C/D", "a.B/C-",
    ] {
        let keys = format!("remote = '{bad}'");
        assert_refused(&tool("get", &keys), "tools.get.remote");
    }
    let expected = problem(&tool("get", ""));
    assert_eq!(
        expected,
        "expected a method such as \"acme.Books/GetBook\", got \"get\" (the default)"
    );

    let tool = |keys: &str| fanfare(&format!("[tools.get]\nservice = 'a'\n{keys}"));
    let config = Config::parse(&tool("remote = 'an old name'")).unwrap();
    assert_eq!(config.tools["get"].remote(&tool_name("get")), "an old name");
    assert_refused(&tool("remote = ''"), "tools.get.remote");
    assert_refused(&tool("stream = 'collect'"), "tools.get.stream");
    assert_refused(&tool("stream = 'last'"), "tools.get.stream");
}

#[test]
fn what_the_file_leaves_out_its_service_decides_if_it_is_asked() {
    let left_out = |text: String| {
        let text = text + "[tools.'a.B/C']\nservice = 'a'\nidempotent = false";
        let config = Config::parse(&text).unwrap();
        let from_source = config.tools["a.B/C"].from_source;
        assert_eq!(Config::parse(&config.to_toml()), Ok(config));
        from_source
    };
    let timeout = FromSource {
        timeout: true,
        idempotent: false,
    };
    assert_eq!(left_out(grpc("")), timeout);
    assert_eq!(left_out(fanfare("expose = ['*']")), timeout);
    assert_eq!(left_out(fanfare("")), FromSource::default());
}

#[test]
fn files_of_sources_must_be_there() {
    let absent = grpc("descriptors = '/absent.binpb'");
    assert_refused(&absent, "services.a.descriptors");
    let (_, unread) = Config::parse_offline(&absent).unwrap();
    assert_eq!(unread, ["services.a.descriptors: /absent.binpb"]);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("schema.json");
    let tool = format!(
        "[tools.t]\nservice = 'a'\ninput_schema_file = '{}'",
        path.display()
    );
    let text = fanfare("") + &tool;
    for content in [None, Some("{"), Some("[]"), Some("{}")] {
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        if content == Some("{}") {
            assert!(Config::parse(&text).is_ok());
        } else {
            assert_refused(&text, "tools.t.input_schema_file");
        }
    }
    fs::write(&path, format!("{{\"a\": \"{}\"}}", "a".repeat(256 << 10))).unwrap();
    assert!(problem(&text).contains("over 262144"));
    let (config, unread) = Config::parse_offline(&text).unwrap();
    assert_eq!(config.tools["t"].input_schema, None);
    assert_eq!(unread.len(), 1);
}
