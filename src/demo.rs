//! What a newcomer sees first: a tool service to call, and a scenario that
//! shows what Fanfare does with it.
//!
//! The tools are a real remote tool service, for tests, benches and compose
//! too. Ports, servers and the command line are left to the caller, and so is
//! the logger that the tools' ledger goes to.

mod ledger;
pub mod scenario;
pub mod tools;

use std::{fmt::Write as _, net::SocketAddr};

use tonic::transport::{Channel, Endpoint, Error};

use crate::pb::orchestrator_service_client::OrchestratorServiceClient;

/// The demo tools: name, description, and whether they are idempotent.
pub const TOOLS: [(&str, &str, bool); 8] = [
    ("echo", "Returns its arguments", true),
    (
        "sleep",
        "Waits for so many {seconds}, then says how long it slept",
        true,
    ),
    (
        "fail",
        "Fails with the gRPC status of this {code} and {message}",
        false,
    ),
    // Not idempotent in itself; but being retried is its whole purpose.
    (
        "flaky",
        "Is unavailable for the first so many {failures} of a {key}, then answers",
        true,
    ),
    ("hang", "Never answers", true),
    ("payload", "Returns a string of so many {bytes}", true),
    ("panic", "Panics inside of the tool service", false),
    ("crash", "Aborts the process of the tool service", false),
];

/// The configuration, as TOML, of a Fanfare that serves the demo tools which
/// listen on `tools_addr`. Everything that it does not name has its default.
pub fn config_toml(tools_addr: SocketAddr) -> String {
    let mut toml = format!(
        "# The demo tools: one remote service that serves them all.\n\
         [services.demo]\n\
         endpoint = \"http://{tools_addr}\"\n\
         # It says itself what they are; the names are those of the sections below.\n\
         expose = [\"*\"]\n"
    );
    for (name, description, idempotent) in TOOLS {
        let idempotent = if idempotent {
            "idempotent = true\n"
        } else {
            ""
        };
        // Writing to a String does not fail.
        let _ = write!(
            toml,
            "\n[tools.{name}]\nservice = \"demo\"\ndescription = \"{description}\"\n{idempotent}"
        );
    }
    toml
}

/// A client of the server at `address`, without TLS.
///
/// # Errors
/// If nobody listens there.
pub async fn connect(address: SocketAddr) -> Result<OrchestratorServiceClient<Channel>, Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let channel = endpoint.connect().await?;
    Ok(OrchestratorServiceClient::new(channel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_toml_that_a_person_can_read() {
        let text = config_toml(([127, 0, 0, 1], 50052).into());
        assert!(text.starts_with(
            "# The demo tools: one remote service that serves them all.\n\
             [services.demo]\n\
             endpoint = \"http://127.0.0.1:50052\"\n\
             # It says itself what they are; the names are those of the sections below.\n\
             expose = [\"*\"]\n\
             \n\
             [tools.echo]\n\
             service = \"demo\"\n\
             description = \"Returns its arguments\"\n\
             idempotent = true\n\
             \n\
             [tools.sleep]\n"
        ));

        let tools = crate::config::Config::parse(&text).unwrap().tools;
        assert_eq!(tools.len(), TOOLS.len());
        let idempotent: Vec<&str> = tools
            .iter()
            .filter(|(_, tool)| tool.idempotent)
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(idempotent, ["echo", "flaky", "hang", "payload", "sleep"]);
    }
}
