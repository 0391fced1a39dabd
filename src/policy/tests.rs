//! Whatever the attempts at a call come to, it ends, and no later than the last thing
//! that it could have waited for; on exact times.

use std::sync::Mutex;

use futures_util::{FutureExt as _, future::BoxFuture};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    config::{HedgeDelay, Service},
    core::{
        call::Outcome,
        error::{Effect, Reason, ToolStatus},
        fanout::{Tool, testing::one_call},
        status::Code,
    },
};

const TIMEOUT: Duration = Duration::from_secs(30);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// What an attempt comes to.
#[derive(Clone, Copy, Debug)]
enum End {
    Answer,
    Status(Code, Option<Pushback>),
    Lost,
    NoConnection,
}

/// What happens to a call: its attempts, each after so many milliseconds, and
/// failures of others, at so many milliseconds.
#[derive(Clone, Debug)]
struct Script {
    attempts: Vec<(u64, End)>,
    others: Vec<u64>,
    hedge_after: Option<u64>,
    max_attempts: u32,
}

struct Scripted {
    policy: Policy,
    script: Script,
    /// How many attempts were made, and until when something may happen.
    made: Mutex<(usize, Instant)>,
}

impl Scripted {
    fn new(script: Script) -> Self {
        let mut config = config::Tool {
            idempotent: true,
            timeout: TIMEOUT,
            hedge: script.hedge_after.map(|after| HedgeDelay::Fixed(ms(after))),
            ..config::Tool::new("tools".to_owned())
        };
        config.retry.max_attempts = script.max_attempts;
        let service = Service::new(http::Uri::from_static("http://tools"));
        // What the breakers do, others test.
        config.breaker.failures = u32::MAX;
        let service = Arc::new(ServicePolicy::new("tools", &service));
        let guard = Arc::new(Breakers::new("tool", &config, service));
        Self {
            policy: Policy::new(guard, &config),
            script,
            made: Mutex::new((0, Instant::now())),
        }
    }

    /// Something may happen that long from now.
    fn ahead(&self, time: Duration) {
        let mut made = self.made.lock().unwrap();
        made.1 = made.1.max(Instant::now() + time);
    }

    /// The longest, if there is one.
    fn backoff(&self) -> Duration {
        ms(if self.script.hedge_after.is_some() {
            0
        } else {
            1200
        })
    }

    async fn attempt(&self) -> Result<Bytes, Failure> {
        let number = {
            let mut made = self.made.lock().unwrap();
            made.0 += 1;
            made.0 - 1
        };
        let (millis, end) = self.script.attempts[number % self.script.attempts.len()];
        self.ahead(ms(millis));
        self.ahead(ms(self.script.hedge_after.unwrap_or(0)));
        sleep(ms(millis)).await;
        match end {
            End::Answer => Ok(Bytes::new()),
            End::Status(code, pushback) => {
                if let Some(Pushback::After(delay)) = pushback
                    && delay < TIMEOUT
                {
                    self.ahead(delay);
                }
                self.ahead(self.backoff());
                Err(status(code, pushback))
            }
            End::Lost => {
                self.ahead(self.backoff());
                Err(unavailable(Stage::Reset, Effect::Maybe))
            }
            End::NoConnection => {
                self.ahead(ms(240));
                Err(unavailable(Stage::Unsent(1), Effect::NotStarted))
            }
        }
    }
}

fn unavailable(stage: Stage, effect: Effect) -> Failure {
    let what = (Reason::ToolUnavailable, effect);
    Failure::new(stage, what, Code::Unavailable, String::new())
}

fn status(code: Code, pushback: Option<Pushback>) -> Failure {
    let details = Bytes::new();
    let what = (
        Reason::ToolFailed(ToolStatus { code, details }),
        Effect::Done,
    );
    Failure {
        resend: Resend::ByStatus(pushback),
        ..Failure::new(Stage::Answered, what, code, String::new())
    }
}

struct Shared(Arc<Scripted>);

impl Tool for Shared {
    fn timeout(&self) -> Duration {
        TIMEOUT
    }

    fn idempotent(&self) -> bool {
        true
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'static, Outcome> {
        let this = Arc::clone(&self.0);
        let call = async move {
            let attempt = || this.attempt();
            let result = this.policy.run(&invocation, attempt).await;
            result.map_err(|failure| failure.into_call_error(true, true))
        };
        call.boxed()
    }
}

/// Runs one call; how it ended, after how long, and when it should have at the latest.
async fn run(script: Script) -> (Outcome, Instant, Instant) {
    let others = script.others.clone();
    let scripted = Arc::new(Scripted::new(script));
    let tool = Arc::new(Shared(Arc::clone(&scripted)));
    let mut batch = one_call(tool, None, 2 * TIMEOUT);
    let start = Instant::now();
    let mut failures = others
        .into_iter()
        .map(|at| start + ms(at))
        .collect::<Vec<_>>();
    failures.sort_unstable();
    let failures = async {
        for at in failures {
            tokio::time::sleep_until(at).await;
            scripted.policy.breakers.service.budget.take();
        }
        std::future::pending::<()>().await;
    };
    let completion = tokio::select! {
        completion = batch.next() => completion.expect("a completion"),
        () = failures => unreachable!(),
    };
    let (_, latest) = *scripted.made.lock().unwrap();
    (completion.outcome, Instant::now(), latest)
}

fn end() -> impl Strategy<Value = End> {
    let pushback = prop_oneof![
        2 => Just(None),
        1 => Just(Some(Pushback::Never)),
        4 => (0..400_u64).prop_map(|millis| Some(Pushback::After(ms(millis)))),
        1 => Just(Some(Pushback::After(2 * TIMEOUT))),
    ];
    prop_oneof![
        1 => Just(End::Answer),
        8 => pushback.prop_map(|pushback| End::Status(Code::Unavailable, pushback)),
        1 => Just(End::Status(Code::NotFound, None)),
        1 => Just(End::Lost),
        1 => Just(End::NoConnection),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let attempts = vec((0..300_u64, end()), 1..8);
    let others = vec(0..500_u64, 0..8);
    let hedge_after = proptest::option::weighted(0.8, 1..200_u64);
    (attempts, others, hedge_after, 1..=5_u32).prop_map(
        |(attempts, others, hedge_after, max_attempts)| Script {
            attempts,
            others,
            hedge_after,
            max_attempts,
        },
    )
}

proptest! {
    #[test]
    fn every_call_ends_and_no_later_than_its_last_event(script in script()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let (outcome, ended, latest) = runtime.block_on(run(script));
        // The timers' resolution.
        prop_assert!(ended <= latest + ms(2), "{:?} too late", ended - latest);
        if let Err(error) = outcome {
            let expired = matches!(error.reason, Reason::DeadlineExceeded(_));
            prop_assert!(!expired, "{error:?}");
        }
    }
}
