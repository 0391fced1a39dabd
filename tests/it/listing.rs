//! What `ListTools` says, and that calls may use either name.

use std::sync::{Arc, Mutex};

use fanfare::{
    catalog::{Catalog, definition::Definition},
    config::{Config, Service, Tool},
    core::call::ToolName,
    json::{decode_struct, encode_struct},
    pb,
};
use serde_json::{Map, Value, json};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    Seen, call, config, failed, ms,
    observed::Observed,
    pipes::{self, Client},
    result, seen,
    tools::{Scripted, ServiceFn},
};

fn name(name: &str) -> ToolName {
    ToolName::try_new(name.to_owned()).unwrap()
}

fn schema(json: &Value) -> Arc<Map<String, Value>> {
    Arc::new(json.as_object().unwrap().clone())
}

fn search() -> Definition {
    Definition {
        title: "Search".to_owned(),
        description: "Searches".to_owned(),
        input_schema: Some(schema(&json!({
            "type": "object", "properties": {"query": {"type": "string", "maxLength": 100}},
        }))),
        output_schema: Some(schema(&json!({"type": "object"}))),
        read_only: true,
        destructive: true,
    }
}

fn catalog(tools: impl IntoIterator<Item = (&'static str, Definition)>) -> Catalog {
    let mut catalog = Catalog::default();
    for (tool, definition) in tools {
        let scripted = Scripted::answers_after(ms(0)).timeout(ms(1500));
        catalog.insert(name(tool), definition, Arc::new(scripted));
    }
    catalog
}

fn named(names: &[&'static str]) -> Catalog {
    catalog(names.iter().map(|&name| (name, Definition::default())))
}

async fn ask(client: &Client, names: &[&str]) -> Result<pb::ListToolsResponse, Status> {
    let request = pb::ListToolsRequest {
        names: names.iter().map(|&name| name.to_owned()).collect(),
        ..pb::ListToolsRequest::default()
    };
    let answer = client.clone().list_tools(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn names(client: &Client, names: &[&str]) -> Vec<String> {
    let tools = ask(client, names).await.expect("a list").tools;
    tools.into_iter().map(|tool| tool.name).collect()
}

#[tokio::test(start_paused = true)]
async fn a_tool_is_described_with_everything_that_is_known() {
    let mut config = config();
    let endpoint = "http://tools".parse().unwrap();
    config
        .services
        .insert("books".to_owned(), Service::new(endpoint));
    let remote = Tool {
        description: "Of a service".to_owned(),
        idempotent: true,
        ..Tool::new("books".to_owned())
    };
    config.tools.insert(name("remote/one"), remote);
    let mut catalog = Catalog::new(&config);
    let local = Scripted::answers_after(ms(0)).timeout(ms(1500));
    catalog.insert(name("search"), search(), Arc::new(local));
    let client = pipes::client(&config, catalog).await;

    let tools = ask(&client, &[]).await.unwrap().tools;
    let [remote, search]: [pb::Tool; 2] = tools.try_into().unwrap();
    let seconds = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let expected = pb::Tool {
        name: "remote/one".to_owned(),
        alias: "remote_one".to_owned(),
        description: "Of a service".to_owned(),
        service: "books".to_owned(),
        timeout: seconds(30, 0),
        idempotent: true,
        breaker_state: pb::BreakerState::Closed.into(),
        connectivity_state: pb::ConnectivityState::Idle.into(),
        ..pb::Tool::default()
    };
    assert_eq!(remote, expected);
    let definition = self::search();
    let expected = pb::Tool {
        name: "search".to_owned(),
        alias: "search".to_owned(),
        title: "Search".to_owned(),
        description: "Searches".to_owned(),
        timeout: seconds(1, 500_000_000),
        input_schema: definition.input_schema.as_deref().map(encode_struct),
        output_schema: definition.output_schema.as_deref().map(encode_struct),
        read_only: true,
        destructive: true,
        ..pb::Tool::default()
    };
    assert_eq!(search, expected);
    let schema = decode_struct(&search.input_schema.unwrap()).unwrap();
    assert_eq!(schema["properties"]["query"]["maxLength"], 100);
}

#[tokio::test(start_paused = true)]
async fn names_are_exact_or_aliases_or_beginnings() {
    let all = ["a.b", "a.c", "ab", "b", "files/read", "files/write"];
    let client = pipes::client(&config(), named(&all)).await;
    assert_eq!(names(&client, &[]).await, all);
    assert_eq!(names(&client, &["*"]).await, all);
    assert_eq!(names(&client, &["a*"]).await, ["a.b", "a.c", "ab"]);
    assert_eq!(
        names(&client, &["files/*", "a.b"]).await,
        ["a.b", "files/read", "files/write"]
    );
    // Each once, in the order of the names.
    assert_eq!(
        names(&client, &["b", "ab", "a*", "b"]).await,
        ["a.b", "a.c", "ab", "b"]
    );
    assert_eq!(names(&client, &["files_read"]).await, ["files/read"]);
    // What no tool has, be it after the last.
    assert_eq!(names(&client, &["nobody", "zz*", "A*", "a"]).await, [""; 0]);
    // A beginning is one of names, not of aliases.
    assert_eq!(names(&client, &["files_*"]).await, [""; 0]);
    let many: Vec<_> = (0..1000)
        .map(|index| format!("{}{index:03}*", "n".repeat(125)))
        .collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(names(&client, &many).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_can_be_no_name_is_a_mistake_of_the_request() {
    let client = pipes::client(&config(), named(&["a"])).await;
    let long = "n".repeat(129);
    let asked = ["a", "", "a*b", "**", "weather?", &long, "*a", "a*"];
    let status = ask(&client, &asked).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_details_bad_request().expect("a BadRequest");
    let wrong: Vec<_> = details
        .field_violations
        .iter()
        .map(|it| it.field.as_str())
        .collect();
    assert_eq!(
        wrong,
        [
            "names[1]", "names[2]", "names[3]", "names[4]", "names[5]", "names[6]"
        ]
    );
    assert_eq!(
        details.field_violations[1].description,
        "may have one *, at its end"
    );
    let info = status.get_details_error_info().expect("an ErrorInfo");
    assert_eq!(info.reason, "INVALID_REQUEST");

    let status = ask(&client, &["a"; 1001]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status
            .message()
            .contains("must be at most 1000 names, are 1001"),
        "{status:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_generation_is_what_the_tools_are() {
    async fn of(catalog: Catalog, config: &Config, asked: &[&str]) -> String {
        let client = pipes::client(config, catalog).await;
        ask(&client, asked).await.unwrap().generation
    }
    let config = config();
    let first = of(catalog([("b", search()), ("a", search())]), &config, &[]).await;
    assert!(!first.is_empty());
    // Whatever is asked for, wherever it is.
    let again = of(catalog([("a", search()), ("b", search())]), &config, &["b"]).await;
    assert_eq!(again, first);

    type Change = fn(&mut Definition);
    let changes: [Change; 7] = [
        |it| it.title += "x",
        |it| it.description += "x",
        |it| (it.title, it.description) = ("SearchS".to_owned(), "earches".to_owned()),
        |it| it.output_schema = None,
        |it| it.input_schema = Some(schema(&json!({"type": "object"}))),
        |it| it.read_only = false,
        |it| it.destructive = false,
    ];
    let mut seen = vec![first.clone()];
    for change in changes {
        let mut changed = search();
        change(&mut changed);
        seen.push(of(catalog([("a", search()), ("b", changed)]), &config, &[]).await);
    }
    seen.push(of(catalog([("a", search())]), &config, &[]).await);
    seen.push(of(catalog([("a", search()), ("c", search())]), &config, &[]).await);
    let mut timeout = catalog([("a", search())]);
    timeout.insert(
        name("b"),
        search(),
        Arc::new(Scripted::answers_after(ms(0))),
    );
    seen.push(of(timeout, &config, &[]).await);
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), count);
}

#[tokio::test(start_paused = true)]
async fn a_generation_does_not_follow_the_breakers() {
    let mut config = config();
    let endpoint = "http://tools".parse().unwrap();
    config
        .services
        .insert("tools".to_owned(), Service::new(endpoint));
    config
        .tools
        .insert(name("tool"), Tool::new("tools".to_owned()));
    let fails = ServiceFn(|_: Request<pb::CallToolRequest>| async { Err(Status::unavailable("")) });
    let client = pipes::client_of_service(config, fails, &["tool"]).await;
    let before = ask(&client, &[]).await.unwrap();
    for _ in 0..20 {
        result(&client, call("", "tool")).await;
    }
    let after = ask(&client, &[]).await.unwrap();
    assert_eq!(after.tools[0].breaker_state(), pb::BreakerState::Open);
    assert_eq!(after.generation, before.generation);
}

#[tokio::test(start_paused = true)]
async fn a_list_over_the_limit_on_responses_says_what_to_do() {
    let mut config = config();
    config.limits.max_response_bytes = 1 << 20;
    let large = || Definition::from("d".repeat(400 << 10));
    let tools = ["a1", "a2", "b"].map(|name| (name, large()));
    let client = pipes::client(&config, catalog(tools)).await;
    let status = ask(&client, &[]).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let info = status.get_details_error_info().expect("an ErrorInfo");
    assert_eq!(info.reason, "RESPONSE_TOO_LARGE");
    assert_eq!(info.metadata["retryable"], "false");
    for told in ["3 tools", "limits.max_response_bytes", "`names`"] {
        assert!(status.message().contains(told), "{status:?}");
    }
    assert_eq!(names(&client, &["a*"]).await, ["a1", "a2"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_by_alias_is_one_of_the_tool() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let tools = ServiceFn(move |request: Request<pb::CallToolRequest>| {
        noted.lock().unwrap().push(request.into_inner().name);
        async { Ok(None) }
    });
    let names = ["weather.get/now", "weather_get"];
    let (config, catalog) = pipes::service(config(), tools, &names).await;
    let observed = Observed::of(&config, catalog, &[]).await;
    for name in ["weather_get_now", "weather.get/now", "weather_get"] {
        let result = result(&observed.client, call("", name)).await;
        assert_eq!(seen(&result), Seen::Ok(Value::Null));
        // As it was called.
        assert_eq!(result.name, name);
    }
    let unknown = result(&observed.client, call("", "weather_get_no")).await;
    assert_eq!(
        seen(&unknown),
        failed(Code::NotFound, "UNKNOWN_TOOL", "not_started")
    );
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    assert_eq!(asked, ["weather.get/now", "weather.get/now", "weather_get"]);

    let ended = observed.end().await;
    let spans = ended.trees.iter().flat_map(|tree| tree.all());
    let of_calls = spans.filter(|span| span.name.starts_with("execute_tool"));
    let tools: Vec<_> = of_calls
        .map(|span| span.attributes["gen_ai.tool.name"].clone())
        .collect();
    let told: Vec<_> = ended
        .page
        .all("gen_ai_execute_tool_duration_seconds_count", &[])
        .iter()
        .map(|sample| (sample.labels["gen_ai_tool_name"].clone(), sample.value))
        .collect();
    let first = &names[0];
    assert_eq!(
        tools,
        [first, first, &names[1], &"weather_get_no"].map(|it| json!(it))
    );
    assert!(told.contains(&((*first).to_owned(), 2.0)), "{told:?}");
    assert!(
        told.iter().all(|(name, _)| name != "weather_get_now"),
        "{told:?}"
    );
}
