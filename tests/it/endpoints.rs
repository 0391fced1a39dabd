use std::time::Duration;

use fanfare::{catalog::Catalog, config::Config, pb};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::support::{
    SECOND, Seen, call, call_with,
    hostile::{Hostile, Step, head},
    killed::kill,
    ledger, length, lost,
    network::{Answer, Names, demo_service},
    pipes::{self, Client},
    process::{PATIENCE, Process},
    results, seen,
    sockets::{black_hole, reserved},
};

/// A client of a server whose demo tools are at these endpoints.
async fn client_of<const N: usize>(endpoints: [String; N], keys: &str) -> Client {
    let config = Config::parse(&demo_service(&list(endpoints), keys)).unwrap();
    pipes::client(&config, Catalog::new(&config)).await
}

fn list<const N: usize>(endpoints: [String; N]) -> String {
    format!(
        "[{}]",
        endpoints
            .map(|endpoint| format!("'http://{endpoint}'"))
            .join(", ")
    )
}

async fn outcome(client: &Client, call: pb::ToolCall) -> Seen {
    seen(&results(client, vec![call]).await[0])
}

fn echo() -> pb::ToolCall {
    call_with("", "echo", json!({"a": 1}))
}

fn echoed() -> Seen {
    Seen::Ok(json!({"a": 1}))
}

fn nap() -> pb::ToolCall {
    call_with("", "sleep", json!({"seconds": 0.02}))
}

/// So many calls one after another and as many at once, which all succeed at their
/// first attempt.
async fn assert_no_call_notices(client: &Client, count: usize) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..count {
        let start = Instant::now();
        assert_eq!(outcome(client, echo()).await, echoed());
        longest = longest.max(start.elapsed());
    }
    for result in results(client, vec![echo(); count]).await {
        assert_eq!((seen(&result), result.attempts), (echoed(), 1));
        longest = longest.max(length(result.duration));
    }
    longest
}

/// Calls until both have got some.
async fn both_get_calls(client: &Client, tools: [&Process; 2]) {
    let before = tools.map(|tools| ledger::count(tools, "call started"));
    let calling = async {
        while (0..2).any(|i| ledger::count(tools[i], "call started") < before[i] + 10) {
            assert_eq!(outcome(client, echo()).await, echoed());
        }
    };
    timeout(PATIENCE, calling).await.expect("calls at both");
}

#[tokio::test]
async fn calls_are_spread_over_all_endpoints() {
    let tools = [Process::demo_tools().await, Process::demo_tools().await];
    let addresses = [&tools[0], &tools[1]].map(|tools| tools.address.to_string());
    let client = client_of(addresses, "").await;
    both_get_calls(&client, [&tools[0], &tools[1]]).await;

    let all = results(&client, vec![nap(); 200]).await;

    assert!(all.iter().all(|result| matches!(seen(result), Seen::Ok(_))));
    for tools in &tools {
        ledger::started(tools, 80).await;
    }
}

#[tokio::test]
async fn a_dead_endpoint_of_two_costs_no_call() {
    let tools = Process::demo_tools().await;
    let dead = reserved();
    let client = client_of([tools.address.to_string(), dead.address.to_string()], "").await;
    assert_no_call_notices(&client, 200).await;
}

#[tokio::test]
async fn a_black_hole_of_two_endpoints_holds_nothing_up() {
    let tools = Process::demo_tools().await;
    let hole = black_hole().await;
    let keys = "connect_timeout = '20s'";
    let client = client_of([tools.address.to_string(), hole.address.to_string()], keys).await;
    let longest = assert_no_call_notices(&client, 200).await;
    assert!(longest < 15 * SECOND, "{longest:?}");
}

#[tokio::test]
async fn an_endpoint_that_breaks_calls_is_left_alone() {
    let healthy = Process::demo_tools().await;
    let breaking = Hostile::start(vec![Step::Head(head()), Step::Cut]).await;
    let keys = "eject_after_failures = 3\nejection_time = '1h'\nmax_ejection_time = '1h'";
    let endpoints = [healthy.address, breaking.address].map(|address| address.to_string());
    let toml = demo_service(&list(endpoints), keys) + "[tools.hostile]\nservice = 'demo'";
    let config = Config::parse(&toml).unwrap();
    let client = pipes::client(&config, Catalog::new(&config)).await;

    let mut broken = 0;
    for _ in 0..300 {
        broken += usize::from(outcome(&client, call("", "hostile")).await == lost("maybe"));
    }

    assert_eq!(broken, 3);
}

#[tokio::test]
async fn an_endpoint_that_works_again_gets_calls_again() {
    let place = reserved();
    let mut victim = Process::demo_tools_at(place.address).await;
    let other = Process::demo_tools().await;
    let keys = "ejection_time = '50ms'\nmax_ejection_time = '200ms'";
    let endpoints = [victim.address, other.address].map(|address| address.to_string());
    let client = client_of(endpoints, keys).await;
    both_get_calls(&client, [&victim, &other]).await;
    kill(&mut victim, &client).await;
    assert_no_call_notices(&client, 50).await;

    let again = Process::demo_tools_at(place.address).await;

    both_get_calls(&client, [&again, &other]).await;
}

#[tokio::test]
async fn calls_follow_a_name_to_its_new_address_and_those_in_flight_stay() {
    let (old, new) = (Process::demo_tools().await, Process::demo_tools().await);
    let at = |tools: &Process| Answer::Addresses(vec![tools.address]);
    let names = Names::new([("tools.test", at(&old))]);
    let client = names
        .client("http://tools.test:1", "dns_refresh_interval = '20ms'")
        .await;
    assert_eq!(outcome(&client, echo()).await, echoed());
    let long = {
        let client = client.clone();
        let second = call_with("", "sleep", json!({"seconds": 1}));
        tokio::spawn(async move { outcome(&client, second).await })
    };
    ledger::started(&old, 2).await;

    names.now("tools.test", at(&new)).await;

    assert_no_call_notices(&client, 50).await;
    assert_eq!(long.await.unwrap(), Seen::Ok(json!({"slept_seconds": 1})));
    ledger::answered(&new, 100).await;
    assert_eq!(ledger::count(&old, "call started"), 2);

    // What is no answer changes nothing.
    for answer in [Answer::Failure, Answer::Addresses(Vec::new())] {
        names.now("tools.test", answer).await;
        assert_no_call_notices(&client, 10).await;
    }
    names.now("tools.test", at(&old)).await;
    assert_no_call_notices(&client, 10).await;
    ledger::started(&old, 22).await;
}

#[tokio::test]
async fn a_name_is_asked_for_again_when_its_address_fails() {
    let (mut old, new) = (Process::demo_tools().await, Process::demo_tools().await);
    let names = Names::new([("tools.test", Answer::Addresses(vec![old.address]))]);
    let keys = "dns_refresh_interval = '24h'\nbreaker.failures = 1000000";
    let client = names.client("http://tools.test:1", keys).await;
    assert_eq!(outcome(&client, echo()).await, echoed());
    old.signal(Signal::SIGKILL);
    old.exit_code().await;

    names.answer("tools.test", Answer::Addresses(vec![new.address]));

    let calling = async { while outcome(&client, echo()).await != echoed() {} };
    timeout(PATIENCE, calling).await.expect("an answer");
    assert_no_call_notices(&client, 10).await;
}

#[tokio::test]
async fn a_replica_that_is_added_gets_its_share() {
    let (old, new) = (Process::demo_tools().await, Process::demo_tools().await);
    let names = Names::new([("tools.test", Answer::Addresses(vec![old.address]))]);
    let client = names
        .client("http://tools.test:1", "dns_refresh_interval = '20ms'")
        .await;
    assert_eq!(outcome(&client, echo()).await, echoed());

    let both = Answer::Addresses(vec![old.address, new.address]);
    names.now("tools.test", both).await;

    both_get_calls(&client, [&old, &new]).await;
}

#[tokio::test]
async fn a_name_without_addresses_fails_calls_until_it_has_one() {
    let tools = Process::demo_tools().await;
    let names = Names::new([("tools.test", Answer::Failure)]);
    let keys = "breaker.failures = 1000000";
    let client = names.client("http://tools.test:1", keys).await;
    for _ in 0..100 {
        assert_eq!(outcome(&client, echo()).await, lost("not_started"));
    }

    let answer = Answer::Addresses(vec![tools.address]);
    names.answer("tools.test", answer);
    let found = async { while outcome(&client, echo()).await != echoed() {} };
    timeout(PATIENCE, found).await.expect("an answer");
}

#[tokio::test]
async fn a_resolver_that_does_not_answer_is_not_waited_for() {
    let tools = Process::demo_tools().await;
    let silence = || Answer::Silence;
    let names = Names::new([("a.test", silence()), ("b.test", silence())]);
    let keys = "connect_timeout = '200ms'\nbreaker.failures = 1000000";
    let client = names.client("http://a.test:1", keys).await;
    for _ in 0..3 {
        assert_eq!(outcome(&client, echo()).await, lost("not_started"));
    }
    names.asked(1).await;

    // What needs no resolver does not wait either.
    let endpoints = list(["b.test:1".to_owned(), tools.address.to_string()]);
    let client = names.client(&endpoints, keys).await;
    assert_no_call_notices(&client, 10).await;
}

#[tokio::test]
async fn the_name_of_this_machine_has_all_its_addresses() {
    let tools = Process::demo_tools().await;
    let port = tools.address.port();
    // Where that is ::1 as well, nobody listens there.
    let client = client_of([format!("localhost:{port}")], "").await;
    assert_no_call_notices(&client, 50).await;
    ledger::started(&tools, 100).await;
}
