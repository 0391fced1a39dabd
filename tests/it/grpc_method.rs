//! Methods of gRPC services as tools: here those of Fanfare itself, which are known by its
//! descriptors as those of any other service.

mod hostile;
mod streams;

use std::{
    io::Write as _,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use fanfare::{
    catalog::{discovery::Discovery, snapshot::Snapshots},
    config::Config,
    json, pb,
    server::Server,
};
use prost::Message as _;
use prost_types::{
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Status};

use crate::support::{
    Seen, call, call_with, call_with_text, error, expired, failed, ms,
    pipes::{self, Client, PipeConnect},
    result, seen,
    tools::{Running, ServiceFn},
    violations,
};

/// Fanfare's own descriptors, and those of a service with a method that takes what tools
/// take, and answers with any number of what they answer.
pub fn descriptors() -> NamedTempFile {
    let mut set = FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET).unwrap();
    set.file.push(FileDescriptorProto {
        name: Some("many.proto".to_owned()),
        package: Some("test".to_owned()),
        dependency: vec!["fanfare/v1/tool.proto".to_owned()],
        service: vec![ServiceDescriptorProto {
            name: Some("Many".to_owned()),
            method: vec![MethodDescriptorProto {
                name: Some("Call".to_owned()),
                input_type: Some(".fanfare.v1.CallToolRequest".to_owned()),
                output_type: Some(".fanfare.v1.CallToolResponse".to_owned()),
                server_streaming: Some(true),
                ..MethodDescriptorProto::default()
            }],
            ..ServiceDescriptorProto::default()
        }],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    });
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&set.encode_to_vec()).unwrap();
    file
}

/// The settings of a gRPC service at `endpoint` with the tools `call` (CallTool), and those of
/// `more`.
pub fn settings(endpoint: &str, file: &NamedTempFile, more: &str) -> Config {
    let path = file.path().display();
    let toml = format!(
        "[services.a]\nprotocol = 'grpc'\nendpoint = '{endpoint}'\ndescriptors = '{path}'\n\
         [tools.call]\nservice = 'a'\nremote = 'fanfare.v1.ToolService/CallTool'\n{more}"
    );
    Config::parse(&toml).unwrap()
}

/// A client of a server of these tools, once they are known.
pub async fn known(config: &Config, discovery: Discovery) -> Client {
    let snapshots: Snapshots = discovery.snapshots();
    tokio::spawn(discovery.run());
    let server = Arc::new(Server::following(config, snapshots).await);
    let client = pipes::client_of(&server).await;
    loop {
        let tools = client
            .clone()
            .list_tools(pb::ListToolsRequest::default())
            .await;
        let tools = tools.unwrap().into_inner().tools;
        if tools.iter().all(|tool| tool.input_schema.is_some()) {
            return client;
        }
        sleep(ms(1)).await;
    }
}

/// A client of the tools of a service that is `service`, through pipes.
pub async fn client_of(service: Server, more: &str) -> Client {
    let file = descriptors();
    let config = settings("http://tools", &file, more);
    let pipes = Arc::new(PipeConnect(Arc::new(service)));
    let discovery = Discovery::with_connect(&config, |_| pipes.clone());
    known(&config, discovery).await
}

async fn client<F, Fut>(more: &str, service: F) -> Client
where
    F: Fn(Request<pb::CallToolRequest>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<Bytes>, Status>> + Send + 'static,
{
    client_of(
        Server::tools(&Config::default(), ServiceFn(service)).await,
        more,
    )
    .await
}

/// Echoes the arguments, and notes what it was asked.
async fn echo() -> (Client, Arc<Mutex<Vec<pb::CallToolRequest>>>) {
    let asked = Arc::<Mutex<Vec<pb::CallToolRequest>>>::default();
    let noted = Arc::clone(&asked);
    let client = client("", move |request: Request<pb::CallToolRequest>| {
        let request = request.into_inner();
        let arguments = request.arguments.as_deref();
        let fields = arguments.map(|it| json::decode_struct(it).unwrap());
        noted.lock().unwrap().push(request);
        async { Ok(fields.map(|fields| json::encode_value(&fields.into()))) }
    });
    (client.await, asked)
}

fn invalid() -> Seen {
    failed(Code::InvalidArgument, "INVALID_ARGUMENTS", "not_started")
}

#[tokio::test(start_paused = true)]
async fn arguments_become_its_request_and_its_answer_an_observation() {
    let (client, asked) = echo().await;
    let arguments = json!({"name": "echo", "attempt": 7, "arguments": {"a": [1, null, "x"]}});
    let observation = Seen::Ok(json!({"observation": {"a": [1, null, "x"]}}));
    let large = json!({"id": "x".repeat(50_000), "arguments": {"t": "y".repeat(50_000)}});
    for call in [
        call_with("", "call", arguments.clone()),
        call_with_text("", "call", arguments.to_string()),
    ] {
        assert_eq!(seen(&result(&client, call).await), observation);
    }
    let of_large = seen(&result(&client, call_with("", "call", large.clone())).await);
    let expected = json!({"observation": large["arguments"]});
    assert!(of_large == Seen::Ok(expected));
    // Without arguments its request is empty.
    assert_eq!(
        seen(&result(&client, call("", "call")).await),
        Seen::Ok(json!({}))
    );
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 4);
    assert_eq!(asked[0], asked[1]);
    assert_eq!((asked[0].name.as_str(), asked[0].attempt), ("echo", 7));
    assert_eq!(asked[3], pb::CallToolRequest::default());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_is_told_whole_and_never_sent() {
    let (client, asked) = echo().await;
    let wrong = json!({"nmae": "x", "attempt": "many", "id": 5});
    for call in [
        call_with("", "call", wrong.clone()),
        call_with_text("", "call", wrong.to_string()),
    ] {
        let result = result(&client, call).await;
        assert_eq!(seen(&result), invalid());
        let mut violations = violations(&result);
        violations.sort_unstable();
        let fields: Vec<_> = violations.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(
            fields,
            ["arguments.attempt", "arguments.id", "arguments.nmae"]
        );
        assert!(violations[2].1.contains("name"), "{violations:?}");
    }
    let result = result(
        &client,
        call_with_text("", "call", "{\"attempt\": 4294967296}"),
    )
    .await;
    assert_eq!(seen(&result), invalid());
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn its_status_is_the_callers_with_message_and_details() {
    let details = Bytes::from(
        tonic_types::pb::Status {
            code: 9,
            message: "not now".to_owned(),
            details: vec![prost_types::Any {
                type_url: "type.googleapis.com/x.Y".to_owned(),
                value: vec![1, 2],
            }],
        }
        .encode_to_vec(),
    );
    let client = client("", move |_| {
        let details = details.clone();
        async {
            Err(Status::with_details(
                Code::FailedPrecondition,
                "not now",
                details,
            ))
        }
    })
    .await;
    let result = result(&client, call("", "call")).await;
    assert_eq!(
        seen(&result),
        failed(Code::FailedPrecondition, "TOOL_FAILED", "done")
    );
    let error = error(&result);
    assert_eq!(error.message, "not now");
    assert_eq!(error.details[1].type_url, "type.googleapis.com/x.Y");
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_on_the_wire_at_its_deadline_and_with_its_caller() {
    let running = Running::default();
    let entered = running.clone();
    let hangs = move |request: Request<pb::CallToolRequest>| {
        assert!(request.metadata().contains_key("grpc-timeout"));
        let guard = entered.enter();
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    };
    let client = client("timeout = '3s'\n", hangs).await;
    let start = Instant::now();
    let ended = seen(&result(&client, call("", "call")).await);
    assert_eq!(ended, expired("maybe", "tool"));
    assert!((ms(3000)..ms(3010)).contains(&start.elapsed()));
    let gone = async || {
        while running.count() > 0 {
            sleep(ms(1)).await;
        }
    };
    gone().await;
    let calling = {
        let client = client.clone();
        tokio::spawn(async move { result(&client, call("", "call")).await })
    };
    while running.count() == 0 {
        sleep(ms(1)).await;
    }
    calling.abort();
    gone().await;
}

#[tokio::test(start_paused = true)]
async fn it_is_called_again_only_if_it_may_run_twice() {
    for (settings, calls, succeeds) in [("idempotent = true\n", 2, true), ("", 1, false)] {
        let asked = Arc::<Mutex<usize>>::default();
        let noted = Arc::clone(&asked);
        let client = client(settings, move |_| {
            let mut asked = noted.lock().unwrap();
            *asked += 1;
            let fails = *asked == 1;
            async move {
                if fails {
                    Err(Status::unavailable("not yet"))
                } else {
                    Ok(None)
                }
            }
        })
        .await;
        let result = result(&client, call("", "call")).await;
        assert_eq!(*asked.lock().unwrap(), calls);
        assert_eq!(seen(&result) == Seen::Ok(json!({})), succeeds, "{result:?}");
        assert_eq!(result.attempts as usize, calls);
    }
}

#[tokio::test(start_paused = true)]
async fn an_observation_has_the_bounds_of_any_other() {
    let limits = "[limits]\nmax_result_bytes = '1KiB'\n";
    let client = client(limits, |request: Request<pb::CallToolRequest>| {
        let bytes = request.into_inner().attempt as usize;
        async move { Ok(Some(json::encode_value(&"x".repeat(bytes).into()))) }
    })
    .await;
    let too_large = failed(Code::ResourceExhausted, "RESULT_TOO_LARGE", "done");
    for (bytes, fits) in [(900, true), (1008, false), (1100, false)] {
        let arguments = json!({"attempt": bytes});
        let result = result(&client, call_with("", "call", arguments)).await;
        // On the wire 1,008 bytes fit, but not with the names of the fields.
        let expected = match fits {
            true => Seen::Ok(json!({"observation": "x".repeat(bytes)})),
            false => too_large.clone(),
        };
        assert_eq!(seen(&result), expected, "{bytes}");
    }
}
