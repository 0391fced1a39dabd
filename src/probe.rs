//! Checks the health of a gRPC server (`grpc.health.v1`), and says what is wrong: for
//! people, and for container probes that run a command. Kubernetes has gRPC probes of its
//! own.

use std::{error::Error, fmt, io, str::FromStr, time::Duration};

use http::Uri;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{config::duration_from, transport::endpoint::parse_endpoint};

/// The address of a server, without TLS: `host:port`, or `http://host:port`.
#[derive(Clone, Debug)]
pub struct Address(Uri);

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No connection: nobody listens there, or the name can't be resolved.
    #[error("can't connect: {0}")]
    Unreachable(String),
    /// The timeout passed before the response arrived.
    #[error("timed out after {}, {doing}", humantime::format_duration(*.after))]
    TimedOut {
        /// The timeout.
        after: Duration,
        /// What was in progress.
        doing: &'static str,
    },
    /// The server has no such service.
    #[error("unknown service {0:?}")]
    UnknownService(String),
    /// The server does not speak gRPC, or broke off.
    #[error("not a gRPC server, or one that broke off: {0}")]
    NotGrpc(String),
    /// The health service is not there.
    #[error("the server has no grpc.health.v1.Health")]
    NoHealth,
    /// Another error.
    #[error("the answer is {0:?}: {1}")]
    Failed(Code, String),
}

/// The status of `service`, or with `""` of the whole server, at `address`. `timeout` is
/// for connecting and the response together.
///
/// # Errors
/// If no status arrives in time.
pub async fn check(
    address: &Address,
    service: &str,
    timeout: Duration,
) -> Result<ServingStatus, ProbeError> {
    let deadline = Instant::now() + timeout;
    let timed_out = |doing| ProbeError::TimedOut {
        after: timeout,
        doing,
    };
    let endpoint = Endpoint::from(address.0.clone());
    let channel = timeout_at(deadline, endpoint.connect())
        .await
        .map_err(|_| timed_out("connecting"))?
        .map_err(|error| ProbeError::Unreachable(cause(&error)))?;
    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let response = timeout_at(deadline, client.check(request))
        .await
        .map_err(|_| timed_out("waiting for the answer"))?
        .map_err(|status| failure(&status, service))?;
    // A status of a later version of the protocol reads as UNKNOWN.
    Ok(response.into_inner().status())
}

fn failure(status: &Status, service: &str) -> ProbeError {
    if status.source().is_some() {
        return ProbeError::NotGrpc(cause(status));
    }
    match status.code() {
        Code::NotFound => ProbeError::UnknownService(service.to_owned()),
        Code::Unimplemented => ProbeError::NoHealth,
        code => ProbeError::Failed(code, status.message().to_owned()),
    }
}

/// The innermost error, which is the most specific.
pub fn cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let io = cause
        .downcast_ref()
        .and_then(h2::Error::get_io)
        .map(io::Error::to_string);
    io.unwrap_or_else(|| cause.to_string())
}

/// Parses a duration from 1 ms to 24 hours, such as `1s`.
///
/// # Errors
/// With the expected form.
pub fn parse_timeout(text: &str) -> Result<Duration, String> {
    duration_from(Duration::from_millis(1), text).map_err(|form| format!("expected {form}"))
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        parse_endpoint(&url)
            .filter(|uri| uri.scheme_str() == Some("http") && uri.port().is_some())
            .map(Self)
            .ok_or("expected host:port or http://host:port")
    }
}

/// `host:port`
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            self.0
                .authority()
                .map_or("", |authority| authority.as_str()),
        )
    }
}
