//! Whose breaker opens, and that the probes of the two do not hinder each other.

use http::Uri;
use proptest::{collection::vec, prelude::*};
use tokio::time::advance;

use super::*;

const FAILURES: u32 = 3;

fn settings() -> config::Breaker {
    config::Breaker {
        failures: FAILURES,
        probes: 1,
        open_time: Duration::from_millis(500),
        max_open_time: Duration::from_millis(500),
    }
}

/// Two tools of one service.
fn guards() -> [Breakers; 2] {
    let service = config::Service {
        breaker: settings(),
        ..config::Service::new(Uri::from_static("http://tools"))
    };
    let service = Arc::new(ServicePolicy::new("tools", &service));
    let tool = config::Tool {
        breaker: settings(),
        ..config::Tool::new("tools".to_owned())
    };
    ["slow", "fast"].map(|name| Breakers::new(name, &tool, Arc::clone(&service)))
}

/// An attempt that ends so; whether that is news.
fn attempt(guard: &Breakers, end: AttemptEnd) -> bool {
    let pass = guard.admit().expect("a closed breaker");
    guard.settle(pass, end, String::new)
}

/// Whose breaker bars the tool's calls.
fn open_breaker(guard: &Breakers) -> Option<Owner> {
    match (guard.is_open(), guard.admit()) {
        (None, Ok(pass)) => {
            guard.breaker.withdraw(pass.tool);
            guard.service.breaker.withdraw(pass.service);
            None
        }
        (Some(CircuitOpen { owner, .. }), Err(CircuitOpen { owner: other, .. })) => {
            assert_eq!(owner, other);
            Some(owner)
        }
        other => panic!("{other:?}"),
    }
}

fn tool(name: &str) -> Option<Owner> {
    Some(Owner::Tool(name.into()))
}

fn service() -> Option<Owner> {
    Some(Owner::Service("tools".into()))
}

#[test]
fn what_the_tool_does_opens_its_own_and_what_connections_do_the_services() {
    for (ends, expected) in [
        ([AttemptEnd::TimedOut; 3], [tool("slow"), None]),
        ([AttemptEnd::Ended; 3], [tool("slow"), None]),
        ([AttemptEnd::Unwell; 3], [tool("slow"), None]),
        ([AttemptEnd::Lost; 3], [service(), service()]),
        ([1, 2, 3].map(AttemptEnd::Unsent), [service(), service()]),
        ([AttemptEnd::Unknown; 3], [None, None]),
        (
            [
                AttemptEnd::TimedOut,
                AttemptEnd::Answered,
                AttemptEnd::TimedOut,
            ],
            [None, None],
        ),
        // The service answers so.
        (
            [AttemptEnd::Lost, AttemptEnd::Unwell, AttemptEnd::Lost],
            [None, None],
        ),
    ] {
        let guards = guards();
        for end in ends {
            assert!(attempt(&guards[0], end), "{end:?}");
        }
        assert_eq!(guards.each_ref().map(open_breaker), expected, "{ends:?}");
        let states = guards.each_ref().map(Breakers::state);
        assert_eq!(
            states.map(|state| state == BreakerState::Open),
            expected.map(|owner| owner.is_some()),
            "{ends:?}"
        );
    }
}

/// Of nine attempts that are under way together: how many are news, and whose breaker
/// opens.
#[test]
fn attempts_that_are_lost_together_are_one_failure_and_slow_ones_one_each() {
    for (end, news, expected) in [
        (AttemptEnd::Lost, 1, None),
        (AttemptEnd::Ended, 1, None),
        (AttemptEnd::Unwell, 9, None),
        (AttemptEnd::TimedOut, 9, tool("slow")),
    ] {
        let [guard, _] = guards();
        let passes: Vec<_> = (0..9).map(|_| guard.admit().unwrap()).collect();
        let told = passes
            .into_iter()
            .filter(|&pass| guard.settle(pass, end, String::new));
        assert_eq!(told.count(), news, "{end:?}");
        assert_eq!(open_breaker(&guard), expected, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_the_one_is_not_used_up_where_the_other_is_open() {
    let [slow, fast] = guards();
    for _ in 0..FAILURES {
        attempt(&slow, AttemptEnd::TimedOut);
    }
    for connect_epoch in 1..=FAILURES {
        attempt(&fast, AttemptEnd::Unsent(connect_epoch));
    }
    advance(Duration::from_millis(250)).await;
    assert_eq!(open_breaker(&slow), service());
    advance(Duration::from_millis(250)).await;
    // The one probe of the service is the fast tool's.
    let probe = fast.admit().unwrap();
    assert_eq!(open_breaker(&slow), service());
    assert_eq!(slow.breaker.state(), BreakerState::Open);
    fast.settle(probe, AttemptEnd::Answered, String::new);
    // The slow one's is still to be had, and only by itself.
    let probe = slow.admit().unwrap();
    assert_eq!(slow.state(), BreakerState::HalfOpen);
    assert_eq!([&slow, &fast].map(open_breaker), [tool("slow"), None]);
    slow.settle(probe, AttemptEnd::Answered, String::new);
    assert_eq!([&slow, &fast].map(open_breaker), [None, None]);
}

proptest! {
    /// Whatever happens: all passes are given back, and the end of an outage is found
    /// within the longest open times of both, for a tool whose calls are answered.
    #[test]
    fn the_end_of_an_outage_is_found(
        steps in vec((0..2_usize, 0..9_u8, 0..400_u64), 0..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let guards = guards();
            let mut passes: Vec<(usize, Pass)> = Vec::new();
            let mut connect_epoch = 0;
            for (index, what, millis) in steps {
                advance(Duration::from_millis(millis)).await;
                let end = match what {
                    0..=1 => {
                        passes.extend(guards[index].admit().ok().map(|pass| (index, pass)));
                        continue;
                    }
                    2 => AttemptEnd::Answered,
                    3 => AttemptEnd::TimedOut,
                    4 => AttemptEnd::Lost,
                    6 => AttemptEnd::Ended,
                    7 => AttemptEnd::Unwell,
                    5 => {
                        connect_epoch += 1;
                        AttemptEnd::Unsent(connect_epoch)
                    }
                    _ => AttemptEnd::Unknown,
                };
                if let Some((index, pass)) = passes.pop() {
                    guards[index].settle(pass, end, String::new);
                }
            }
            for (index, pass) in passes.drain(..) {
                guards[index].settle(pass, AttemptEnd::Unknown, String::new);
            }
            advance(Duration::from_millis(500)).await;
            for guard in &guards {
                let pass = guard.admit().map_err(|fault| format!("{fault:?}"));
                let pass = pass.unwrap();
                guard.settle(pass, AttemptEnd::Answered, String::new);
                assert_eq!(guard.state(), BreakerState::Closed);
            }
        });
    }
}
