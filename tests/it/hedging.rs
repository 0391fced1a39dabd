use std::future::{pending, ready};

use fanfare::pb;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

use crate::support::{
    SECOND, answered, call, expired, failed, length, ms, request, result, results, seen,
    service::{Service, unavailable},
    tool,
};

fn tools(delay: &str) -> String {
    // What breakers do, others test.
    format!(
        "[tools.tool]\nservice = 'tools'\nidempotent = true\nhedge.delay = '{delay}'\n\
         breaker.failures = 1000000\n"
    )
}

/// The first attempts of calls whose id begins with `slow` hang.
async fn slow_at_first() -> Service {
    Service::start(|call| async move {
        if call.id.starts_with("slow") && call.attempt == 1 {
            pending::<()>().await;
        }
        sleep(ms(10)).await;
        Ok(())
    })
    .await
}

/// Waits until the service has noticed that so many were cancelled.
async fn cancelled(service: &Service, count: usize) {
    let start = Instant::now();
    while service.cancelled() < count {
        assert!(start.elapsed() < ms(50), "{}", service.cancelled());
        sleep(ms(1)).await;
    }
    assert_eq!((service.cancelled(), service.running()), (count, 0));
}

#[tokio::test(start_paused = true)]
async fn the_first_answer_wins_and_the_loser_is_cancelled() {
    let service = slow_at_first().await;
    let client = service.client(&tools("50ms")).await;

    let result = result(&client, tool("slow")).await;

    assert_eq!((seen(&result), result.attempts), (answered(), 2));
    let took = length(result.duration);
    assert!((ms(60)..ms(65)).contains(&took), "{took:?}");
    assert_eq!(service.attempts("slow"), [1, 2]);
    cancelled(&service, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_fast_answer_needs_no_second_attempt() {
    let service = slow_at_first().await;
    let client = service.client(&tools("50ms")).await;
    for result in results(&client, vec![call("", "tool"); 100]).await {
        assert_eq!((seen(&result), result.attempts), (answered(), 1));
    }
    assert_eq!((service.met().len(), service.cancelled()), (100, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_may_pass_sends_the_next_at_once() {
    let service = Service::start(|call| {
        let first = call.attempt == 1;
        ready(if first {
            Err(unavailable(None))
        } else {
            Ok(())
        })
    })
    .await;
    let client = service.client(&tools("10s")).await;

    let result = result(&client, tool("")).await;

    assert_eq!((seen(&result), result.attempts), (answered(), 2));
    assert!(length(result.duration) < ms(10));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_final_ends_all_attempts() {
    let service = Service::start(|call| async move {
        if call.attempt == 1 {
            pending::<()>().await;
        }
        Err(Status::new(Code::NotFound, "no"))
    })
    .await;
    let client = service.client(&tools("50ms")).await;

    let result = result(&client, tool("")).await;

    let no = failed(Code::NotFound, "TOOL_FAILED", "done");
    assert_eq!((seen(&result), result.attempts), (no, 2));
    cancelled(&service, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_tool_may_say_when_it_wants_the_next_attempt() {
    for (pushback, attempts) in [("200", 2), ("-1", 1)] {
        let service = Service::start(move |call| {
            let first = call.attempt == 1;
            ready(if first {
                Err(unavailable(Some(pushback)))
            } else {
                Ok(())
            })
        })
        .await;
        let client = service.client(&tools("50ms")).await;
        let result = result(&client, tool("")).await;
        assert_eq!(result.attempts, attempts, "{pushback}");
        let took = length(result.duration);
        assert_eq!(took >= ms(200), attempts == 2, "{took:?}");
    }
}

/// A tool that says UNAVAILABLE, and when it wants to be asked again, while others
/// use up the budget: nothing runs then, and nothing will.
#[tokio::test(start_paused = true)]
async fn a_call_ends_when_the_budget_is_empty_before_its_next_attempt() {
    let service = Service::start(|_| ready(Err(unavailable(Some("50"))))).await;
    let toml = format!("{}timeout = '8s'\n", tools("20ms"));
    let client = service.client(&toml).await;
    let start = Instant::now();

    let results = results(&client, vec![call("", "tool"); 6]).await;

    let own_error = failed(Code::Unavailable, "TOOL_FAILED", "done");
    for result in &results {
        assert_eq!((seen(result), result.attempts), (own_error.clone(), 1));
    }
    assert!(start.elapsed() < ms(60), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn each_failure_costs_one_token_whoever_sets_the_time_of_the_next_attempt() {
    for (pushback, delay) in [(Some("50"), "20ms"), (None, "20ms")] {
        let service = Service::start(move |_| ready(Err(unavailable(pushback)))).await;
        let client = service.client(&tools(delay)).await;
        let mut attempts = Vec::new();
        for _ in 0..3 {
            attempts.push(result(&client, tool("")).await.attempts);
        }
        // Of ten tokens more than five must be left.
        assert_eq!(attempts, [3, 2, 1], "{pushback:?}");
    }
}

/// A hedge costs one, whether it fails or not: else a tool that is always slow would
/// get two attempts for each call.
#[tokio::test(start_paused = true)]
async fn a_hedge_that_fails_costs_one_token() {
    let service = scripted(&[(70, Err(None)), (60, Err(None)), (0, Err(None))]).await;
    let budget = "[services.tools.retry_budget]\nmax_tokens = 8\n";
    let client = service.client(&format!("{}{budget}", tools("50ms"))).await;
    let mut attempts = Vec::new();
    for _ in 0..3 {
        attempts.push(result(&client, tool("")).await.attempts);
    }
    assert_eq!(attempts, [3, 2, 1]);
}

/// A service whose attempts each take so long and end so.
async fn scripted(script: &'static [(u64, Result<(), Option<&'static str>>)]) -> Service {
    Service::start(move |call| async move {
        let (millis, result) = script[call.attempt as usize - 1];
        sleep(ms(millis)).await;
        result.map_err(unavailable)
    })
    .await
}

/// When the attempts came, in milliseconds after the first.
fn times(service: &Service) -> Vec<u128> {
    let met = service.met();
    met.iter()
        .map(|one| (one.at - met[0].at).as_millis())
        .collect()
}

/// gRFC A6: "Immediately send next scheduled hedged request, if any. Subsequent
/// hedged requests will resume at `hedgingDelay`", "Send next hedged request in *n*
/// ms", "Don't send any more hedged requests".
#[tokio::test(start_paused = true)]
async fn failures_and_what_the_tool_asks_for_move_the_next_attempt() {
    const LONG: (u64, Result<(), Option<&str>>) = (400, Ok(()));
    type Script = [(u64, Result<(), Option<&'static str>>); 3];
    const CASES: [(&str, Script, &[u128]); 7] = [
        ("nothing fails", [LONG; 3], &[0, 50, 100]),
        (
            "the delay begins again with the attempt after a failure",
            [(40, Err(None)), LONG, LONG],
            &[0, 40, 90],
        ),
        (
            "the tool asks for time",
            [LONG, (5, Err(Some("200"))), LONG],
            &[0, 50, 255],
        ),
        (
            "another failure does not shorten it",
            [(100, Err(None)), (5, Err(Some("200"))), LONG],
            &[0, 50, 255],
        ),
        (
            "the longer of two times holds",
            [(60, Err(Some("20"))), (5, Err(Some("200"))), LONG],
            &[0, 50, 255],
        ),
        (
            "the tool wants no more, whatever fails then",
            [(100, Err(None)), (5, Err(Some("-1"))), LONG],
            &[0, 50],
        ),
        (
            "the tool wants no more before the deadline",
            [LONG, (5, Err(Some("5000"))), LONG],
            &[0, 50],
        ),
    ];
    for (name, script, expected) in &CASES {
        let service = scripted(script).await;
        let client = service.client(&tools("50ms")).await;
        let impatient = pb::ToolCall {
            timeout: Some(SECOND.try_into().unwrap()),
            ..call("", "tool")
        };
        results(&client, vec![impatient]).await;
        assert_eq!(times(&service), *expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_attempts_than_allowed() {
    let service = Service::start(|_| pending()).await;
    let client = service.client(&tools("50ms")).await;
    let impatient = pb::ToolCall {
        timeout: Some(SECOND.try_into().unwrap()),
        ..call("a", "tool")
    };

    let result = results(&client, vec![impatient]).await.remove(0);

    assert_eq!(
        (seen(&result), result.attempts),
        (expired("maybe", "call"), 3)
    );
    assert_eq!(length(result.duration), SECOND);
    cancelled(&service, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_is_always_slow_is_not_asked_twice_as_often() {
    let service = slow_at_first().await;
    let toml = format!("{}timeout = '1s'\n", tools("50ms"));
    let client = service.client(&toml).await;
    let results = results(&client, vec![call("", "tool"); 100]).await;
    assert_eq!(results.len(), 100);
    let calls = (0..100).map(|index| call(&format!("slow{index}"), "tool"));

    let response = client.clone().execute_tools(request(calls.collect())).await;

    let results = response.unwrap().into_inner().results;
    let hedged = results.iter().filter(|result| result.attempts > 1).count();
    // Half of the budget.
    assert_eq!(hedged, 5);
    for result in results {
        let expected = match result.attempts {
            1 => expired("maybe", "tool"),
            _ => answered(),
        };
        assert_eq!(seen(&result), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_delay_can_follow_what_the_tool_takes() {
    let service = slow_at_first().await;
    let client = service.client(&tools("p95")).await;
    // Not known yet: nothing is hedged.
    let impatient = pb::ToolCall {
        timeout: Some(SECOND.try_into().unwrap()),
        ..call("slow", "tool")
    };
    let first = results(&client, vec![impatient]).await.remove(0);
    assert_eq!(
        (seen(&first), first.attempts),
        (expired("maybe", "call"), 1)
    );
    for _ in 0..50 {
        assert_eq!(result(&client, tool("")).await.attempts, 1);
    }

    let slow = result(&client, tool("slow")).await;

    assert_eq!((seen(&slow), slow.attempts), (answered(), 2));
    let took = length(slow.duration);
    assert!((ms(20)..ms(30)).contains(&took), "{took:?}");
}

/// One call in fifty is slow: a request of a hundred nearly always has one.
#[tokio::test(start_paused = true)]
async fn hedging_cuts_the_tail_at_little_cost() {
    async fn run(toml: &str) -> (Vec<std::time::Duration>, usize) {
        let service = Service::start(|call| async move {
            let slow = call.id.ends_with("00") || call.id.ends_with("50");
            sleep(ms(if slow && call.attempt == 1 { 500 } else { 10 })).await;
            Ok(())
        })
        .await;
        let client = service.client(toml).await;
        let mut times = Vec::new();
        for batch in 0..20 {
            let calls = (0..100).map(|index| call(&format!("{batch}-{index:02}"), "tool"));
            let start = Instant::now();
            for result in results(&client, calls.collect()).await {
                assert_eq!(seen(&result), answered());
            }
            times.push(start.elapsed());
        }
        times.sort_unstable();
        (times, service.met().len())
    }
    let (plain, attempts) = run("[tools.tool]\nservice = 'tools'\n").await;
    assert_eq!(attempts, 2000);
    let (hedged, attempts) = run(&tools("p95")).await;

    assert!(attempts <= 2120, "{attempts} for 2000 calls");
    assert!(hedged[18] * 3 <= plain[18], "{hedged:?} {plain:?}");
}
