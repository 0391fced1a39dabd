//! A Fanfare in front of another one, whose tools are its own.

mod ending;

use std::{
    future::ready,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use fanfare::{
    catalog::{Catalog, discovery::Discovery},
    config::Config,
    json, pb,
    server::Server,
};
use prost::Message as _;
use serde_json::json;
use tonic::{Code, Request, Status};
use tonic_types::pb::{ErrorInfo, Status as RpcStatus};

use crate::support::{
    call, call_with, config, error, error_info, ms,
    network::Pipes,
    pipes::{self, Client, PipeConnect},
    result,
    tools::ServiceFn,
    violations,
};

/// A Fanfare whose service `other` is `behind`, under these settings. It has asked it.
async fn in_front_of(behind: &Arc<Server>, toml: &str) -> Client {
    let toml = format!("services.other.endpoint = 'http://other'\n{toml}");
    let config = Config::parse(&toml).unwrap();
    let way = Arc::new(PipeConnect(Arc::clone(behind)));
    let discovery = Discovery::with_connect(&config, |_| way.clone());
    let snapshots = discovery.snapshots();
    tokio::spawn(discovery.run());
    // The clock is paused: this is as long as asking takes.
    tokio::time::sleep(ms(10)).await;
    pipes::client_of(&Arc::new(Server::following(&config, snapshots).await)).await
}

const EXPOSE: &str = "services.other.expose = ['*']\nservices.other.prefix = 'other.'\n";

/// A Fanfare that has the demo's tools by asking for them.
async fn with_demo() -> Arc<Server> {
    let toml = "[services.demo]\nendpoint = 'http://tools'\nexpose = ['*']\n";
    let config = Config::parse(toml).unwrap();
    let demo = Pipes::new("").await;
    let discovery = Discovery::with_connect(&config, |_| demo.clone());
    let snapshots = discovery.snapshots();
    tokio::spawn(discovery.run());
    tokio::time::sleep(ms(10)).await;
    Arc::new(Server::following(&config, snapshots).await)
}

/// A Fanfare with the tool `tool`, which does that.
async fn with_tool<F, Fut>(settings: &str, tool: F) -> Arc<Server>
where
    F: Fn(Request<pb::CallToolRequest>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<Bytes>, Status>> + Send + 'static,
{
    let toml = format!(
        "[services.tools]\nendpoint = 'http://tools'\n[tools.tool]\nservice = 'tools'\n{settings}"
    );
    let config = Config::parse(&toml).unwrap();
    let tools = Arc::new(Server::tools(&config, ServiceFn(tool)).await);
    let catalog = Catalog::with_connect(&config, |_| Arc::new(PipeConnect(Arc::clone(&tools))));
    Arc::new(Server::orchestrator(&config, catalog).await)
}

async fn listed(client: &Client) -> Vec<pb::Tool> {
    let request = pb::ListToolsRequest::default();
    let answer = client.clone().list_tools(request).await;
    answer.unwrap().into_inner().tools
}

/// What the Fanfare behind says of a failed call.
fn behind(result: &pb::ToolExecutionResult) -> ErrorInfo {
    let error = error(result);
    let info = error_info(error);
    assert_eq!(info.reason, "TOOL_FAILED");
    assert_eq!(info.metadata["effect"], "done");
    let rest = RpcStatus {
        details: error.details[1..].to_vec(),
        ..RpcStatus::default()
    };
    error_info(&rest)
}

#[tokio::test(start_paused = true)]
async fn its_tools_are_listed_as_it_lists_them() {
    let behind = with_demo().await;
    let direct = listed(&pipes::client_of(&behind).await).await;
    let front = in_front_of(&behind, EXPOSE).await;
    let tools = listed(&front).await;
    let expected: Vec<_> = direct
        .iter()
        .map(|tool| {
            let name = format!("other.{}", tool.name);
            (name, &tool.description, &tool.input_schema, tool.idempotent)
        })
        .collect();
    assert!(expected.iter().any(|(_, _, schema, _)| schema.is_some()));
    let seen: Vec<_> = tools
        .iter()
        .map(|tool| {
            let name = tool.name.clone();
            (name, &tool.description, &tool.input_schema, tool.idempotent)
        })
        .collect();
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn a_call_arrives_and_its_observation_comes_back_as_the_same_bytes() {
    // A list whose end is an unknown field.
    let odd: &[u8] = b"\x32\x05\x0a\x03\x1a\x01x\xa2\x06\x02hi";
    let asked = Arc::new(Mutex::new(Vec::new()));
    let asks = Arc::clone(&asked);
    let tool = move |request: Request<pb::CallToolRequest>| {
        asks.lock().unwrap().push(request.into_inner());
        ready(Ok(Some(Bytes::from_static(odd))))
    };
    let behind = with_tool("", tool).await;
    let settings = "tools.near = { service = 'other', remote = 'tool' }";
    let front = in_front_of(&behind, settings).await;

    let call = call_with("an id", "near", json!({"a": [1, null]}));
    let arguments = call.arguments.clone();
    let result = result(&front, call).await;

    let observation = pb::tool_execution_result::Outcome::Observation(Bytes::from_static(odd));
    assert_eq!(result.outcome, Some(observation));
    let expected = pb::CallToolRequest {
        id: "an id".to_owned(),
        name: "tool".to_owned(),
        arguments,
        attempt: 1,
    };
    assert_eq!(*asked.lock().unwrap(), [expected]);
}

#[tokio::test(start_paused = true)]
async fn whatever_its_tool_says_arrives_unchanged() {
    // Also what a library says of a message that it can't read.
    for message in ["no", "failed to decode Protobuf message: invalid tag"] {
        for code in 1..=16 {
            let detail = prost_types::Any {
                type_url: "type.googleapis.com/acme.Why".to_owned(),
                value: b"because".to_vec(),
            };
            let details = RpcStatus {
                code,
                message: message.to_owned(),
                details: vec![detail.clone()],
            };
            let details = Bytes::from(details.encode_to_vec());
            let tool = move |_| {
                let details = details.clone();
                ready(Err(Status::with_details(code.into(), message, details)))
            };
            let front = in_front_of(
                &with_tool("", tool).await,
                "tools.tool = { service = 'other' }",
            )
            .await;
            let result = result(&front, call("", "tool")).await;
            let failed = error(&result);
            assert_eq!((failed.code, &*failed.message), (code, message));
            let info = behind(&result);
            assert_eq!(info.reason, "TOOL_FAILED", "{code}");
            assert_eq!(info.metadata["effect"], "done");
            assert_eq!(failed.details[2..], [detail]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_it_can_t_call_says_why() {
    let front = in_front_of(
        &with_demo().await,
        "tools.near = { service = 'other', remote = 'slepe' }\n\
         tools.sleep = { service = 'other' }",
    )
    .await;

    let unknown = result(&front, call("", "near")).await;
    assert_eq!(error(&unknown).code, Code::NotFound as i32);
    let info = behind(&unknown);
    assert_eq!(info.reason, "UNKNOWN_TOOL");
    assert_eq!(info.metadata["effect"], "not_started");
    assert_eq!(info.metadata["suggestion"], "sleep");

    let arguments = json!({"seconds": "long"});
    let invalid = result(&front, call_with("", "sleep", arguments)).await;
    assert_eq!(error(&invalid).code, Code::InvalidArgument as i32);
    assert_eq!(behind(&invalid).reason, "INVALID_ARGUMENTS");
    let [(field, description)] = &violations(&invalid)[..] else {
        panic!("{invalid:?}");
    };
    assert_eq!(field, "arguments.seconds");
    assert!(description.contains("number"), "{description}");
}

#[tokio::test(start_paused = true)]
async fn retries_are_made_by_one_of_them() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let tool = move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        ready(Err(Status::unavailable("not now")))
    };
    // The one in front would repeat the call, if it were asked.
    for (behind_may, sent) in [(true, 3), (false, 1)] {
        attempts.store(0, Ordering::SeqCst);
        let settings = if behind_may {
            "idempotent = true\nretry.max_attempts = 3"
        } else {
            ""
        };
        let behind_it = with_tool(settings, tool.clone()).await;
        let settings =
            "tools.tool = { service = 'other', idempotent = true, retry.max_attempts = 3 }";
        let front = in_front_of(&behind_it, settings).await;
        let result = result(&front, call("", "tool")).await;
        assert_eq!(error(&result).code, Code::Unavailable as i32);
        assert_eq!(behind(&result).reason, "TOOL_FAILED");
        assert_eq!(attempts.load(Ordering::SeqCst), sent, "{behind_may}");
        assert_eq!(result.attempts, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_leads_back_to_itself_ends() {
    let mut config = config();
    config.limits.max_calls_per_request = 1;
    config.limits.max_in_flight_calls = 50;
    let settings = "[services.me]\nendpoint = 'http://me'\n[tools.tool]\nservice = 'me'\n";
    let parsed = Config::parse(settings).unwrap();
    config.services = parsed.services;
    config.tools = parsed.tools;
    let me = Arc::new(ending::Later::default());
    let way = Arc::clone(&me);
    let catalog = Catalog::with_connect(&config, |_| way.clone());
    let server = Arc::new(Server::orchestrator(&config, catalog).await);
    me.is(&server);
    let result = result(&pipes::client_of(&server).await, call("", "tool")).await;
    assert_eq!(error(&result).code, Code::ResourceExhausted as i32);
    assert_eq!(behind(&result).reason, "TOOL_FAILED");
}

#[test]
fn the_odd_observation_is_a_value() {
    let odd: &[u8] = b"\x32\x05\x0a\x03\x1a\x01x\xa2\x06\x02hi";
    assert_eq!(json::decode_value(odd).unwrap(), json!(["x"]));
}
