//! Calls one tool over gRPC. An attempt is made here; when there is another, and
//! whether there is one at all, `policy.rs` decides.

use std::{
    future,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use prost::Message as _;
use tokio::time::Instant;
use tonic::Code;

use super::fanfare::{failure::Fault, observation, payload, reply, request};
use crate::{
    config,
    core::{
        buffered::Buffered,
        call::Outcome,
        fanout::{Invocation, Tool},
    },
    net::{
        eject::Answers,
        upstream::{InFlight, Terms, Upstream},
    },
    pb,
    policy::{Breakers, Policy},
    telemetry::attempt::Attempt,
};

/// A tool that a remote tool service runs.
#[derive(Clone, Debug)]
pub struct GrpcTool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    upstream: Arc<Upstream>,
    policy: Policy,
    timeout: Duration,
    idempotent: bool,
    max_result_bytes: usize,
    answers: Answers,
}

/// Where the last attempt at a call went: the next one is better made elsewhere.
// std's Mutex: held for a few instructions, never across an await.
#[derive(Debug, Default)]
struct LastAddress(Mutex<Option<SocketAddr>>);

impl GrpcTool {
    /// The tool of `config`, which `upstream` runs, behind its `guard`. Replies
    /// longer than `max_result_bytes` fail their call.
    pub fn new(
        upstream: Arc<Upstream>,
        guard: Arc<Breakers>,
        config: &config::Tool,
        max_result_bytes: usize,
    ) -> Self {
        Self(Arc::new(Inner {
            upstream,
            policy: Policy::new(guard, config),
            timeout: config.timeout,
            idempotent: config.idempotent,
            max_result_bytes,
            answers: Answers::default(),
        }))
    }
}

impl Inner {
    /// One attempt, observed.
    async fn attempt(
        &self,
        invocation: &Invocation,
        last_address: &LastAddress,
    ) -> Result<Bytes, Fault> {
        let mut attempt = Attempt::start(invocation, self.upstream.target());
        let result = self.exchange(invocation, &mut attempt, last_address).await;
        match &result {
            Ok(_) => attempt.end(Code::Ok, String::new),
            Err(fault) => attempt.end(fault.code(), || fault.message(self.max_result_bytes)),
        }
        result
    }

    async fn exchange(
        &self,
        invocation: &Invocation,
        attempt: &mut Attempt<'_>,
        last_address: &LastAddress,
    ) -> Result<Bytes, Fault> {
        let request = |uri, max_header_list| {
            let deadline = invocation.deadline();
            let call = (invocation.call(), invocation.next_attempt());
            let gzip = self.upstream.gzip();
            let inject = |headers: &mut _, room| attempt.inject(headers, room);
            let inject = attempt.has_context().then_some(inject);
            request::request(uri, max_header_list, deadline, call, gzip, inject)
        };
        let terms = Terms {
            invocation,
            answers: &self.answers,
            bulkhead: self.policy.bulkhead(),
        };
        let mut in_flight = self
            .upstream
            .send(last_address.last(), terms, request)
            .await?;
        invocation.sent();
        self.policy.reached();
        let address = in_flight.address();
        last_address.note(address.socket());
        attempt.sent_to(address.peer());
        let outcome = self
            .observation(&mut in_flight, invocation.buffered())
            .await;
        if outcome.as_ref().err().is_none_or(Fault::ends_stream) {
            in_flight.is_over();
        }
        if let Err(fault) = &outcome
            && fault.may_be_of_expiry()
            && invocation
                .deadline()
                .is_near(attempt.began(), Instant::now())
        {
            if fault.is_of_connection() {
                in_flight.ended(Some(fault));
            }
            // It ends as every call that runs out of time does: by our own timer.
            return future::pending().await;
        }
        in_flight.ended(outcome.as_ref().err());
        outcome
    }

    async fn observation(
        &self,
        in_flight: &mut InFlight<'_>,
        buffered: &Buffered,
    ) -> Result<Bytes, Fault> {
        let reply = in_flight.response().await?;
        let reply = reply::read(reply, self.max_result_bytes, buffered).await?;
        let response = pb::CallToolResponse::decode(reply.message).map_err(Fault::Garbage)?;
        let Some(observation) = response.observation else {
            return Ok(Bytes::from_static(&payload::NULL));
        };
        payload::check(&observation).map_err(Fault::Invalid)?;
        observation::keep(observation, reply.held, buffered)
    }
}

impl LastAddress {
    fn last(&self) -> Option<SocketAddr> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, address: SocketAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }
}

impl Tool for GrpcTool {
    fn timeout(&self) -> Duration {
        self.0.timeout
    }

    fn idempotent(&self) -> bool {
        self.0.idempotent
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'static, Outcome> {
        let this = Arc::clone(&self.0);
        Box::pin(async move {
            let last_address = LastAddress::default();
            let attempt = || this.attempt(&invocation, &last_address);
            let outcome = this.policy.run(&invocation, attempt).await;
            outcome.map_err(|fault| {
                let may_have_run = invocation.possible_runs() > 0;
                fault.into_call_error(this.idempotent, may_have_run, this.max_result_bytes)
            })
        })
    }
}
