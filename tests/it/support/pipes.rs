//! The whole server over in-memory pipes: with a paused clock, times are exact.

use std::{io, sync::Arc};

use fanfare::{
    catalog::Catalog,
    config::{Config, Service, Tool},
    core::call::ToolName,
    net::{Connect, Io},
    pb::{
        orchestrator_service_client::OrchestratorServiceClient, tool_service_server::ToolService,
    },
    server::Server,
};
use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};

pub type Client = OrchestratorServiceClient<Channel>;

pub const PIPE_BYTES: usize = 64 << 10;

/// A client of a server with these tools, over a pipe.
pub async fn client(config: &Config, catalog: Catalog) -> Client {
    let server = Arc::new(Server::orchestrator(config, catalog).await);
    client_of(&server).await
}

/// A client of that server, over a pipe of its own.
pub async fn client_of(server: &Arc<Server>) -> Client {
    let connect = PipeConnect(Arc::clone(server));
    let channel = Endpoint::from_static("http://fanfare")
        .connect_with_connector(tower::service_fn(move |_| {
            let pipe = connect.connect();
            async move { pipe.await.map(TokioIo::new) }
        }))
        .await
        .expect("a pipe");
    OrchestratorServiceClient::new(channel).max_decoding_message_size(usize::MAX)
}

/// A client of a server that calls `tools` over gRPC, through pipes all the way.
/// Each of `names` is a tool with the default settings.
pub async fn client_of_service(config: Config, tools: impl ToolService, names: &[&str]) -> Client {
    let (config, catalog) = service(config, tools, names).await;
    client(&config, catalog).await
}

/// `config` with these tools, and the way to them.
pub async fn service(
    mut config: Config,
    tools: impl ToolService,
    names: &[&str],
) -> (Config, Catalog) {
    let endpoint = "http://tools".parse().expect("a URL");
    config
        .services
        .insert("tools".to_owned(), Service::new(endpoint));
    for name in names {
        let name = ToolName::try_new((*name).to_owned()).expect("a tool name");
        config.tools.insert(name, Tool::new("tools".to_owned()));
    }
    // A bound of the server under test is none of the tools'.
    let mut roomy = config.clone();
    roomy.limits.max_buffered_bytes = 1 << 40;
    let tools = Arc::new(Server::tools(&roomy, tools).await);
    let catalog = Catalog::with_connect(&config, |_| Arc::new(PipeConnect(Arc::clone(&tools))));
    (config, catalog)
}

/// Opens pipes to a server.
pub struct PipeConnect(pub Arc<Server>);

impl Connect for PipeConnect {
    fn connect(&self) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        tokio::spawn(self.0.serve_connection(theirs));
        Box::pin(async move { Ok(Box::new(ours) as Box<dyn Io>) })
    }
}
