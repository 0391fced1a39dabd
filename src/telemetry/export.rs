//! Exports to a collector over OTLP, by gRPC or by HTTP. Nothing here connects before there
//! is something to send: a collector that is not there, or never answers, costs only what it
//! would have got.
//!
//! `opentelemetry-otlp` 0.33 is not used. It keeps from its caller how many spans a collector
//! rejected, and what of the environment it ignores; it adds the headers of the environment
//! once more to those it is given, also those that were refused here; and for its HTTP it
//! needs a client, which would be most of this module. Conversion is that of
//! `opentelemetry-proto`.

mod connector;
mod grpc;
mod http;

use std::{error::Error, fmt, time::Duration};

use ::http::uri::PathAndQuery;
use bytes::Bytes;
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use opentelemetry::KeyValue;
use opentelemetry_sdk::{Resource, resource::TelemetryResourceDetector};
use prost::Message;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt as _;

use self::connector::Connector;
use super::{
    names,
    settings::{Otlp, Protocol},
};

const USER_AGENT: &str = concat!("fanfare/", env!("CARGO_PKG_VERSION"));
/// The first wait before an export is tried again; each next one is twice as long. Up to
/// half of it is taken off, by chance.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// The message of an export, and the one that answers it.
pub(super) trait Export: Message {
    /// What a collector answers.
    type Answer: Message + Default + 'static;
    /// The gRPC method that takes it.
    const METHOD: PathAndQuery;
}

/// Sends the exports of one signal to a collector.
pub(super) struct Exporter {
    otlp: Otlp,
    client: Client,
}

/// Connects when there is something to send, and keeps one connection.
type Client = legacy::Client<Connector, Body>;

/// Why an export was not taken, and whether to try again: after how long, if the
/// collector said that.
#[derive(Debug)]
struct Failure {
    status: Status,
    again: Option<Option<Duration>>,
}

impl Exporter {
    pub(super) fn new(otlp: Otlp) -> Self {
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(1).timer(TokioTimer::new());
        if otlp.protocol == Protocol::Grpc {
            builder
                .http2_only(true)
                // Exports to a collector whose machine vanished would otherwise wait for the
                // kernel, for minutes. At most twice in one export: gRPC servers close a
                // connection on the third ping without an answer in between (gRFC A8).
                .http2_keep_alive_interval(otlp.timeout / 2)
                .http2_keep_alive_timeout(otlp.timeout / 2);
        }
        Self {
            client: builder.build(Connector::new(&otlp)),
            otlp,
        }
    }

    /// Tries until it is taken, trying again makes no sense, or time is up.
    pub(super) async fn send<E: Export>(&self, export: E) -> Result<E::Answer, Status> {
        let message = Bytes::from(export.encode_to_vec());
        drop(export);
        let deadline = Instant::now() + self.otlp.timeout;
        let mut backoff = FIRST_BACKOFF;
        loop {
            let Ok(result) = timeout_at(deadline, self.once::<E>(message.clone())).await else {
                return Err(Status::deadline_exceeded("no answer in time"));
            };
            let Failure { status, again } = match result {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let Some(asked) = again else {
                return Err(status);
            };
            let wait = asked.unwrap_or_else(|| backoff.mul_f64(0.5 + 0.5 * fastrand::f64()));
            if Instant::now() + wait >= deadline {
                return Err(status);
            }
            sleep(wait).await;
            backoff = (2 * backoff).min(MAX_BACKOFF);
        }
    }

    async fn once<E: Export>(&self, message: Bytes) -> Result<E::Answer, Failure> {
        match self.otlp.protocol {
            Protocol::Grpc => grpc::send::<E>(&self.client, &self.otlp, message).await,
            Protocol::Http => http::send::<E>(&self.client, &self.otlp, message).await,
        }
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter")
            .field("otlp", &self.otlp)
            .finish_non_exhaustive()
    }
}

impl Failure {
    /// There was no answer.
    fn of_transport(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let mut status = Status::unavailable("no answer");
        status.set_source(error.into().into());
        Self {
            status,
            again: Some(None),
        }
    }

    /// By the rules of OTLP (<https://opentelemetry.io/docs/specs/otlp/#failures>).
    fn of_status(status: Status) -> Self {
        let asked = status
            .get_details_retry_info()
            .and_then(|info| info.retry_delay);
        let again = match status.code() {
            Code::ResourceExhausted => asked.is_some(),
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss => true,
            _ => false,
        };
        Self {
            status,
            again: again.then_some(asked),
        }
    }
}

/// The failure of an export in short, with its root cause, such as "Connection refused".
pub(super) fn reason(status: &Status) -> String {
    let mut cause = status.source();
    while let Some(deeper) = cause.and_then(Error::source) {
        cause = Some(deeper);
    }
    let (code, message) = (names::code(status.code()), status.message());
    match cause {
        Some(cause) => format!("{code}: {message}: {cause}"),
        None => format!("{code}: {message}"),
    }
}

/// The resource: `attributes`, and those of the SDK.
pub fn resource(attributes: &[(String, String)]) -> Resource {
    let attributes = attributes.iter().cloned();
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(attributes.map(|(key, value)| KeyValue::new(key, value)))
        .build()
}
