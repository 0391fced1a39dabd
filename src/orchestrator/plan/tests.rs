//! What is planned is what runs, and planning itself runs nothing.

use std::{
    future::pending,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};

use super::*;
use crate::{
    catalog::Catalog,
    config::Limits,
    core::{
        buffered::Buffered,
        call::{Outcome, ToolName},
        error::Limit,
        fanout::{FanOut, Invocation, Surroundings, Tool},
    },
};

const SECOND: Duration = Duration::from_secs(1);

/// Never answers.
struct Hangs {
    timeout: Duration,
    calls: Arc<AtomicUsize>,
}

impl Tool for Hangs {
    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn idempotent(&self) -> bool {
        false
    }

    fn call(&self, _: Invocation) -> BoxFuture<'static, Outcome> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        pending().boxed()
    }
}

/// The tools `short` and `long`, which count their calls.
fn snapshot(calls: &Arc<AtomicUsize>) -> Snapshot {
    let mut catalog = Catalog::default();
    for (name, seconds) in [("short", 2), ("long", 60)] {
        let tool = Hangs {
            timeout: seconds * SECOND,
            calls: Arc::clone(calls),
        };
        let name = ToolName::try_new(name.to_owned()).unwrap();
        catalog.insert(name, String::new(), Arc::new(tool));
    }
    Snapshot {
        limits: Limits::default(),
        catalog,
    }
}

fn call(id: &str, name: &str, seconds: Option<i64>) -> pb::ToolCall {
    pb::ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        timeout: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        ..pb::ToolCall::default()
    }
}

/// Good calls and bad ones.
fn request() -> pb::ExecuteToolsRequest {
    pb::ExecuteToolsRequest {
        calls: vec![
            call("a", "short", None),
            call("b", "short", Some(1)),
            call("c", "long", None),
            call("d", "nothing", None),
            call("e", "not a name", None),
            call("a", "short", None),
            call("f", "short", Some(-1)),
        ],
        ..Default::default()
    }
}

/// Of each call, the limit that binds it and in how many milliseconds, or why it can't be
/// made.
fn told(plan: &Plan, now: Instant) -> Vec<Result<(Limit, u128), &'static str>> {
    let calls = plan.calls.iter().map(|call| match &call.tool {
        Ok(_) => Ok((call.deadline.limit, (call.deadline.at - now).as_millis())),
        Err(error) => Err(error.reason.as_str()),
    });
    calls.collect()
}

#[tokio::test(start_paused = true)]
async fn a_plan_says_what_binds_each_call_and_calls_nothing() {
    let calls = Arc::default();
    let snapshot = snapshot(&calls);
    let now = Instant::now();
    let plan = |timeout: Option<Duration>| {
        let deadline = Deadline::of_request(now, timeout, 20 * SECOND);
        Plan::new(request(), deadline, now, &snapshot, &Buffered::new(1 << 20)).unwrap()
    };
    let bad = [
        Err("UNKNOWN_TOOL"),
        Err("UNKNOWN_TOOL"),
        Err("INVALID_ARGUMENTS"),
        Err("INVALID_ARGUMENTS"),
    ];
    let margin = snapshot.limits.reply_margin.as_millis();
    for (timeout, limit, ms) in [
        (Some(5 * SECOND), Limit::Request, 5_000),
        (None, Limit::Server, 20_000),
    ] {
        let good = [
            Ok((Limit::Tool, 2_000)),
            Ok((Limit::Call, 1_000)),
            Ok((limit, ms - margin)),
        ];
        assert_eq!(told(&plan(timeout), now), [&good[..], &bad[..]].concat());
    }
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_planned_is_what_runs() {
    let calls = Arc::default();
    let now = Instant::now();
    let deadline = Deadline::of_request(now, Some(5 * SECOND), 20 * SECOND);
    let snapshot = snapshot(&calls);
    let plan = Plan::new(request(), deadline, now, &snapshot, &Buffered::new(1 << 20)).unwrap();
    let planned = plan.calls.iter();
    let planned: Vec<_> = planned
        .map(|call| (call.deadline, call.tool.as_ref().err().cloned()))
        .collect();
    let surroundings = Surroundings {
        buffered: Buffered::new(1 << 20),
        observer: None,
        stop: pending().boxed(),
    };
    let mut fan_out = FanOut::start(plan.batch, plan.calls, surroundings);
    let mut seen = 0;
    while let Some(completion) = fan_out.next().await {
        seen += 1;
        let (deadline, refusal) = &planned[completion.index];
        let error = completion.outcome.unwrap_err();
        match refusal {
            Some(refusal) => {
                assert_eq!(error.reason, refusal.reason);
                assert_eq!(error.message, refusal.message);
                assert_eq!(completion.end, now);
            }
            None => {
                assert_eq!(error.reason, Reason::DeadlineExceeded(deadline.limit));
                let late = completion.end - deadline.at;
                // The timer's resolution.
                assert!(late <= Duration::from_millis(1), "{late:?}");
            }
        }
    }
    assert_eq!(seen, planned.len());
    let made = planned.iter().filter(|(_, refusal)| refusal.is_none());
    assert_eq!(calls.load(Ordering::Relaxed), made.count());
}

#[test]
fn a_request_that_is_wrong_as_a_whole_has_no_plan() {
    let calls = Arc::default();
    let snapshot = snapshot(&calls);
    let now = Instant::now();
    let deadline = Deadline::of_request(now, None, SECOND);
    let empty = pb::ExecuteToolsRequest::default();
    assert!(Plan::new(empty, deadline, now, &snapshot, &Buffered::new(0)).is_err());
}
