//! What a protocol is handed for one attempt at a call, and what it tells while it makes
//! it.

use std::{
    future,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    core::{
        buffered::Buffered,
        call::ToolCall,
        deadline::Deadline,
        fanout::{self, Invocation},
        observer::{Context, Target},
    },
    net::{Address, Answers, Linger, Lingers, Terms},
    policy::{Failure, Policy},
};

/// What the attempts at one call have in common.
pub(super) struct Call<'a> {
    invocation: &'a Invocation,
    policy: &'a Policy,
    /// Where the last attempt went: the next one is better made elsewhere.
    // std's Mutex: held for a few instructions, never across an await.
    last_address: Mutex<Option<SocketAddr>>,
}

/// One attempt at a call.
pub(crate) struct Attempt<'a> {
    call: &'a Call<'a>,
    observed: fanout::Attempt<'a>,
}

impl<'a> Call<'a> {
    pub(super) fn new(invocation: &'a Invocation, policy: &'a Policy) -> Self {
        Self {
            invocation,
            policy,
            last_address: Mutex::default(),
        }
    }
}

impl Lingers for Call<'_> {
    fn linger(&self, now: Instant) -> Linger {
        let permit = self.policy.bulkhead().linger(now);
        Linger::of((permit, self.invocation.stream_outlasts()))
    }
}

impl<'a> Attempt<'a> {
    /// The next attempt at `call`, at `target` or one of its siblings.
    pub(super) fn start(call: &'a Call<'a>, target: &'a Target) -> Self {
        Self {
            call,
            observed: fanout::Attempt::start(call.invocation, target),
        }
    }

    /// The call.
    pub(crate) fn call(&self) -> &ToolCall {
        self.call.invocation.call()
    }

    /// What is to be sent for it.
    pub(crate) fn payload(&self) -> Option<&Bytes> {
        self.call.invocation.payload()
    }

    /// Its number among the attempts at the call. The first is 1.
    pub(crate) fn number(&self) -> u32 {
        self.call.invocation.next_attempt()
    }

    /// When the call must end.
    pub(crate) fn deadline(&self) -> Deadline {
        self.call.invocation.deadline()
    }

    /// Out of what the reply is held.
    pub(crate) fn buffered(&self) -> &'a Buffered {
        self.call.invocation.buffered()
    }

    /// The address that is better avoided.
    pub(crate) fn last_address(&self) -> Option<SocketAddr> {
        let last = self.call.last_address.lock();
        *last.unwrap_or_else(PoisonError::into_inner)
    }

    /// For whom it is sent; `answers` are those of its tool.
    pub(crate) fn terms(&self, answers: &'a Answers) -> Terms<'a> {
        Terms {
            deadline: self.deadline().at,
            answers,
            call: self.call,
        }
    }

    /// What the tool is to learn with it.
    pub(crate) fn context(&self) -> Option<&dyn Context> {
        self.observed.context()
    }

    /// Notes that it was sent, over a connection that works, to that address if there is
    /// one: from here on the tool may have run.
    pub(crate) fn sent(&mut self, address: Option<&Address>) {
        self.observed.sent(address.map(Address::peer));
        self.call.policy.reached();
        if let Some(address) = address {
            let last = self.call.last_address.lock();
            *last.unwrap_or_else(PoisonError::into_inner) = Some(address.socket());
        }
    }

    /// Whether the time of the call is about over.
    pub(crate) fn is_near_deadline(&self) -> bool {
        self.deadline()
            .is_near(self.observed.started(), Instant::now())
    }

    /// Ends it as every call that runs out of time ends: by our own timer.
    pub(crate) async fn expire<T>(&self) -> T {
        future::pending().await
    }

    /// Notes how it ended.
    pub(super) fn ended(self, result: &Result<Bytes, Failure>) {
        match result {
            Ok(_) => self.observed.succeeded(),
            Err(failure) => {
                let message = || failure.message.clone();
                self.observed.failed(failure.code, &message);
            }
        }
    }
}
