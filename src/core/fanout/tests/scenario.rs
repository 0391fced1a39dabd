//! Batches of tools that do what a script says, and an observer that remembers what it
//! was told.

use std::{
    future::pending,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::time::{Instant, sleep, timeout};

use crate::core::{
    buffered::Buffered,
    call::{Arguments, Batch, FailurePolicy, Outcome, ToolCall},
    deadline::Deadline,
    error::{CallError, Effect},
    fanout::{Attempt, FanOut, Invocation, PlannedCall, Surroundings, Tool},
    observer::{
        AttemptObserver, AttemptReport, CallReport, Carrier, Context, Observer, Outlasting, Peer,
        Target,
    },
    status::Code,
};

const DEADLINE: Duration = Duration::from_secs(10);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// How a call goes on after it has made its attempts.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Answer,
    Failure,
    Panic,
    Hang,
    /// It hangs, and panics when it is dropped.
    HangBadly,
}

/// How an attempt ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum AttemptEnd {
    Answered,
    /// It is not sent, as there is no connection.
    Unsent,
    /// It is dropped, as one that loses a race.
    Dropped,
}

/// What a tool does: it waits for so many milliseconds if it has a queue, and makes its
/// attempts, each so many long.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) queue: Option<u64>,
    pub(super) attempts: Vec<(u64, AttemptEnd)>,
    pub(super) end: End,
    pub(super) panics_at_once: bool,
}

struct Scripted {
    script: Script,
    target: Target,
    peer: Arc<Peer>,
}

/// Unless there is another panic.
struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a bug");
    }
}

impl Script {
    fn tool(self) -> Arc<dyn Tool> {
        let target = Target::new("tools", 80);
        let peer = Arc::new(Peer::new(&target, ([127, 0, 0, 1], 80).into()));
        let script = self;
        Arc::new(Scripted {
            script,
            target,
            peer,
        })
    }
}

impl Tool for Scripted {
    fn timeout(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn idempotent(&self) -> bool {
        assert!(!matches!(self.script.end, End::HangBadly), "a bug");
        false
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'static, Outcome> {
        assert!(!self.script.panics_at_once, "a bug");
        let (script, target) = (self.script.clone(), self.target.clone());
        let peer = Arc::clone(&self.peer);
        let call = async move {
            let wait = script.queue.map(ms);
            if let Some(wait) = wait {
                invocation.waits();
                sleep(wait).await;
            }
            invocation.started(wait.unwrap_or_default());
            for (millis, end) in script.attempts {
                let mut attempt = Attempt::start(&invocation, &target);
                if !matches!(end, AttemptEnd::Unsent) {
                    attempt.sent(Some(&peer));
                }
                sleep(ms(millis)).await;
                match end {
                    AttemptEnd::Answered => attempt.succeeded(),
                    AttemptEnd::Unsent => attempt.failed(Code::Unavailable, &String::new),
                    AttemptEnd::Dropped => drop(attempt),
                }
            }
            match script.end {
                End::Answer => Ok(Bytes::new()),
                End::Failure => Err(CallError::internal(Effect::Done)),
                End::Panic => panic!("a bug"),
                End::Hang => pending().await,
                End::HangBadly => {
                    let _guard = PanicsWhenDropped;
                    pending().await
                }
            }
        };
        call.boxed()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    Started(usize),
    AttemptStarted(usize),
    AttemptEnded(usize, Code),
    /// By the observer of the attempt itself.
    OwnAttemptEnded(usize),
    Ended {
        call: usize,
        reason: Option<&'static str>,
        attempts: u32,
        was_started: bool,
        is_abandoned: bool,
    },
    BatchEnded,
}

/// Remembers everything.
#[derive(Clone, Debug, Default)]
struct Recorder {
    told: Arc<Mutex<Vec<Told>>>,
    keeps_attempts: bool,
}

impl Recorder {
    fn told(&self) -> MutexGuard<'_, Vec<Told>> {
        self.told.lock().unwrap()
    }
}

impl Observer for Recorder {
    fn call_started(&self, call: usize) {
        self.told().push(Told::Started(call));
    }

    fn call_ended(&self, call: &CallReport<'_>) {
        let completion = call.completion;
        let error = completion.outcome.as_ref().err();
        self.told().push(Told::Ended {
            call: completion.index,
            reason: error.map(|error| error.reason.as_str()),
            attempts: completion.attempts,
            was_started: call.was_started,
            is_abandoned: call.is_abandoned,
        });
    }

    fn batch_ended(&self) {
        self.told().push(Told::BatchEnded);
    }

    fn attempt_started(&self, call: usize, _: Instant) -> Option<Box<dyn AttemptObserver>> {
        self.told().push(Told::AttemptStarted(call));
        let observer = || Box::new(self.clone()) as Box<dyn AttemptObserver>;
        self.keeps_attempts.then(observer)
    }

    fn attempt_ended(&self, attempt: &AttemptReport<'_>) {
        let told = Told::AttemptEnded(attempt.call, attempt.code);
        self.told().push(told);
    }

    fn context(&self) -> Option<&dyn Context> {
        None
    }

    fn stream_outlasts_call(&self, _: usize) -> Option<Outlasting> {
        None
    }
}

impl AttemptObserver for Recorder {
    fn ended(self: Box<Self>, attempt: &AttemptReport<'_>) {
        self.told().push(Told::OwnAttemptEnded(attempt.call));
    }
}

impl Context for Recorder {
    fn inject(&self, _: &mut dyn Carrier) {}
}

/// A batch, and what happens to it.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    /// `None`: it can't be made.
    pub(super) calls: Vec<Option<Script>>,
    pub(super) failure_policy: FailurePolicy,
    pub(super) concurrency_limit: usize,
    pub(super) keeps_attempts: bool,
    /// When the process stops.
    pub(super) stop: Option<u64>,
    /// When the caller goes.
    pub(super) gone: Option<u64>,
}

/// What came of it.
pub(super) struct Run {
    pub(super) told: Vec<Told>,
    /// How many the caller got.
    pub(super) outcomes: usize,
    pub(super) has_panicked: bool,
}

impl Scenario {
    pub(super) fn of(calls: impl IntoIterator<Item = Script>) -> Self {
        Self {
            calls: calls.into_iter().map(Some).collect(),
            failure_policy: FailurePolicy::Continue,
            concurrency_limit: 64,
            keeps_attempts: false,
            stop: None,
            gone: None,
        }
    }

    /// Runs it to its end.
    pub(super) async fn run(self) -> Run {
        let call = ToolCall {
            id: String::new(),
            name: "tool".to_owned(),
            arguments: Arguments::Absent,
            timeout: None,
        };
        let batch = Batch {
            calls: vec![call; self.calls.len()].into(),
            failure_policy: self.failure_policy,
            concurrency_limit: self.concurrency_limit,
        };
        let deadline = Deadline::of_request(Instant::now(), None, DEADLINE);
        let planned = self.calls.into_iter().map(|script| PlannedCall {
            tool: match script {
                Some(script) => Ok(script.tool()),
                None => Err(CallError::internal(Effect::NotStarted)),
            },
            payload: None,
            deadline,
        });
        let planned = planned.collect();
        let recorder = Recorder {
            keeps_attempts: self.keeps_attempts,
            ..Recorder::default()
        };
        let stop = self.stop;
        let surroundings = Surroundings {
            buffered: Buffered::new(1 << 20),
            observer: Some(Arc::new(recorder.clone())),
            stop: Box::pin(async move {
                match stop {
                    Some(at) => sleep(ms(at)).await,
                    None => pending().await,
                }
            }),
        };
        let mut outcomes = 0;
        let all = async {
            let mut fan_out = FanOut::start(batch, planned, surroundings);
            while fan_out.next().await.is_some() {
                outcomes += 1;
            }
        };
        let gone = self.gone.map_or(2 * DEADLINE, ms);
        // A call that panics when it is dropped has the request panic.
        let all = AssertUnwindSafe(timeout(gone, all)).catch_unwind();
        let has_panicked = all.await.is_err();
        let told = std::mem::take(&mut *recorder.told());
        Run {
            told,
            outcomes,
            has_panicked,
        }
    }
}
