//! A gRPC server of which nothing works but reflection, and that as a test says.

use std::{net::SocketAddr, pin::Pin, sync::Arc};

use futures_util::Stream;
use prost::Message as _;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, MethodDescriptorProto,
    ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use tokio::net::TcpListener;
use tokio_stream::{StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use tonic_reflection::pb::{
    v1::{
        self, ErrorResponse, FileDescriptorResponse, ListServiceResponse, ServerReflectionRequest,
        ServerReflectionResponse, ServiceResponse, server_reflection_request::MessageRequest,
        server_reflection_response::MessageResponse,
    },
    v1alpha,
};

/// What it answers; `None`: the stream ends.
type Answer = dyn Fn(MessageRequest) -> Option<Found> + Send + Sync;

/// An answer.
pub enum Found {
    Services(Vec<String>),
    Files(Vec<Vec<u8>>),
    Nothing,
}

#[derive(Clone)]
struct Reflecting(Arc<Answer>);

/// Serves v1 or v1alpha, if any, with these answers, as long as the test runs.
pub async fn serve(
    version: Option<&str>,
    answer: impl Fn(MessageRequest) -> Option<Found> + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let this = Reflecting(Arc::new(answer));
    let v1 = v1::server_reflection_server::ServerReflectionServer::new(this.clone());
    let v1alpha = v1alpha::server_reflection_server::ServerReflectionServer::new(this);
    let mut server = Server::builder();
    let router = match version {
        Some("v1") => server.add_service(v1),
        Some(_) => server.add_service(v1alpha),
        None => server.add_service(tonic_health::server::health_reporter().1),
    };
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// Answers with files of which each has its name, and what it declares; never more than
/// is asked for.
pub fn of_files(files: Vec<FileDescriptorProto>) -> impl Fn(MessageRequest) -> Option<Found> {
    move |question| {
        let found = match question {
            MessageRequest::ListServices(_) => {
                let services = files.iter().flat_map(|file| {
                    let names = file.service.iter();
                    names.map(|service| format!("{}.{}", file.package(), service.name()))
                });
                return Some(Found::Services(services.collect()));
            }
            MessageRequest::FileByFilename(name) => files.iter().find(|file| file.name() == name),
            MessageRequest::FileContainingSymbol(symbol) => {
                files.iter().find(|file| declares(file, &symbol))
            }
            _ => None,
        };
        Some(found.map_or(Found::Nothing, |file| {
            Found::Files(vec![file.encode_to_vec()])
        }))
    }
}

fn declares(file: &FileDescriptorProto, symbol: &str) -> bool {
    let messages = file.message_type.iter().map(|it| it.name());
    let services = file.service.iter().map(|it| it.name());
    let mut names = messages.chain(services);
    names.any(|name| format!("{}.{name}", file.package()) == symbol)
}

/// A file of the package `p`.
pub fn file(name: &str, imports: &[&str]) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        package: Some("p".to_owned()),
        dependency: imports.iter().map(|&it| it.to_owned()).collect(),
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    }
}

/// A message with one field, `value`: a string, or of that message type.
pub fn message(name: &str, of: Option<&str>) -> DescriptorProto {
    let field = FieldDescriptorProto {
        name: Some("value".to_owned()),
        number: Some(1),
        label: Some(Label::Optional.into()),
        r#type: Some(
            if of.is_some() {
                Type::Message
            } else {
                Type::String
            }
            .into(),
        ),
        type_name: of.map(|of| format!(".p.{of}")),
        ..FieldDescriptorProto::default()
    };
    DescriptorProto {
        name: Some(name.to_owned()),
        field: vec![field],
        ..DescriptorProto::default()
    }
}

/// A method that takes and gives these messages.
pub fn method(name: &str, input: &str, output: &str) -> MethodDescriptorProto {
    MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(format!(".p.{input}")),
        output_type: Some(format!(".p.{output}")),
        ..MethodDescriptorProto::default()
    }
}

/// A service with these methods.
pub fn service(name: &str, methods: Vec<MethodDescriptorProto>) -> ServiceDescriptorProto {
    ServiceDescriptorProto {
        name: Some(name.to_owned()),
        method: methods,
        ..ServiceDescriptorProto::default()
    }
}

impl Reflecting {
    fn answer(&self, question: ServerReflectionRequest) -> Option<ServerReflectionResponse> {
        let found = (self.0)(question.message_request.expect("a question"))?;
        let response = match found {
            Found::Services(names) => {
                let service = names.into_iter().map(|name| ServiceResponse { name });
                MessageResponse::ListServicesResponse(ListServiceResponse {
                    service: service.collect(),
                })
            }
            Found::Files(file_descriptor_proto) => {
                MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
                    file_descriptor_proto,
                })
            }
            Found::Nothing => MessageResponse::ErrorResponse(ErrorResponse {
                error_code: 5,
                error_message: "nothing".to_owned(),
            }),
        };
        Some(ServerReflectionResponse {
            message_response: Some(response),
            ..ServerReflectionResponse::default()
        })
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl v1::server_reflection_server::ServerReflection for Reflecting {
    type ServerReflectionInfoStream = Answers<ServerReflectionResponse>;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let this = self.clone();
        let answers = request
            .into_inner()
            .map_while(move |question| match question {
                Ok(question) => this.answer(question).map(Ok),
                Err(status) => Some(Err(status)),
            });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// The messages are the same on the wire.
#[tonic::async_trait]
impl v1alpha::server_reflection_server::ServerReflection for Reflecting {
    type ServerReflectionInfoStream = Answers<v1alpha::ServerReflectionResponse>;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<v1alpha::ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let this = self.clone();
        let answers = request
            .into_inner()
            .map_while(move |question| match question {
                Ok(question) => {
                    let bytes = question.encode_to_vec();
                    let question = ServerReflectionRequest::decode(&*bytes).expect("the same");
                    let bytes = this.answer(question)?.encode_to_vec();
                    Some(Ok(
                        v1alpha::ServerReflectionResponse::decode(&*bytes).expect("the same")
                    ))
                }
                Err(status) => Some(Err(status)),
            });
        Ok(Response::new(Box::pin(answers)))
    }
}
