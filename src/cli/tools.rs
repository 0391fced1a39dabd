//! `fanfare tools`: the catalogue of a server, for people and for models.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use fanfare::{
    json,
    logging::escaped,
    pb::{self, BreakerState, ConnectivityState, ToolFormat},
    waterfall::{columns, cut, padded},
};
use serde_json::Value;

use super::{Outcome, remote, style};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only these: names or aliases of tools, or beginnings of names with one * at the end
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// How to print them; all but `table` are JSON
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    server: remote::Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// The answer of ListTools
    Json,
    /// `tools` of a request to OpenAI's Chat Completions API
    Openai,
    /// `tools` of a request to OpenAI's Responses API
    OpenaiResponses,
    /// `tools` of a request to Anthropic's Messages API
    Anthropic,
    /// `functionDeclarations` of a request to the Gemini API
    Gemini,
    /// `tools` of the Model Context Protocol
    Mcp,
}

impl Format {
    fn definitions(self) -> ToolFormat {
        match self {
            Self::Table | Self::Json => ToolFormat::Unspecified,
            Self::Openai => ToolFormat::OpenaiChat,
            Self::OpenaiResponses => ToolFormat::OpenaiResponses,
            Self::Anthropic => ToolFormat::Anthropic,
            Self::Gemini => ToolFormat::Gemini,
            Self::Mcp => ToolFormat::Mcp,
        }
    }
}

/// Prints the tools.
pub(super) async fn run(arguments: Arguments) -> Outcome {
    let address = arguments.server.address()?;
    let mut client = remote::connect(&address).await?;
    let request = pb::ListToolsRequest {
        names: arguments.names,
        format: arguments.format.definitions().into(),
    };
    let answer = client.list_tools(request).await;
    let answer = answer.map_err(|status| remote::refusal(&address, &status))?;
    let answer = answer.into_inner();
    let text = match arguments.format {
        Format::Table => table(&answer.tools),
        Format::Json => {
            let name = "fanfare.v1.ListToolsResponse";
            format!("{:#}\n", remote::to_json(name, &answer)?)
        }
        _ => {
            let definitions = answer.definitions.iter().map(|it| json::decode_struct(it));
            let definitions: Value = definitions
                .collect::<Result<Vec<_>, _>>()?
                .into_iter()
                .collect();
            format!("{definitions:#}\n")
        }
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// A line for each tool. On a terminal, none is longer than that is wide.
fn table(tools: &[pb::Tool]) -> String {
    const HEAD: [&str; 4] = ["NAME", "SERVICE", "STATE", "TIMEOUT"];
    let mut rows = vec![(HEAD.map(str::to_owned), "DESCRIPTION".to_owned())];
    for tool in tools {
        let timeout = tool.timeout.unwrap_or_default();
        let timeout = std::time::Duration::try_from(timeout).unwrap_or_default();
        let about = match tool.description.lines().next() {
            None | Some("") => &tool.title,
            Some(line) => line,
        };
        let service = match tool.service.as_str() {
            "" => "-",
            service => service,
        };
        let cells = [
            escaped(&tool.name),
            escaped(service),
            state(tool).to_owned(),
            humantime::format_duration(timeout).to_string(),
        ];
        rows.push((cells, escaped(about)));
    }
    let width = |column: usize| rows.iter().map(|(cells, _)| columns(&cells[column])).max();
    let widths: [usize; 4] = std::array::from_fn(|column| width(column).unwrap_or(0) + 2);
    let style = style();
    let room = if style.live { style.width } else { usize::MAX };
    let mut text = String::new();
    for (index, (cells, about)) in rows.iter().enumerate() {
        let cells = cells.iter().zip(widths);
        let mut line: String = cells.map(|(cell, width)| padded(cell, width)).collect();
        line += about;
        let line = cut(line.trim_end(), room);
        text += &match index {
            0 if style.color && io::stdout().is_terminal() => format!("\x1b[1m{line}\x1b[0m\n"),
            _ => format!("{line}\n"),
        };
    }
    text
}

/// Whether it can be called, as far as is known.
fn state(tool: &pb::Tool) -> &'static str {
    match (tool.breaker_state(), tool.connectivity_state()) {
        (BreakerState::Open, _) => "open",
        (BreakerState::HalfOpen, _) => "half-open",
        (_, ConnectivityState::Ready) => "ready",
        (_, ConnectivityState::Connecting) => "connecting",
        (_, ConnectivityState::TransientFailure) => "unreachable",
        (_, ConnectivityState::Idle) => "idle",
        (_, ConnectivityState::Unspecified) => "-",
    }
}
