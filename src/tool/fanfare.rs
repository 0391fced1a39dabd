//! Fanfare's own protocol for tools: `fanfare.v1.ToolService/CallTool` over gRPC. The
//! request is written (`message.rs`), and the observation checked (`payload.rs`): it must
//! not spoil the response that it becomes part of.

mod message;
pub(crate) mod payload;

use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message as _;

use super::{
    attempt::Attempt,
    grpc::{self, failure::Fault, observation, reply},
    protocol::Protocol,
    schema::ArgumentsSchema,
};
use crate::{
    core::{buffered::Buffered, call::Arguments, error::Violation, observer::Target},
    json::tree::Node,
    net::{Answers, InFlight, Upstream},
    pb,
    policy::Failure,
};

static CALL_TOOL: PathAndQuery = PathAndQuery::from_static("/fanfare.v1.ToolService/CallTool");

/// A tool of a service that speaks it.
#[derive(Debug)]
pub(crate) struct Fanfare {
    /// What the service calls it.
    name: Box<str>,
    upstream: Arc<Upstream>,
    schema: Option<Arc<ArgumentsSchema>>,
    max_result_bytes: usize,
    answers: Answers,
}

impl Fanfare {
    /// The tool that `upstream` runs under this `name`. Replies longer than
    /// `max_result_bytes` fail their call.
    pub(crate) fn new(name: &str, upstream: Arc<Upstream>, max_result_bytes: usize) -> Self {
        Self {
            name: name.into(),
            upstream,
            schema: None,
            max_result_bytes,
            answers: Answers::default(),
        }
    }

    /// The same, called only with arguments that fit.
    pub(crate) fn with_schema(self, schema: Option<Arc<ArgumentsSchema>>) -> Self {
        Self { schema, ..self }
    }

    async fn observation(
        &self,
        in_flight: &mut InFlight<'_>,
        buffered: &Buffered,
    ) -> Result<Bytes, Fault> {
        let reply = in_flight.response().await.map_err(Fault::unanswered)?;
        let reply = reply::read(reply, self.max_result_bytes, buffered).await?;
        let response = pb::CallToolResponse::decode(reply.message).map_err(Fault::Garbage)?;
        let Some(observation) = response.observation else {
            return Ok(Bytes::from_static(&payload::NULL));
        };
        payload::check(&observation).map_err(Fault::Invalid)?;
        observation::keep(observation, reply.held, buffered)
    }
}

impl Protocol for Fanfare {
    fn prepare(&self, arguments: &Arguments) -> Result<Option<Bytes>, Vec<Violation>> {
        let check = |arguments: &Node<'_>| match &self.schema {
            Some(schema) => schema.check(arguments),
            None => Ok(()),
        };
        match arguments {
            Arguments::Absent => {
                check(&Node::Object(Vec::new()))?;
                Ok(None)
            }
            Arguments::Struct(encoded) => {
                if self.schema.is_some() {
                    check(&Node::from_struct(encoded)?)?;
                }
                Ok(Some(encoded.clone()))
            }
            Arguments::Json(text) => {
                let arguments = Node::from_json(text)?;
                check(&arguments)?;
                arguments.encode_struct().map(Some)
            }
        }
    }

    fn target(&self) -> &Target {
        self.upstream.target()
    }

    async fn attempt(&self, attempt: &mut Attempt<'_>) -> Result<Bytes, Failure> {
        let framed = |attempt: &Attempt<'_>| {
            let (call, payload) = (attempt.call(), attempt.payload());
            message::framed(call, &self.name, payload, attempt.number())
        };
        let (upstream, answers) = (&self.upstream, &self.answers);
        let sending = grpc::send(attempt, upstream, answers, &CALL_TOOL, framed);
        let mut in_flight = sending.await?;
        let outcome = self.observation(&mut in_flight, attempt.buffered()).await;
        grpc::end(attempt, in_flight, outcome, self.max_result_bytes).await
    }
}
