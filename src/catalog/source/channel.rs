//! One connection to one address of a service, for tonic's clients. It ends with this.

use std::task::{Context, Poll};

use http::{Request, Response, Uri};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::AbortHandle;
use tonic::body::Body;

use crate::net::{Apart, Upstream};

const MAX_HEADER_LIST_BYTES: u32 = 64 << 10;
const WINDOW_BYTES: u32 = 1 << 20;

/// The connection.
pub(super) struct Channel {
    sender: SendRequest<Body>,
    driver: AbortHandle,
}

/// Opens one, and also gives the origin for requests on it.
pub(super) async fn open(upstream: &std::sync::Arc<Upstream>) -> Result<(Channel, Uri), String> {
    let Apart { io, origin } = upstream.open_apart().await?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| format!("it does not speak HTTP/2: {error}"))?;
    let driver = tokio::spawn(async move {
        // What is wrong with it, requests on it are told.
        let _ = connection.await;
    });
    let driver = driver.abort_handle();
    Ok((Channel { sender, driver }, origin))
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl tower::Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = futures_util::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}
