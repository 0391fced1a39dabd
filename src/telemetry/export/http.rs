//! OTLP over HTTP/1.1: one POST of protobuf for each export.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use http_body_util::{BodyExt as _, Full, Limited};
use prost::Message as _;
use tonic::{Status, body::Body};

use super::{Client, Export, Failure};
use crate::{telemetry::settings::Otlp, transport::gzip};

const PROTOBUF: &str = "application/x-protobuf";
/// An answer says how many spans or metrics were rejected, and why.
const MAX_ANSWER_BYTES: usize = 64 << 10;

pub(super) async fn send<E: Export>(
    client: &Client,
    otlp: &Otlp,
    message: Bytes,
) -> Result<E::Answer, Failure> {
    let request = request(otlp, message).map_err(Failure::of_transport)?;
    let answer = client.request(request).await;
    let (head, body) = answer.map_err(Failure::of_transport)?.into_parts();
    // To its end, so that the connection can be used again.
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
    let body = body.map_err(Failure::of_transport)?.to_bytes();
    if head.status.is_success() {
        // The body may be empty.
        return Ok(E::Answer::decode(body).unwrap_or_default());
    }
    Err(failure(head.status, &head.headers))
}

fn request(otlp: &Otlp, message: Bytes) -> http::Result<Request<Body>> {
    let compressed = otlp.gzip.then(|| gzip::deflate(&message)).flatten();
    let mut request = Request::post(&otlp.endpoint);
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
    request.body(Body::new(Full::new(compressed.unwrap_or(message))))
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
