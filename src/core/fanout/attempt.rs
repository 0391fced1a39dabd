//! One attempt at a call, as its tool tells of it. An attempt that is dropped was
//! cancelled or ran out of time, and says so.

use std::sync::Arc;

use tokio::time::Instant;

use super::Invocation;
use crate::core::{
    observer::{AttemptObserver, AttemptReport, Context, Peer, Target},
    status::Code,
};

/// An attempt that is under way. Ends when dropped, if not before.
#[derive(Debug)]
pub struct Attempt<'a> {
    invocation: &'a Invocation,
    target: &'a Target,
    /// Where it went, once it has.
    peer: Option<Arc<Peer>>,
    number: u32,
    own_observer: Option<Box<dyn AttemptObserver>>,
    start: Instant,
    has_ended: bool,
}

impl<'a> Attempt<'a> {
    /// The next attempt at a call, at `target` or one of its siblings.
    pub fn start(invocation: &'a Invocation, target: &'a Target) -> Self {
        let start = Instant::now();
        let observer = invocation.observer();
        Self {
            invocation,
            target,
            peer: None,
            number: invocation.next_attempt(),
            own_observer: observer.and_then(|it| it.attempt_started(invocation.index(), start)),
            start,
            has_ended: false,
        }
    }

    /// When it started.
    pub fn started(&self) -> Instant {
        self.start
    }

    /// What the tool is to learn with it.
    pub fn context(&self) -> Option<&dyn Context> {
        match &self.own_observer {
            Some(own) => Some(&**own),
            None => self.invocation.observer()?.context(),
        }
    }

    /// Notes that it was sent, and to which address if it has one: from here on the tool may
    /// have run.
    pub fn sent(&mut self, peer: Option<&Arc<Peer>>) {
        self.invocation.sent();
        self.peer = peer.map(Arc::clone);
    }

    /// It was answered well.
    pub fn succeeded(mut self) {
        self.report(Code::Ok, None);
    }

    /// It failed, with a code other than [`Code::Ok`]; `how`, in words.
    pub fn failed(mut self, code: Code, how: &dyn Fn() -> String) {
        self.report(code, Some(how));
    }

    fn report(&mut self, code: Code, failure: Option<&dyn Fn() -> String>) {
        self.has_ended = true;
        let Some(observer) = self.invocation.observer() else {
            return;
        };
        let report = AttemptReport {
            call: self.invocation.index(),
            number: self.number,
            target: self.target,
            peer: self.peer.as_deref(),
            start: self.start,
            end: Instant::now(),
            code,
            failure,
        };
        observer.attempt_ended(&report);
        if let Some(own) = self.own_observer.take() {
            own.ended(&report);
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let remaining = self.invocation.deadline().remaining(Instant::now());
        if remaining.is_zero() {
            self.report(
                Code::DeadlineExceeded,
                Some(&|| "ran out of time".to_owned()),
            );
        } else {
            self.report(Code::Cancelled, Some(&|| "cancelled".to_owned()));
        }
    }
}
