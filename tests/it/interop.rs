/// Deadlines as they are on the wire.
mod deadlines;
/// What the server tells about itself.
mod reflection;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use fanfare::{
    catalog::Catalog,
    demo::tools::DemoTools,
    json::value_from_json,
    pb::{
        self, stream_execute_tools_response::Event, tool_execution_result::Outcome,
        tool_service_server::ToolService,
    },
    server::Server,
};
use prost::Message as _;
use serde_json::json;
use tonic::{Code, Request, Response, Status};

use crate::support::{
    Seen, call, call_with, config, error, pipes,
    raw::{RawClient, framed_bytes, post},
    request, seen,
};

const EXECUTE_TOOLS: &str = "/fanfare.v1.OrchestratorService/ExecuteTools";

/// Answers with one observation; notes what it was asked.
#[derive(Clone, Default)]
struct Recorder {
    observation: Option<Bytes>,
    asked: Arc<Mutex<Vec<pb::CallToolRequest>>>,
}

impl Recorder {
    /// What it was asked since this was last called.
    fn asked(&self) -> Vec<pb::CallToolRequest> {
        std::mem::take(&mut *self.asked.lock().expect("the list"))
    }
}

#[tonic::async_trait]
impl ToolService for Recorder {
    async fn call_tool(
        &self,
        request: Request<pb::CallToolRequest>,
    ) -> Result<Response<pb::CallToolResponse>, Status> {
        self.asked
            .lock()
            .expect("the list")
            .push(request.into_inner());
        let observation = self.observation.clone();
        Ok(Response::new(pb::CallToolResponse { observation }))
    }

    async fn list_tools(
        &self,
        _: Request<pb::ListToolsRequest>,
    ) -> Result<Response<pb::ListToolsResponse>, Status> {
        Err(Status::unimplemented("it describes nothing"))
    }
}

/// The results of a request by both RPCs: the unary one, what was streamed in the
/// order of the calls, and the stream's aggregate.
async fn all_results(
    client: &mut pipes::Client,
    calls: &[pb::ToolCall],
) -> [Vec<pb::ToolExecutionResult>; 3] {
    let unary = client.execute_tools(request(calls.to_vec())).await;
    let unary = unary.expect("an answer").into_inner().results;
    let stream = client.stream_execute_tools(request(calls.to_vec())).await;
    let mut stream = stream.expect("a stream").into_inner();
    let mut streamed = Vec::new();
    loop {
        let message = stream.message().await.expect("a message").expect("one");
        match message.event.expect("an event") {
            Event::Completion(result) => streamed.push(result),
            Event::Aggregate(aggregate) => {
                streamed.sort_by_key(|result| result.index);
                return [unary, streamed, aggregate.results];
            }
        }
    }
}

/// Encodings that no encoder would write, and that decoding and encoding again
/// would change.
fn odd_payloads() -> Vec<Bytes> {
    // A field of a Struct, by hand: key, value, in a map entry.
    let field = |key: &[u8], value: &[u8]| {
        let entry = [
            &[0x0a, key.len() as u8],
            key,
            &[0x12, value.len() as u8],
            value,
        ]
        .concat();
        [&[0x0a, entry.len() as u8], &*entry].concat()
    };
    let (one, two) = (&[0x20, 1][..], &[0x11, 0, 0, 0, 0, 0, 0, 0, 0x40][..]);
    vec![
        // The same key twice, the keys not in order.
        [field(b"b", one), field(b"a", one), field(b"b", two)].concat(),
        // Unknown fields: a varint, a group, 4 bytes, a long one.
        [&[0xc0, 0x3e, 7, 0xcb, 0x3e, 0xcc, 0x3e], &*field(b"a", one)].concat(),
        [&*field(b"a", two), &[0xd5, 0x3e, 1, 2, 3, 4]].concat(),
        [&[0xda, 0x3e, 0xc8, 1][..], &[0; 200], &field(b"a", one)].concat(),
        // A map entry with its value before its key, one with no key.
        [
            &[0x0a, 7, 0x12, 2, 0x20, 1, 0x0a, 1, b'k'][..],
            &[0x0a, 4, 0x12, 2, 0x20, 1],
        ]
        .concat(),
        // Numbers longer than they need to be.
        vec![0x8a, 0x80, 0x00, 0x84, 0x80, 0x00, 0x12, 2, 0x20, 1],
        // A Value with two kinds, of which the last counts.
        [one, two].concat(),
    ]
    .into_iter()
    .map(Bytes::from)
    .collect()
}

/// The Value of null.
const NULL: [u8; 2] = [8, 0];

/// A Value that holds this Struct.
fn struct_value(fields: &[u8]) -> Bytes {
    let mut value = vec![0x2a];
    prost::encoding::encode_varint(fields.len() as u64, &mut value);
    value.extend_from_slice(fields);
    value.into()
}

#[tokio::test(start_paused = true)]
async fn payloads_pass_through_byte_for_byte() {
    let mut payloads: Vec<_> = odd_payloads()
        .into_iter()
        .map(|payload| (struct_value(&payload), payload))
        .collect();
    // Arguments that are no message at all: that is for the tool to say.
    let garbage = Bytes::from_static(b"\xff\xff\xff not protobuf \xff");
    payloads.push((Bytes::from_static(&NULL), garbage));
    for (observation, payload) in payloads {
        let recorder = Recorder {
            observation: Some(observation.clone()),
            ..Recorder::default()
        };
        let tools = recorder.clone();
        let mut client = pipes::client_of_service(config(), tools, &["tool"]).await;
        let call = pb::ToolCall {
            arguments: Some(payload.clone()),
            ..call("a", "tool")
        };

        for results in all_results(&mut client, &[call]).await {
            let observation = Outcome::Observation(observation.clone());
            assert_eq!(results[0].outcome, Some(observation));
        }
        let asked = recorder.asked();
        assert_eq!(asked.len(), 2);
        assert!(
            asked
                .iter()
                .all(|asked| asked.arguments.as_ref() == Some(&payload))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_absent_and_what_is_empty_stay_two_things() {
    let recorder = Recorder::default();
    let tools = recorder.clone();
    let mut client = pipes::client_of_service(config(), tools, &["tool"]).await;
    let empty = pb::ToolCall {
        arguments: Some(Bytes::new()),
        ..call("empty", "tool")
    };
    let calls = [call("absent", "tool"), empty];

    let results = all_results(&mut client, &calls).await;

    let mut asked = recorder.asked();
    asked.sort_by(|a, b| a.id.cmp(&b.id));
    let asked: Vec<_> = asked
        .iter()
        .map(|asked| (&*asked.id, asked.arguments.as_deref()))
        .collect();
    let (absent, empty) = (("absent", None), ("empty", Some(&[][..])));
    assert_eq!(asked, [absent, absent, empty, empty]);
    // A tool that answers with nothing answers nevertheless.
    for result in results.iter().flatten() {
        let null = Outcome::Observation(Bytes::from_static(&NULL));
        assert_eq!(result.outcome, Some(null));
    }
}

#[tokio::test(start_paused = true)]
async fn ids_and_names_come_back_and_reach_the_tool() {
    let recorder = Recorder::default();
    let tools = recorder.clone();
    let long = "n".repeat(128);
    let names = ["get_weather", "mcp.server/tool-1", &long];
    let mut client = pipes::client_of_service(config(), tools, &names).await;
    let ids = ["call_☺😈", "", &"i".repeat(1024)];
    let calls: Vec<_> = ids
        .iter()
        .zip(names)
        .map(|(id, name)| call(id, name))
        .collect();

    for results in all_results(&mut client, &calls).await {
        let echoed: Vec<_> = results
            .iter()
            .map(|r| (r.index, &*r.id, &*r.name))
            .collect();
        assert_eq!(
            echoed,
            [
                (0, ids[0], names[0]),
                (1, ids[1], names[1]),
                (2, ids[2], names[2])
            ]
        );
    }
    let asked = recorder.asked();
    for (id, name) in ids.into_iter().zip(names) {
        let times = asked
            .iter()
            .filter(|asked| (&*asked.id, &*asked.name, asked.attempt) == (id, name, 1));
        assert_eq!(times.count(), 2, "{id} {name}");
    }
}

/// gRPC's `large_unary`, with its sizes.
#[tokio::test(start_paused = true)]
async fn large_payloads_arrive_whole() {
    let names = ["echo", "payload"];
    let mut client = pipes::client_of_service(config(), DemoTools::default(), &names).await;
    let text = "a".repeat(271_828);
    let calls = [
        call_with("in", "echo", json!({ "text": text })),
        call_with("out", "payload", json!({"bytes": 314_159})),
    ];

    let expected = |json| {
        let value = value_from_json(&json).encode_to_vec();
        Some(Outcome::Observation(value.into()))
    };
    for results in all_results(&mut client, &calls).await {
        assert!(results[0].outcome == expected(json!({ "text": text })));
        assert!(results[1].outcome == expected(json!("x".repeat(314_159))));
    }
}

/// gRPC's `special_status_message`.
#[tokio::test(start_paused = true)]
async fn a_tools_message_survives_with_its_whitespace_and_unicode() {
    const MESSAGE: &str = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
    let names = ["fail"];
    let mut client = pipes::client_of_service(config(), DemoTools::default(), &names).await;
    let fail = call_with("a", "fail", json!({"code": 2, "message": MESSAGE}));

    for results in all_results(&mut client, &[fail]).await {
        let error = error(&results[0]);
        assert_eq!((error.code, &*error.message), (2, MESSAGE));
        let Seen::Err(Code::Unknown, reason, effect, None) = seen(&results[0]) else {
            panic!("{error:?}");
        };
        assert_eq!((&*reason, &*effect), ("TOOL_FAILED", "done"));
    }
}

/// gRPC's `unimplemented_method` and `unimplemented_service`. The status says what was
/// asked for, and what there is.
#[tokio::test(start_paused = true)]
async fn unknown_methods_are_unimplemented() {
    let server = Arc::new(Server::orchestrator(&config(), Catalog::default()).await);
    let caller = RawClient::of_server(&server).await;
    let long = format!("/{}", "x".repeat(1000));
    for path in [
        "/fanfare.v1.OrchestratorService/Unimplemented",
        "/fanfare.v1.ToolService/Unimplemented",
        "/fanfare.v2.OrchestratorService/ExecuteTools",
        "/grpc.testing.UnimplementedService/UnimplementedCall",
        "/",
        &long,
    ] {
        let answer = caller.ask(post(path), framed_bytes(b"")).await.unwrap();
        assert_eq!(answer.code(), Code::Unimplemented, "{path}");
        let asked = &path[..path.len().min(200)];
        let expected = format!(
            "there is no method {asked:?} here: this server has \
             fanfare.v1.OrchestratorService, fanfare.v1.ToolService, grpc.health.v1.Health, \
             grpc.reflection.v1.ServerReflection, grpc.reflection.v1alpha.ServerReflection"
        );
        assert_eq!(answer.status().message(), expected);
    }
}
