//! Serves the orchestrator without features. Only its HTTP/2 windows are raised,
//! without which it would lose calls at 10,000.

pub(crate) mod orchestrator;

use fanfare::pb::orchestrator_service_server::OrchestratorServiceServer;

use crate::{Result, load, tool};
use orchestrator::Orchestrator;

#[derive(Debug, clap::Args)]
pub(crate) struct Naive {
    /// Where the tools are
    #[arg(long)]
    tools: String,
}

impl Naive {
    /// Serves until it is killed.
    pub(crate) async fn run(self) -> Result<()> {
        let orchestrator = Orchestrator::new(load::endpoint(&self.tools)?.connect_lazy());
        let service =
            OrchestratorServiceServer::new(orchestrator).max_decoding_message_size(usize::MAX);
        let incoming = tool::listen().await?;
        tool::server()
            .add_service(service)
            .serve_with_incoming(incoming)
            .await?;
        Ok(())
    }
}
