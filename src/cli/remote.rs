//! The server that a command talks to.

use std::time::Duration;

use fanfare::{
    json, pb,
    pb::orchestrator_service_client::OrchestratorServiceClient,
    probe::{self, Address},
    protobuf::Pool,
    waterfall::results,
};
use prost::Message as _;
use serde_json::Value;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tonic_types::pb::Status as RpcStatus;

use super::exit::Exit;

/// Says where the server is, if no argument does.
const VARIABLE: &str = "FANFARE_ADDR";
const DEFAULT: &str = "127.0.0.1:50051";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where it is.
#[derive(Debug, clap::Args)]
pub(super) struct Server {
    /// Where the server listens: host:port [default: $FANFARE_ADDR, or 127.0.0.1:50051]
    #[arg(long, value_name = "ADDR")]
    addr: Option<Address>,
}

impl Server {
    /// Its address.
    pub(super) fn address(self) -> Result<Address, Exit> {
        if let Some(address) = self.addr {
            return Ok(address);
        }
        let variable = std::env::var_os(VARIABLE).filter(|it| !it.is_empty());
        let text = variable.as_ref().map(|it| it.to_string_lossy());
        let text = text.as_deref().unwrap_or(DEFAULT);
        let parsed = text.parse();
        parsed.map_err(|error| Exit::refused(format!("{VARIABLE}={text}: {error}")))
    }
}

/// A client of the server at `address`.
pub(super) async fn connect(
    address: &Address,
) -> Result<OrchestratorServiceClient<Channel>, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|error| format!("{address}: {error}"))?;
    let channel = endpoint.connect_timeout(CONNECT_TIMEOUT).connect().await;
    let channel = channel.map_err(|error| {
        let cause = probe::cause(&error);
        format!(
            "{address}: can't connect: {cause}\n\
             Is `fanfare serve` running there? --addr or {VARIABLE} say another address."
        )
    })?;
    // What it answers is within its own limits.
    Ok(OrchestratorServiceClient::new(channel).max_decoding_message_size(usize::MAX))
}

/// Why a request failed as a whole.
pub(super) fn refusal(address: &Address, status: &Status) -> String {
    if std::error::Error::source(status).is_some() {
        let cause = probe::cause(status);
        return format!("{address}: not a gRPC server, or one that broke off: {cause}");
    }
    let decoded = RpcStatus::decode(status.details()).unwrap_or_default();
    let known = RpcStatus {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: decoded.details,
    };
    let lines = results::error(&known).join("\n  ");
    format!("{address}: {lines}")
}

/// A message of the contract in protobuf's JSON mapping.
pub(super) fn to_json(name: &str, message: &impl prost::Message) -> Result<Value, String> {
    let (pool, _) = Pool::from_set(pb::FILE_DESCRIPTOR_SET).map_err(|it| it.description)?;
    let kind = pool.message(name).map_err(|error| error.to_string())?;
    let value = kind.decode(&message.encode_to_vec(), usize::MAX);
    let value = value.map_err(|error| error.to_string())?;
    json::decode_value(&value).map_err(|error| error.to_string())
}
