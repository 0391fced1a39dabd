use std::collections::BTreeMap;

use fanfare::{catalog::Catalog, config::Config, server::Server};
use prost::Message as _;
use prost_types::{FileDescriptorProto, field_descriptor_proto::Type};
use tonic::{Code, Status, transport::Channel};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse,
    server_reflection_request::MessageRequest::{
        self, FileByFilename, FileContainingSymbol, ListServices,
    },
    server_reflection_response::MessageResponse,
};

use crate::support::{bare, config};

/// Their messages are the same.
const VERSIONS: [&str; 2] = ["v1", "v1alpha"];

async fn start(config: &Config) -> (Server, Channel) {
    let server = Server::orchestrator(config, Catalog::default()).await;
    let channel = bare::channel_over(bare::pipe_to(&server)).await;
    (server, channel)
}

/// Asks one question of that version of the reflection service.
async fn ask(
    channel: &Channel,
    version: &str,
    question: MessageRequest,
) -> Result<MessageResponse, Status> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(question),
    };
    let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
    let codec = tonic_prost::ProstCodec::<_, ServerReflectionResponse>::default();
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("a connection");
    let request = tonic::Request::new(tokio_stream::once(request));
    let answers = client
        .streaming(request, path.parse().expect("a path"), codec)
        .await?;
    let answer = answers.into_inner().message().await?.expect("an answer");
    Ok(answer.message_response.expect("a response"))
}

/// The one file that answers `question`.
async fn file(channel: &Channel, version: &str, question: MessageRequest) -> FileDescriptorProto {
    let answer = ask(channel, version, question).await.expect("an answer");
    let MessageResponse::FileDescriptorResponse(files) = answer else {
        panic!("no file: {answer:?}");
    };
    let [file] = &files.file_descriptor_proto[..] else {
        panic!("{} files", files.file_descriptor_proto.len());
    };
    FileDescriptorProto::decode(&**file).expect("a descriptor")
}

async fn services(channel: &Channel, version: &str) -> Vec<String> {
    let answer = ask(channel, version, ListServices(String::new())).await;
    let Ok(MessageResponse::ListServicesResponse(list)) = answer else {
        panic!("no list: {answer:?}");
    };
    let mut names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
    names.sort();
    names
}

/// Every file that a client comes by which describes all services, as grpcurl
/// does: the file of each, and what that imports.
async fn described(channel: &Channel, version: &str) -> BTreeMap<String, FileDescriptorProto> {
    let mut files = BTreeMap::new();
    let mut wanted = Vec::new();
    for service in services(channel, version).await {
        let file = file(channel, version, FileContainingSymbol(service)).await;
        wanted.push(file.name().to_owned());
    }
    // What the details of errors are made of.
    wanted.push("google/rpc/error_details.proto".to_owned());
    while let Some(name) = wanted.pop() {
        let file = file(channel, version, FileByFilename(name.clone())).await;
        let imports = file.dependency.clone();
        if files.insert(name, file).is_none() {
            wanted.extend(imports);
        }
    }
    files
}

#[tokio::test(start_paused = true)]
async fn both_versions_list_what_is_served_and_describe_it_to_the_last_import() {
    let (_server, channel) = start(&config()).await;
    for version in VERSIONS {
        assert_eq!(
            services(&channel, version).await,
            [
                "fanfare.v1.OrchestratorService",
                "fanfare.v1.ToolService",
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
            ]
        );
        let files = described(&channel, version).await;
        for name in [
            "fanfare/v1/orchestrator.proto",
            "fanfare/v1/types.proto",
            "google/protobuf/any.proto",
            "google/protobuf/duration.proto",
            "google/protobuf/struct.proto",
            "google/protobuf/timestamp.proto",
            "google/rpc/error_details.proto",
            "google/rpc/status.proto",
        ] {
            assert!(files.contains_key(name), "{name} of {:?}", files.keys());
        }
        for symbol in [
            "fanfare.v1.OrchestratorService.StreamExecuteTools",
            "fanfare.v1.ToolService",
            "fanfare.v1.ToolExecutionResult.observation",
            "fanfare.v1.AggregateView",
            "google.rpc.ErrorInfo",
            "google.rpc.BadRequest",
            "google.rpc.RetryInfo",
        ] {
            file(&channel, version, FileContainingSymbol(symbol.to_owned())).await;
        }
        let unknown = FileContainingSymbol("fanfare.v1.Nothing".to_owned());
        let status = ask(&channel, version, unknown).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
    }
}

/// Inside, payloads are bytes; callers are told what they are.
#[tokio::test(start_paused = true)]
async fn payloads_are_published_with_their_types() {
    let (_server, channel) = start(&config()).await;
    for version in VERSIONS {
        for (message, field, type_name) in [
            ("ToolCall", "arguments", ".google.protobuf.Struct"),
            ("CallToolRequest", "arguments", ".google.protobuf.Struct"),
            ("CallToolResponse", "observation", ".google.protobuf.Value"),
            (
                "ToolExecutionResult",
                "observation",
                ".google.protobuf.Value",
            ),
            ("ToolExecutionResult", "error", ".google.rpc.Status"),
        ] {
            let symbol = FileContainingSymbol(format!("fanfare.v1.{message}"));
            let file = file(&channel, version, symbol).await;
            let mut messages = file.message_type.iter();
            let message = messages.find(|m| m.name() == message).expect("the message");
            let mut fields = message.field.iter();
            let field = fields.find(|f| f.name() == field).expect("the field");
            assert_eq!(
                (field.r#type(), field.type_name()),
                (Type::Message, type_name)
            );
            assert!(!field.proto3_optional());
        }
    }
}

/// grpcurl prints them when it describes something.
#[tokio::test(start_paused = true)]
async fn comments_are_served() {
    // Of protobuf's `FileDescriptorProto`: the number of `service`.
    const FIRST_SERVICE: [i32; 2] = [6, 0];
    let (_server, channel) = start(&config()).await;
    for version in VERSIONS {
        let name = "fanfare.v1.OrchestratorService".to_owned();
        let file = file(&channel, version, FileContainingSymbol(name)).await;
        let source = file.source_code_info.expect("source code info");
        let mut locations = source.location.iter();
        let service = locations.find(|location| location.path == FIRST_SERVICE);
        let comments = service.expect("the service").leading_comments();
        assert!(comments.contains("batches of tool calls"), "{comments}");
    }
}

#[tokio::test(start_paused = true)]
async fn reflection_can_be_turned_off() {
    let mut config = config();
    config.server.reflection = false;
    let (_server, channel) = start(&config).await;
    for version in VERSIONS {
        let status = ask(&channel, version, ListServices(String::new())).await;
        assert_eq!(status.unwrap_err().code(), Code::Unimplemented);
    }
    let mut client = crate::support::pipes::Client::new(channel);
    client
        .list_tools(fanfare::pb::ListToolsRequest::default())
        .await
        .unwrap();
}
