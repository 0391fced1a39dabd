//! What is around a protocol works for any: with one that speaks to nobody.

use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::*;
use crate::{
    core::{
        call::Arguments,
        error::{Effect, Limit, Reason, Violation},
        fanout::testing::one_call,
        observer::Target,
        status::Code,
    },
    policy::{Breakers, Failure, Resend, ServicePolicy, Stage},
};

/// What an attempt comes to.
#[derive(Clone, Copy, Debug)]
enum End {
    Answer,
    /// It is sent, and the tool answers with a status.
    Status(Code),
    /// It is sent, and ended by something in between.
    Reset,
    /// It can't be sent.
    Unsent,
    /// It is sent, and does not end.
    Silence,
}

/// A protocol that does as it is told, attempt by attempt.
struct Fake {
    target: Target,
    ends: Vec<End>,
    numbers: Arc<Mutex<Vec<u32>>>,
    made: AtomicU32,
}

impl Protocol for Fake {
    fn prepare(&self, arguments: &Arguments) -> Result<Option<Bytes>, Vec<Violation>> {
        match arguments {
            Arguments::Struct(encoded) => Ok(Some(encoded.clone())),
            Arguments::Absent | Arguments::Json(_) => Ok(None),
        }
    }

    fn target(&self) -> &Target {
        &self.target
    }

    async fn attempt(&self, attempt: &mut Attempt<'_>) -> Result<Bytes, Failure> {
        let made = self.made.fetch_add(1, Ordering::Relaxed) as usize;
        self.numbers.lock().unwrap().push(attempt.number());
        sleep(Duration::from_millis(1)).await;
        let end = self.ends[made.min(self.ends.len() - 1)];
        if !matches!(end, End::Unsent) {
            attempt.sent(None);
        }
        let unavailable = |stage, effect| {
            let what = (Reason::ToolUnavailable, effect);
            Failure::new(stage, what, Code::Unavailable, "as it was told".to_owned())
        };
        match end {
            End::Answer => Ok(attempt.payload().cloned().unwrap_or_default()),
            End::Status(code) => {
                let details = Bytes::new();
                let status = crate::core::error::ToolStatus { code, details };
                let what = (Reason::ToolFailed(status), Effect::Done);
                Err(Failure {
                    resend: Resend::ByStatus(None),
                    ..Failure::new(Stage::Answered, what, code, "no".to_owned())
                })
            }
            End::Reset => Err(unavailable(Stage::Reset, Effect::Maybe)),
            End::Unsent => Err(unavailable(Stage::Unsent(made as u32), Effect::NotStarted)),
            End::Silence => attempt.expire().await,
        }
    }
}

/// One call to such a tool: its outcome, the numbers of its attempts, and how long it
/// took.
async fn call(
    ends: &[End],
    change: impl FnOnce(&mut config::Tool),
) -> (Outcome, Vec<u32>, Duration) {
    let mut tool = config::Tool::new("tools".to_owned());
    change(&mut tool);
    let service = config::Service::new(http::Uri::from_static("http://tools"));
    let service = Arc::new(ServicePolicy::new("tools", &service));
    let breakers = Arc::new(Breakers::new("tool", &tool, service));
    let numbers = Arc::default();
    let fake = Fake {
        target: Target::new("tools", 80),
        ends: ends.to_vec(),
        numbers: Arc::clone(&numbers),
        made: AtomicU32::new(0),
    };
    let start = Instant::now();
    let remote = Arc::new(RemoteTool::new(
        fake,
        Arc::new(Policy::new(breakers, &tool)),
        &tool,
        None,
    ));
    let arguments = Bytes::from_static(b"as they came");
    let mut batch = one_call(remote, Some(arguments), Duration::from_secs(60));
    let completion = batch.next().await.expect("a completion");
    let numbers = numbers.lock().unwrap().clone();
    (completion.outcome, numbers, start.elapsed())
}

fn idempotent(tool: &mut config::Tool) {
    tool.idempotent = true;
}

#[tokio::test(start_paused = true)]
async fn what_may_have_run_is_sent_again_for_an_idempotent_tool_alone() {
    let ends = [End::Reset, End::Status(Code::Unavailable), End::Answer];
    let (outcome, numbers, _) = call(&ends, idempotent).await;
    assert_eq!(outcome.unwrap(), Bytes::from_static(b"as they came"));
    assert_eq!(numbers, [1, 2, 3]);

    let (outcome, numbers, _) = call(&ends, |_| {}).await;
    let error = outcome.unwrap_err();
    assert_eq!(error.reason, Reason::ToolUnavailable);
    assert_eq!((error.effect, error.retryable), (Effect::Maybe, false));
    assert_eq!(numbers, [1]);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_is_sent_again_for_any_tool_and_counts_as_the_first() {
    let ends = [End::Unsent, End::Unsent, End::Answer];
    let (outcome, numbers, _) = call(&ends, |_| {}).await;
    assert!(outcome.is_ok());
    assert_eq!(numbers, [1, 1, 1]);

    let (outcome, _, took) = call(&[End::Unsent], |_| {}).await;
    let error = outcome.unwrap_err();
    assert_eq!((error.effect, error.retryable), (Effect::NotStarted, true));
    assert!(took <= Duration::from_millis(1300), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_earlier_attempt_may_have_run_where_the_last_did_not() {
    let (outcome, ..) = call(&[End::Reset, End::Unsent], idempotent).await;
    let error = outcome.unwrap_err();
    assert_eq!((error.effect, error.retryable), (Effect::Maybe, true));
}

#[tokio::test(start_paused = true)]
async fn a_slow_attempt_gets_a_rival() {
    let (outcome, numbers, took) = call(&[End::Silence, End::Answer], |tool| {
        idempotent(tool);
        tool.hedge = Some(config::HedgeDelay::Fixed(Duration::from_millis(20)));
    })
    .await;
    assert!(outcome.is_ok());
    assert_eq!(numbers, [1, 2]);
    assert!(took < Duration::from_millis(30), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn silence_ends_with_the_tools_timeout_whatever_the_protocol() {
    let (outcome, numbers, took) = call(&[End::Silence], |tool| {
        tool.timeout = Duration::from_secs(3);
    })
    .await;
    let error = outcome.unwrap_err();
    assert_eq!(error.reason, Reason::DeadlineExceeded(Limit::Tool));
    assert_eq!((error.effect, numbers), (Effect::Maybe, vec![1]));
    assert!(took >= Duration::from_secs(3) && took < Duration::from_millis(3010));
}
