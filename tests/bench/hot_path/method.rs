//! A gRPC service as others have them, whose methods are tools: what translating costs.

use std::{convert::Infallible, error::Error, io, path::Path, time::Duration};

use bytes::Bytes;
use fanfare::{
    catalog::discovery::Discovery,
    config::Config,
    json::encode_value,
    net::{Connect, Io},
    pb,
    server::Server,
};
use futures_util::future::BoxFuture;
use prost::Message;
use serde_json::{Value, json};
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, NamedService, UnaryService},
};
use tonic_prost::ProstCodec;

use crate::pipes;

const PROTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/hot_path");

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(string, tag = "1")]
    city: String,
    #[prost(string, tag = "2")]
    country: String,
    #[prost(double, tag = "3")]
    celsius: f64,
    #[prost(int32, tag = "4")]
    humidity: i32,
    #[prost(int64, tag = "5")]
    station: i64,
    #[prost(bool, tag = "6")]
    raining: bool,
    #[prost(string, tag = "7")]
    measured: String,
    #[prost(string, repeated, tag = "8")]
    tags: Vec<String>,
    #[prost(string, tag = "9")]
    source: String,
    #[prost(double, tag = "10")]
    wind: f64,
}

#[derive(Clone, PartialEq, Message)]
struct Batch {
    #[prost(message, repeated, tag = "1")]
    records: Vec<Record>,
}

/// What is sent and answered: one record, or thirty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fields {
    Ten,
    Hundreds,
}

impl Fields {
    pub(crate) fn json(self) -> Value {
        let record = json!({
            "city": "Bern", "country": "Switzerland", "celsius": 21.5, "humidity": 63,
            "station": "46011", "raining": true, "measured": "2026-03-01T12:00:00Z",
            "tags": ["automatic"], "source": "https://weather.example/46011", "wind": 3.25,
        });
        match self {
            Self::Ten => record,
            Self::Hundreds => json!({"records": vec![record; 30]}),
        }
    }

    /// The same as an observation.
    pub(crate) fn observation(self) -> Bytes {
        encode_value(&self.json())
    }

    /// The tool's name.
    pub(crate) fn tool(self) -> &'static str {
        match self {
            Self::Ten => "ten",
            Self::Hundreds => "hundreds",
        }
    }
}

fn record() -> Record {
    Record {
        city: "Bern".to_owned(),
        country: "Switzerland".to_owned(),
        celsius: 21.5,
        humidity: 63,
        station: 46011,
        raining: true,
        measured: "2026-03-01T12:00:00Z".to_owned(),
        tags: vec!["automatic".to_owned()],
        source: "https://weather.example/46011".to_owned(),
        wind: 3.25,
    }
}

/// The service.
#[derive(Clone)]
struct Weather;

/// A method that answers always the same.
struct Fixed<T>(T);

impl<T: Message + Clone + PartialEq + Default + 'static> UnaryService<T> for Fixed<T> {
    type Response = T;
    type Future = std::future::Ready<Result<Response<T>, Status>>;

    fn call(&mut self, request: Request<T>) -> Self::Future {
        let arrived = request.into_inner() == self.0;
        std::future::ready(if arrived {
            Ok(Response::new(self.0.clone()))
        } else {
            Err(Status::data_loss("other arguments arrived"))
        })
    }
}

impl NamedService for Weather {
    const NAME: &'static str = "bench.v1.Weather";
}

impl Service<http::Request<Body>> for Weather {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            Ok(if request.uri().path().ends_with("/Ten") {
                let codec = ProstCodec::<Record, Record>::default();
                Grpc::new(codec).unary(Fixed(record()), request).await
            } else {
                let codec = ProstCodec::<Batch, Batch>::default();
                let records = vec![record(); 30];
                Grpc::new(codec)
                    .unary(Fixed(Batch { records }), request)
                    .await
            })
        })
    }
}

/// Opens pipes to the service.
struct ToWeather;

impl Connect for ToWeather {
    fn connect(&self) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let (ours, theirs) = tokio::io::duplex(pipes::PIPE_BYTES);
        let serve = tonic::transport::Server::builder()
            .add_service(Weather)
            .serve_with_incoming(tokio_stream::iter([Ok::<_, io::Error>(theirs)]));
        tokio::spawn(serve);
        Box::pin(async move { Ok(Box::new(ours) as Box<dyn Io>) })
    }
}

/// Writes the descriptors of the service.
fn descriptors(file: &Path) -> Result<(), Box<dyn Error>> {
    let mut compiler = protox::Compiler::new([PROTO])?;
    compiler.include_imports(true).open_file("weather.proto")?;
    Ok(std::fs::write(file, compiler.encode_file_descriptor_set())?)
}

/// A server whose tools are the methods of the service.
pub(crate) async fn client() -> Result<pipes::Client, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("weather.binpb");
    descriptors(&file)?;
    let config = Config::parse(&format!(
        "[services.weather]\nendpoint = 'http://weather'\nprotocol = 'grpc'\n\
         descriptors = '{}'\nexpose = ['*']",
        file.display()
    ))?;
    let discovery = Discovery::with_connect(&config, |_| std::sync::Arc::new(ToWeather));
    let server = Server::following(&config, discovery.snapshots()).await;
    tokio::spawn(discovery.run());
    let mut client = pipes::client_of(&std::sync::Arc::new(server)).await;
    // The file is read beside the traffic.
    loop {
        let listed = client.list_tools(pb::ListToolsRequest::default()).await?;
        if listed.into_inner().tools.len() == 2 {
            return Ok(client);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
