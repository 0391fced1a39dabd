//! The tool service of the bench: answers every call with the same small
//! observation, at once or after the time that the tool's name says. Payloads
//! are opaque to it, as they are to Fanfare, so that it stays cheap.

use std::time::Duration;

use bytes::Bytes;
use fanfare::{
    json::encode_value,
    pb::{
        self,
        tool_service_server::{ToolService, ToolServiceServer},
    },
};
use tokio::{net::TcpListener, time::sleep};
use tonic::{
    Request, Response, Status,
    transport::server::{Server, TcpIncoming},
};

use crate::Result;

/// Small frames that are not read yet are charged against half of this (h2):
/// what 10,000 calls at once need.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
pub(crate) const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const DELAY: &str = "delay-";

/// The name of the tool that takes so many milliseconds.
pub(crate) fn name(milliseconds: u64) -> String {
    format!("{DELAY}{milliseconds}")
}

/// What every tool answers.
pub(crate) fn observation() -> Bytes {
    encode_value(&serde_json::json!({"city": "Bern", "celsius": 21}))
}

struct Tools {
    observation: Bytes,
}

#[tonic::async_trait]
impl ToolService for Tools {
    async fn call_tool(
        &self,
        request: Request<pb::CallToolRequest>,
    ) -> std::result::Result<Response<pb::CallToolResponse>, Status> {
        let name = &request.get_ref().name;
        let milliseconds = name
            .strip_prefix(DELAY)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Status::unimplemented(format!("no tool is named {name:?}")))?;
        if milliseconds > 0 {
            sleep(Duration::from_millis(milliseconds)).await;
        }
        Ok(Response::new(pb::CallToolResponse {
            observation: Some(self.observation.clone()),
        }))
    }

    async fn list_tools(
        &self,
        _: Request<pb::ListToolsRequest>,
    ) -> std::result::Result<Response<pb::ListToolsResponse>, Status> {
        Err(Status::unimplemented("it describes nothing"))
    }
}

/// Serves until it is killed.
pub(crate) async fn run() -> Result<()> {
    let tools = Tools {
        observation: observation(),
    };
    let service = ToolServiceServer::new(tools).max_decoding_message_size(usize::MAX);
    let incoming = listen().await?;
    server()
        .add_service(service)
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}

/// tonic's server, with windows that hold what the cases send.
pub(crate) fn server() -> Server {
    Server::builder()
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
}

/// A port of its own, announced on standard output.
pub(crate) async fn listen() -> Result<TcpIncoming> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(TcpIncoming::from(listener).with_nodelay(Some(true)))
}
