//! Tools whose arguments have a schema: what does not fit is not sent. And names that no tool
//! has.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use fanfare::{
    catalog::Catalog,
    config::{Config, Service, Tool},
    core::call::ToolName,
    pb,
    server::Server,
};
use serde_json::{Value, json};
use tonic::Code;

use crate::support::{
    Seen, answered, call, call_with, call_with_text, error, error_info, failed,
    pipes::{self, PipeConnect},
    request, result, results, seen,
    tools::ServiceFn,
    violations,
};

type Asked = Arc<Mutex<Vec<pb::CallToolRequest>>>;

/// A client of tools with these schemas, or none, and what their service is asked.
async fn client(tools: &[(&str, Value)]) -> (pipes::Client, Asked) {
    let asked = Asked::default();
    let noted = Arc::clone(&asked);
    let service = ServiceFn(move |request: tonic::Request<pb::CallToolRequest>| {
        noted.lock().unwrap().push(request.into_inner());
        async { Ok(None) }
    });
    let mut config = Config::default();
    let endpoint = "http://tools".parse().unwrap();
    config
        .services
        .insert("tools".to_owned(), Service::new(endpoint));
    for (name, schema) in tools {
        let mut tool = Tool::new("tools".to_owned());
        tool.input_schema = schema.as_object().cloned().map(Arc::new);
        let name = ToolName::try_new((*name).to_owned()).unwrap();
        config.tools.insert(name, tool);
    }
    let server = Arc::new(Server::tools(&Config::default(), service).await);
    let catalog = Catalog::with_connect(&config, |_| Arc::new(PipeConnect(Arc::clone(&server))));
    (pipes::client(&config, catalog).await, asked)
}

fn of_weather() -> Value {
    json!({
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "maximum": 14}},
        "required": ["city"],
        "additionalProperties": false,
    })
}

fn invalid() -> Seen {
    failed(Code::InvalidArgument, "INVALID_ARGUMENTS", "not_started")
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_told_whole_and_never_sent() {
    let (client, asked) = client(&[("weather", of_weather()), ("free", Value::Null)]).await;
    let wrong = r#"{"ctiy": "Bonn", "days": 20}"#;
    let calls = vec![
        call_with("", "weather", serde_json::from_str(wrong).unwrap()),
        call_with_text("", "weather", wrong),
        call("", "weather"),
        call_with("", "free", serde_json::from_str(wrong).unwrap()),
        call_with("", "weather", json!({"city": "Bonn"})),
        call_with_text("", "weather", r#"{"city": "Bonn", "days": 14}"#),
    ];
    let results = results(&client, calls).await;
    let told = [
        ("arguments.city", "is required"),
        ("arguments.ctiy", "is not known, did you mean \"city\"?"),
        ("arguments.days", "must be at most 14, is 20"),
    ];
    for result in &results[..2] {
        assert_eq!(seen(result), invalid());
        let mut violations = violations(result);
        violations.sort_unstable();
        let violations: Vec<_> = violations
            .iter()
            .map(|(field, description)| (field.as_str(), description.as_str()))
            .collect();
        assert_eq!(violations, told);
        let message = &error(result).message;
        assert!(message.contains("(and 2 more)"), "{message}");
    }
    // Without arguments as with none in them.
    assert_eq!(seen(&results[2]), invalid());
    assert_eq!(violations(&results[2])[0].0, "arguments.city");
    for result in &results[3..] {
        assert_eq!(seen(result), answered());
    }
    assert_eq!(asked.lock().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_fits_is_sent_as_the_bytes_that_arrived() {
    let (client, asked) = client(&[("weather", of_weather())]).await;
    // The city twice, of which the last counts, and a field that nobody knows.
    let entry = |city: &[u8]| {
        let value = [&[0x1a, city.len() as u8], city].concat();
        let entry = [&b"\x0a\x04city\x12"[..], &[value.len() as u8], &value].concat();
        [&[0x0a, entry.len() as u8], &*entry].concat()
    };
    let odd: Bytes = [entry(b"Bonn"), entry(b"Ulm"), vec![0xc0, 0x3e, 7]]
        .concat()
        .into();
    let odd_call = pb::ToolCall {
        arguments: Some(odd.clone()),
        ..call("", "weather")
    };
    assert_eq!(seen(&result(&client, odd_call).await), answered());
    // What is no Struct does not fit either.
    let garbage = pb::ToolCall {
        arguments: Some(Bytes::from_static(b"\xff\xff")),
        ..call("", "weather")
    };
    assert_eq!(seen(&result(&client, garbage).await), invalid());
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].arguments, Some(odd));
}

#[tokio::test(start_paused = true)]
async fn a_schema_that_can_not_be_used_leaves_out_its_tool_alone() {
    let tools = [
        ("elsewhere", json!({"$ref": "http://127.0.0.1:1/schema"})),
        ("circle", json!({"$ref": "#"})),
        ("nonsense", json!({"properties": 7})),
        ("weather", of_weather()),
    ];
    let (client, asked) = client(&tools).await;
    let calls = tools
        .iter()
        .map(|(name, _)| call_with("", name, json!({"city": "Bonn"})));
    let results = results(&client, calls.collect()).await;
    let unknown = failed(Code::NotFound, "UNKNOWN_TOOL", "not_started");
    for result in &results[..3] {
        assert_eq!(seen(result), unknown);
    }
    assert_eq!(seen(&results[3]), answered());
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_no_tool_has_is_answered_with_the_one_that_was_meant() {
    let tools = [
        ("weather.get_weather", Value::Null),
        ("search", Value::Null),
    ];
    let (client, _) = client(&tools).await;
    let names = ["get_weather", "serach", "delete_everything", "search"];
    let results = results(&client, names.map(|name| call("", name)).into()).await;
    let suggestion = |result: &pb::ToolExecutionResult| {
        let error = error(result);
        let suggestion = error_info(error).metadata.get("suggestion").cloned();
        (error.message.clone(), suggestion)
    };
    let (message, meant) = suggestion(&results[0]);
    assert_eq!(meant.as_deref(), Some("weather.get_weather"));
    assert_eq!(
        message,
        "no tool is named get_weather, did you mean weather.get_weather?"
    );
    assert_eq!(suggestion(&results[1]).1.as_deref(), Some("search"));
    let (message, meant) = suggestion(&results[2]);
    assert_eq!(meant, None);
    assert_eq!(message, "no tool is named delete_everything");
    assert_eq!(seen(&results[3]), answered());
}

/// All of them are answered, and not all of them with a suggestion.
#[tokio::test(start_paused = true)]
async fn many_names_that_no_tool_has_do_not_keep_others_waiting() {
    let tools: Vec<_> = (0..5000)
        .map(|index| format!("service_{}.do_something_{index}", index % 50))
        .collect();
    let tools: Vec<_> = tools
        .iter()
        .map(|name| (name.as_str(), Value::Null))
        .collect();
    let (mut client, _) = client(&tools).await;
    let names = (0..256).map(|index| call("", &format!("service_{index}.do_somethign_{index}")));
    let response = client
        .execute_tools(request(names.collect()))
        .await
        .unwrap();
    let results = response.into_inner().results;
    let suggested = results.iter().filter(|result| {
        let info = error_info(error(result));
        info.metadata.contains_key("suggestion")
    });
    let suggested = suggested.count();
    assert!((1..100).contains(&suggested), "{suggested}");
}
