//! OTLP over HTTP/1.1: one POST of protobuf for each export.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use prost::Message as _;
use tonic::Status;

use super::{Export, Failure, connection::Io};
use crate::{telemetry::settings::Otlp, transport::gzip};

const PROTOBUF: &str = "application/x-protobuf";
/// An answer says how many were rejected, and why.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// A connection.
pub(super) struct Http(http1::SendRequest<Full<Bytes>>);

impl Http {
    pub(super) async fn open(io: Io) -> Result<Self, hyper::Error> {
        let (sender, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    pub(super) fn is_open(&self) -> bool {
        !self.0.is_closed()
    }

    pub(super) async fn send<E: Export>(
        &mut self,
        otlp: &Otlp,
        message: Bytes,
    ) -> Result<E::Answer, Failure> {
        self.0.ready().await.map_err(Failure::of_transport)?;
        let request = request(otlp, message);
        let answer = self.0.send_request(request.map_err(Failure::of_transport)?);
        let (head, body) = answer.await.map_err(Failure::of_transport)?.into_parts();
        // Whole, so that the connection can be used again.
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(Failure::of_transport)?.to_bytes();
        if head.status.is_success() {
            // There may be none.
            return Ok(E::Answer::decode(body).unwrap_or_default());
        }
        Err(failure(head.status, &head.headers))
    }
}

fn request(otlp: &Otlp, message: Bytes) -> http::Result<Request<Full<Bytes>>> {
    let compressed = otlp.gzip.then(|| gzip::deflate(&message)).flatten();
    let path = otlp
        .endpoint
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let host = otlp.endpoint.authority().map_or("", |host| host.as_str());
    let mut request = Request::post(path);
    if let Some(headers) = request.headers_mut() {
        let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
        set(USER_AGENT, super::USER_AGENT);
        for (name, value) in &otlp.headers {
            headers.append(name, value.clone());
        }
        let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
        set(CONTENT_TYPE, PROTOBUF);
        if compressed.is_some() {
            set(CONTENT_ENCODING, "gzip");
        }
    }
    request
        .header(HOST, host)
        .body(Full::new(compressed.unwrap_or(message)))
}

/// By the rules of OTLP (<https://opentelemetry.io/docs/specs/otlp/#otlphttp-response>).
fn failure(status: StatusCode, headers: &HeaderMap) -> Failure {
    let again = matches!(status.as_u16(), 429 | 502 | 503 | 504);
    let asked = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let asked = asked.and_then(|seconds| seconds.trim().parse().ok());
    let message = format!("HTTP {status}");
    Failure {
        status: match again {
            true => Status::unavailable(message),
            false => Status::unknown(message),
        },
        again: again.then(|| asked.map(Duration::from_secs)),
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}
