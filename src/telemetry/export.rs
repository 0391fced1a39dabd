//! The way out: exports to a collector over OTLP, by gRPC or by HTTP, and the resource
//! that they name. Nothing here connects before there is something to send: a collector
//! that is not there, or never answers, costs only what it would have got.
//!
//! opentelemetry-otlp would do one protocol only without a second HTTP client, trust no
//! certificate of one's own, bound no connecting, and read the environment once more.

mod connection;
mod grpc;
mod http;

use std::time::Duration;

use ::http::uri::PathAndQuery;
use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry_sdk::{Resource, resource::TelemetryResourceDetector};
use prost::Message;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use self::{connection::connect, grpc::Grpc, http::Http};
use super::settings::{Otlp, Protocol};

const USER_AGENT: &str = concat!("fanfare/", env!("CARGO_PKG_VERSION"));
/// The first wait before an export is tried again; the next ones double, each
/// less up to a half.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// What is exported, and what answers it.
pub(super) trait Export: Message {
    /// What a collector answers.
    type Answer: Message + Default + 'static;
    /// The method that takes it.
    const METHOD: PathAndQuery;
}

/// Sends exports of one signal to a collector, one after the other.
#[derive(Debug)]
pub(super) struct Exporter {
    otlp: Otlp,
    /// The last one, if it can be used again.
    connection: Option<Connection>,
}

#[derive(Debug)]
enum Connection {
    Grpc(Box<Grpc>),
    Http(Http),
}

/// Why an export was not taken, and whether to try again: after how long, if the
/// collector said that.
#[derive(Debug)]
struct Failure {
    status: Status,
    again: Option<Option<Duration>>,
}

impl Exporter {
    pub(super) fn new(otlp: Otlp) -> Self {
        Self {
            otlp,
            connection: None,
        }
    }

    /// Tries until it is sent, it makes no sense any more, or time is up.
    pub(super) async fn send<E: Export>(&mut self, export: E) -> Result<E::Answer, Status> {
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

    /// A connection is used again only after an answer.
    async fn once<E: Export>(&mut self, message: Bytes) -> Result<E::Answer, Failure> {
        let usable = self.connection.take().filter(Connection::is_open);
        let mut connection = match usable {
            Some(connection) => connection,
            None => self.connect().await.map_err(Failure::of_transport)?,
        };
        let otlp = &self.otlp;
        let result = match &mut connection {
            Connection::Grpc(grpc) => grpc.send::<E>(message).await,
            Connection::Http(http) => http.send::<E>(otlp, message).await,
        };
        let answered = match &result {
            Ok(_) => true,
            Err(failure) => std::error::Error::source(&failure.status).is_none(),
        };
        self.connection = Some(connection).filter(|_| answered);
        result
    }

    async fn connect(&self) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
        let io = connect(&self.otlp).await?;
        Ok(match self.otlp.protocol {
            Protocol::Grpc => Connection::Grpc(Box::new(Grpc::open(&self.otlp, io).await?)),
            Protocol::Http => Connection::Http(Http::open(io).await?),
        })
    }
}

impl Connection {
    fn is_open(&self) -> bool {
        match self {
            Self::Grpc(grpc) => grpc.is_open(),
            Self::Http(http) => http.is_open(),
        }
    }
}

impl Failure {
    /// There was no answer.
    fn of_transport(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
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

/// Who we are: `attributes`, and the SDK.
pub fn resource(attributes: &[(String, String)]) -> Resource {
    let attributes = attributes.iter().cloned();
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(attributes.map(|(key, value)| KeyValue::new(key, value)))
        .build()
}
