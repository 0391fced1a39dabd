//! OTLP over gRPC: one unary call for each export.

use std::{error::Error, marker::PhantomData};

use bytes::{BufMut as _, Bytes};
use http::{HeaderMap, HeaderValue, Uri, header::USER_AGENT, uri::PathAndQuery};
use tonic::{
    Status,
    client::Grpc,
    codec::{BufferSettings, Codec, CompressionEncoding, EncodeBuf, Encoder},
    metadata::MetadataMap,
};
use tonic_prost::ProstDecoder;

use super::{Client, Export, Failure};
use crate::telemetry::settings::Otlp;

pub(super) async fn send<E: Export>(
    client: &Client,
    otlp: &Otlp,
    message: Bytes,
) -> Result<E::Answer, Failure> {
    let mut client = Grpc::with_origin(client.clone(), origin(&otlp.endpoint));
    if otlp.gzip {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    client.ready().await.map_err(Failure::of_transport)?;
    let mut request = tonic::Request::new(message);
    *request.metadata_mut() = MetadataMap::from_headers(headers(otlp));
    let codec = Encoded::<E::Answer>(PhantomData);
    match client.unary(request, E::METHOD, codec).await {
        Ok(answer) => Ok(answer.into_inner()),
        // No answer of the collector, but a failure on the way.
        Err(status) if status.source().is_some() => Err(Failure::of_transport(status)),
        Err(status) => Err(Failure::of_status(status)),
    }
}

fn headers(otlp: &Otlp) -> HeaderMap {
    let mut headers = otlp.headers.clone();
    let agent = HeaderValue::from_static(super::USER_AGENT);
    headers.entry(USER_AGENT).or_insert(agent);
    headers
}

/// The collector without a path: gRPC has its own.
fn origin(endpoint: &Uri) -> Uri {
    let mut parts = endpoint.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static("/"));
    Uri::from_parts(parts).unwrap_or_default()
}

/// Sends a message that is encoded already: it is encoded once, however often it is tried.
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
