//! The demo's own connection to the server: as simple as a gRPC client can be.

use std::{
    error::Error,
    net::SocketAddr,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::body::Body;

use crate::pb::orchestrator_service_client::OrchestratorServiceClient;

/// One HTTP/2 connection without any policy.
#[derive(Clone, Debug)]
pub struct Plain(http2::SendRequest<Body>);

/// Connects to a server on this machine.
///
/// # Errors
/// If there is none.
pub async fn connect(
    address: SocketAddr,
) -> Result<OrchestratorServiceClient<Plain>, Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let origin = format!("http://{address}").parse()?;
    Ok(OrchestratorServiceClient::with_origin(
        Plain(sender),
        origin,
    ))
}

impl tower::Service<http::Request<Body>> for Plain {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, hyper::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
