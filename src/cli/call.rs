//! `fanfare call`: runs tool calls and shows how they go.

mod model;

use std::{
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use fanfare::{
    pb::{self, tool_execution_result::Outcome as CallOutcome},
    probe,
    waterfall::{self, results, view::View},
};
use tonic::{IntoRequest as _, Request, Status};

use super::{Outcome, exit::Exit, remote, style};

/// In place of a file: standard input.
const STDIN: &str = "-";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The tool to call, by its name or alias
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    name: Option<String>,
    /// Its arguments, a JSON object
    #[arg(value_name = "JSON", conflicts_with = "file")]
    arguments: Option<String>,
    /// Run the calls in this file (`-`: standard input): an ExecuteToolsRequest as JSON, or
    /// the tool calls of an answer of OpenAI's or Anthropic's models as they are
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print the ExecuteToolsResponse as JSON, and nothing else
    #[arg(long)]
    json: bool,
    /// How long the request may take [default: what the server allows]
    #[arg(long, value_parser = probe::parse_timeout)]
    timeout: Option<Duration>,
    #[command(flatten)]
    server: remote::Server,
}

/// Runs the calls. Fails with 1 if some of them failed, with 2 if the request did.
pub(super) async fn run(arguments: Arguments) -> Outcome {
    let Arguments {
        name,
        arguments,
        file,
        json,
        timeout,
        server,
    } = arguments;
    let request = match (file, name) {
        (Some(path), _) => from_file(&path)?,
        (None, name) => {
            let call = pb::ToolCall {
                name: name.unwrap_or_default(),
                arguments_json: arguments.unwrap_or_default().into(),
                ..pb::ToolCall::default()
            };
            pb::ExecuteToolsRequest {
                calls: vec![call],
                ..pb::ExecuteToolsRequest::default()
            }
        }
    };
    let address = server.address()?;
    let mut request = request.into_request();
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    tokio::select! {
        // Dropping what runs resets its stream, and the server cancels its calls.
        ended = execute(&address, request, json) => ended,
        _ = tokio::signal::ctrl_c() => {
            Err(Exit::new(Exit::INTERRUPTED, "interrupted: the calls are cancelled").into())
        }
    }
}

async fn execute(
    address: &probe::Address,
    request: Request<pb::ExecuteToolsRequest>,
    json: bool,
) -> Outcome {
    let mut client = remote::connect(address).await.map_err(Exit::refused)?;
    let refused = |status: Status| Exit::refused(remote::refusal(address, &status));
    let mut out = io::stdout();
    let response = if json {
        let response = client.execute_tools(request).await;
        let response = response.map_err(refused)?.into_inner();
        let shown = remote::to_json("fanfare.v1.ExecuteToolsResponse", &response);
        writeln!(out, "{:#}", shown.map_err(Exit::refused)?)?;
        response
    } else {
        let mut view = View::new(&mut out, style());
        let run = waterfall::run(client, request, &mut view).await;
        let (_, response) = run.map_err(refused)?;
        write!(out, "\n{}", results::results(style(), &response))?;
        response
    };
    out.flush()?;
    let failed = |it: &&pb::ToolExecutionResult| matches!(it.outcome, Some(CallOutcome::Error(_)));
    match response.results.iter().filter(failed).count() {
        0 => Ok(()),
        // Each said so.
        _ => Err(Exit::new(Exit::FAILED, "").into()),
    }
}

fn from_file(path: &Path) -> Result<pb::ExecuteToolsRequest, Exit> {
    let (shown, read) = if path == Path::new(STDIN) {
        let mut text = String::new();
        let read = io::stdin().read_to_string(&mut text).map(|_| text);
        ("standard input".into(), read)
    } else {
        (path.display().to_string(), std::fs::read_to_string(path))
    };
    let text = read.map_err(|error| Exit::refused(format!("{shown}: {error}")))?;
    model::request(&text).map_err(|problem| Exit::refused(format!("{shown}: {problem}")))
}
