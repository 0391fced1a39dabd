//! `ListTools`: what is asked for, and the tools as they are answered.

use prost::Message as _;
use tonic::Status;

use super::{
    duration,
    status::{Violations, list_too_large},
};
use crate::{
    catalog::{
        BreakerState, Catalog, Connectivity,
        formats::Format,
        listing::{Listed, Wanted},
    },
    core::call::ToolName,
    pb,
};

/// How many names a request may have.
const MAX_NAMES: usize = 1000;

/// The tools of `catalog` that `request` asks for, in an answer of at most `max_bytes`.
///
/// # Errors
/// If the request is wrong, or its answer would be larger.
pub fn list(
    request: &pb::ListToolsRequest,
    catalog: &Catalog,
    max_bytes: usize,
) -> Result<pb::ListToolsResponse, Status> {
    let (wanted, format) = parse(request)?;
    let tools: Vec<_> = match &wanted {
        None => catalog.iter().collect(),
        Some(wanted) => catalog.select(wanted),
    };
    let count = tools.len();
    let definitions = match format {
        None => Vec::new(),
        Some(format) => tools.iter().map(|it| it.definition_as(format)).collect(),
    };
    let answer = pb::ListToolsResponse {
        tools: tools.into_iter().map(tool).collect(),
        generation: catalog.generation().to_owned(),
        definitions,
    };
    match answer.encoded_len() {
        bytes if bytes > max_bytes => Err(list_too_large(count, bytes, max_bytes)),
        _ => Ok(answer),
    }
}

/// Which tools are wanted (`None`: all) in which format (`None`: none).
type Parsed = (Option<Vec<Wanted>>, Option<Format>);

fn parse(request: &pb::ListToolsRequest) -> Result<Parsed, Violations> {
    let mut violations = Violations::default();
    let format = match pb::ToolFormat::try_from(request.format) {
        Ok(pb::ToolFormat::Unspecified) => None,
        Ok(pb::ToolFormat::OpenaiChat) => Some(Format::OpenAiChat),
        Ok(pb::ToolFormat::OpenaiResponses) => Some(Format::OpenAiResponses),
        Ok(pb::ToolFormat::Anthropic) => Some(Format::Anthropic),
        Ok(pb::ToolFormat::Gemini) => Some(Format::Gemini),
        Ok(pb::ToolFormat::Mcp) => Some(Format::Mcp),
        Err(_) => {
            violations.add("format", format!("is no ToolFormat: {}", request.format));
            None
        }
    };
    let count = request.names.len();
    if count > MAX_NAMES {
        let problem = format!("must be at most {MAX_NAMES} names, are {count}");
        violations.add("names", problem);
        return Err(violations);
    }
    let mut wanted = Vec::with_capacity(count);
    for (index, name) in request.names.iter().enumerate() {
        match parse_name(name) {
            Ok(name) => wanted.push(name),
            Err(problem) => violations.add(format!("names[{index}]"), problem),
        }
    }
    violations.into_result()?;
    Ok(((count > 0).then_some(wanted), format))
}

fn parse_name(name: &str) -> Result<Wanted, String> {
    let (name, wanted): (_, fn(String) -> Wanted) = match name.strip_suffix('*') {
        Some("") => return Ok(Wanted::Beginning(String::new())),
        Some(beginning) => (beginning, Wanted::Beginning),
        None => (name, Wanted::One),
    };
    match ToolName::check(name) {
        Ok(()) => Ok(wanted(name.to_owned())),
        Err(_) if name.contains('*') => Err("may have one *, at its end".to_owned()),
        Err(problem) => Err(problem.to_string()),
    }
}

/// A tool, as `ListTools` returns it.
fn tool(listed: Listed<'_>) -> pb::Tool {
    let breaker_state = match listed.breaker_state {
        None => pb::BreakerState::Unspecified,
        Some(BreakerState::Closed) => pb::BreakerState::Closed,
        Some(BreakerState::Open) => pb::BreakerState::Open,
        Some(BreakerState::HalfOpen) => pb::BreakerState::HalfOpen,
    };
    let connectivity_state = match listed.connectivity {
        None => pb::ConnectivityState::Unspecified,
        Some(Connectivity::Idle) => pb::ConnectivityState::Idle,
        Some(Connectivity::Connecting) => pb::ConnectivityState::Connecting,
        Some(Connectivity::Ready) => pb::ConnectivityState::Ready,
        Some(Connectivity::TransientFailure) => pb::ConnectivityState::TransientFailure,
    };
    let definition = listed.definition;
    pb::Tool {
        name: listed.name.as_str().to_owned(),
        description: definition.description.clone(),
        timeout: Some(duration(listed.timeout)),
        idempotent: listed.idempotent,
        input_schema: listed.input_schema.cloned(),
        breaker_state: breaker_state.into(),
        connectivity_state: connectivity_state.into(),
        service: listed.service.unwrap_or_default().to_owned(),
        title: definition.title.clone(),
        output_schema: listed.output_schema.cloned(),
        read_only: definition.read_only,
        destructive: definition.destructive,
        alias: listed.alias.to_owned(),
    }
}
