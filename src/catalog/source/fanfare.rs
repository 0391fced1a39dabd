//! A service that describes its tools itself: `fanfare.v1.ToolService/ListTools`.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use tonic::{Code, Status};

use super::{MAX_BYTES, MAX_NAME_BYTES, Offer, Told, Unusable, channel, hash_of, shown};
use crate::{
    catalog::definition::{Definition, Schema},
    json,
    net::Upstream,
    pb::{self, tool_service_client::ToolServiceClient},
};

/// The longest description that is passed on, in bytes; the rest is cut off.
const MAX_DESCRIPTION_BYTES: usize = 16 << 10;
const MAX_TITLE_BYTES: usize = 256;
/// The largest schema, in bytes.
const MAX_SCHEMA_BYTES: usize = 256 << 10;
/// The longest time that settings know.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn ask(upstream: &Arc<Upstream>) -> Result<Told, String> {
    let (channel, origin) = channel::open(upstream).await?;
    let mut client =
        ToolServiceClient::with_origin(channel, origin).max_decoding_message_size(MAX_BYTES);
    let answer = client.list_tools(pb::ListToolsRequest::default()).await;
    let answer = answer.map_err(|status| refused(&status))?;
    Ok(told(answer.into_inner().tools))
}

fn refused(status: &Status) -> String {
    if status.code() == Code::Unimplemented {
        return "it has no ToolService/ListTools, and so can't say which tools it has".to_owned();
    }
    let message = shown(status.message());
    format!("ListTools failed: {:?}: {message}", status.code())
}

fn told(mut tools: Vec<pb::Tool>) -> Told {
    tools.sort_by(|a, b| a.name.cmp(&b.name));
    let mut content = Vec::with_capacity(tools.len());
    let mut unusable = Vec::new();
    let mut offers = Vec::new();
    let (mut names, mut twice) = (HashSet::new(), HashSet::new());
    for tool in &tools {
        if !names.insert(tool.name.as_str()) {
            twice.insert(tool.name.clone());
        }
    }
    for mut tool in tools {
        // What a process observes says nothing of the tool.
        (tool.breaker_state, tool.connectivity_state) = (0, 0);
        content.push(prost::Message::encode_to_vec(&tool));
        if twice.contains(&tool.name) {
            unusable.push(Unusable::new(
                &tool.name,
                "the service has two of that name",
            ));
            continue;
        }
        let name = tool.name.clone();
        match offer(tool) {
            Ok(offer) => offers.push(Arc::new(offer)),
            Err(why) => unusable.push(Unusable::new(&name, why)),
        }
    }
    Told {
        content: hash_of(content),
        offers,
        unusable,
        ..Told::default()
    }
}

fn offer(tool: pb::Tool) -> Result<Offer, String> {
    if tool.name.is_empty() {
        return Err("it has no name".to_owned());
    }
    if tool.name.len() > MAX_NAME_BYTES {
        return Err(format!("its name is longer than {MAX_NAME_BYTES} bytes"));
    }
    Ok(Offer {
        definition: Definition {
            title: cut(tool.title, MAX_TITLE_BYTES),
            description: cut(tool.description, MAX_DESCRIPTION_BYTES),
            input_schema: schema("input_schema", tool.input_schema)?,
            // Nothing is checked against it: without it the tool is as good.
            output_schema: schema("output_schema", tool.output_schema).unwrap_or_default(),
            read_only: tool.read_only,
            destructive: tool.destructive,
        },
        timeout: tool.timeout.and_then(timeout),
        idempotent: tool.idempotent,
        shape: None,
        remote: tool.name,
    })
}

fn timeout(duration: prost_types::Duration) -> Option<Duration> {
    let duration = Duration::try_from(duration).ok()?;
    (!duration.is_zero()).then(|| duration.min(MAX_TIMEOUT))
}

fn schema(field: &str, encoded: Option<Bytes>) -> Result<Option<Schema>, String> {
    let Some(encoded) = encoded else {
        return Ok(None);
    };
    if encoded.len() > MAX_SCHEMA_BYTES {
        return Err(format!("its {field} has over {MAX_SCHEMA_BYTES} bytes"));
    }
    let schema = json::decode_struct(&encoded).map_err(|error| format!("its {field}: {error}"))?;
    Ok(Some(Arc::new(schema)))
}

fn cut(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}
