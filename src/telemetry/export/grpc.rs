//! OTLP over gRPC: one unary call for each export.

use std::{
    fmt,
    marker::PhantomData,
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes};
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{
    HeaderValue, Request, Response, Uri,
    header::{HeaderMap, USER_AGENT},
};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tonic::{
    Status,
    body::Body,
    codec::{BufferSettings, Codec, CompressionEncoding, EncodeBuf, Encoder},
    metadata::MetadataMap,
};
use tonic_prost::ProstDecoder;
use tower::Service;

use super::{Export, Failure, connection::Io};
use crate::telemetry::settings::Otlp;

/// A connection.
pub(super) struct Grpc {
    client: tonic::client::Grpc<Http2>,
    sender: http2::SendRequest<Body>,
    metadata: MetadataMap,
}

impl Grpc {
    pub(super) async fn open(otlp: &Otlp, io: Io) -> Result<Self, hyper::Error> {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            // A collector whose machine vanished would else be sent to for minutes.
            // At most twice in one export: gRPC servers close a connection on the
            // third ping without an answer in between (gRFC A8).
            .keep_alive_interval(otlp.timeout / 2)
            .keep_alive_timeout(otlp.timeout / 2)
            .handshake(io)
            .await?;
        tokio::spawn(connection);
        let http2 = Http2(sender.clone());
        let client = tonic::client::Grpc::with_origin(http2, origin(&otlp.endpoint));
        Ok(Self {
            client: match otlp.gzip {
                true => client.send_compressed(CompressionEncoding::Gzip),
                false => client,
            },
            sender,
            metadata: MetadataMap::from_headers(headers(otlp)),
        })
    }

    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    pub(super) async fn send<E: Export>(&mut self, message: Bytes) -> Result<E::Answer, Failure> {
        self.client.ready().await.map_err(Failure::of_transport)?;
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = self.metadata.clone();
        let codec = Encoded::<E::Answer>(PhantomData);
        match self.client.unary(request, E::METHOD, codec).await {
            Ok(answer) => Ok(answer.into_inner()),
            // The connection's fault.
            Err(status) if std::error::Error::source(&status).is_some() => {
                Err(Failure::of_transport(status))
            }
            Err(status) => Err(Failure::of_status(status)),
        }
    }
}

fn headers(otlp: &Otlp) -> HeaderMap {
    let mut headers = otlp.headers.clone();
    let agent = HeaderValue::from_static(super::USER_AGENT);
    headers.entry(USER_AGENT).or_insert(agent);
    headers
}

/// Of the collector: gRPC has paths of its own.
fn origin(endpoint: &Uri) -> Uri {
    let mut parts = endpoint.clone().into_parts();
    parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    Uri::from_parts(parts).unwrap_or_default()
}

impl fmt::Debug for Grpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grpc")
    }
}

/// A connection as tonic's client wants it.
struct Http2(http2::SendRequest<Body>);

impl Service<Request<Body>> for Http2 {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Response<Incoming>, hyper::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.send_request(request).boxed()
    }
}

/// Sends what is encoded already: once, however often it is tried.
struct Encoded<A>(PhantomData<A>);

impl<A: prost::Message + Default + 'static> Codec for Encoded<A> {
    type Encode = Bytes;
    type Decode = A;
    type Encoder = Self;
    type Decoder = ProstDecoder<A>;

    fn encoder(&mut self) -> Self {
        Self(PhantomData)
    }

    fn decoder(&mut self) -> ProstDecoder<A> {
        ProstDecoder::new(BufferSettings::default())
    }
}

impl<A> Encoder for Encoded<A> {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}
