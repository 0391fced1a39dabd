use std::{
    future::{pending, ready},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fanfare::pb;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use crate::support::{
    SECOND, Seen, answered, call, call_with, expired, failed, ledger, ms,
    pipes::Client,
    process::{PATIENCE, Process, message},
    results, seen,
    service::Service,
    stalled::Replicas,
};

const TOML: &str = "[services.tools]\nendpoints = ENDPOINTS\nbreaker.failures = 1000000\n\
    [tools.tool]\nservice = 'tools'\ntimeout = '500ms'\n\
    [tools.slow]\nservice = 'tools'\ntimeout = '500ms'\n";

fn nap() -> pb::ToolCall {
    call_with("", "sleep", json!({"seconds": 0}))
}

async fn one(client: &Client, tool: &str) -> Seen {
    seen(&results(client, vec![call("", tool)]).await[0])
}

/// Calls one after the other for so long; how many there were, and how many of them
/// failed.
async fn calls_for(client: &Client, time: Duration) -> (usize, usize) {
    let (start, mut calls, mut failures) = (Instant::now(), 0, 0);
    while start.elapsed() < time {
        calls += 1;
        failures += usize::from(one(client, "tool").await != answered());
        sleep(ms(10)).await;
    }
    (calls, failures)
}

/// Three replicas: `slow` never ends anywhere, `tool` at once.
async fn three() -> ([Service; 3], Replicas) {
    let behaviour = |call: pb::CallToolRequest| async move {
        if call.name == "slow" {
            pending::<()>().await;
        }
        Ok(())
    };
    let services = [
        Service::start(behaviour).await,
        Service::start(behaviour).await,
        Service::start(behaviour).await,
    ];
    let replicas = Replicas::of(services.clone());
    (services, replicas)
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_falls_silent_costs_the_calls_of_its_first_timeout_and_no_more() {
    let (services, replicas) = three().await;
    let client = replicas.client(TOML).await;
    assert_eq!(calls_for(&client, 3 * SECOND).await.1, 0);

    replicas.stall(1, true);
    let (calls, failures) = calls_for(&client, 20 * SECOND).await;
    assert!(calls > 1000 && failures == 1, "{failures} of {calls}");

    // However long it lasted.
    let before = services[1].met().len();
    replicas.stall(1, false);
    assert_eq!(calls_for(&client, 3 * SECOND).await.1, 0);
    let after = services[1].met().len();
    assert!(after > before + 20, "{before} {after}");
}

#[tokio::test(start_paused = true)]
async fn calls_that_end_before_an_answer_is_due_avoid_the_suspect() {
    let (_, replicas) = three().await;
    let client = replicas.client(TOML).await;
    assert_eq!(calls_for(&client, 3 * SECOND).await.1, 0);
    replicas.stall(0, true);
    while one(&client, "tool").await == answered() {}

    // Nobody knows yet whether it is gone.
    let (calls, failures) = calls_for(&client, ms(900)).await;
    assert!(calls > 50 && failures == 0, "{failures} of {calls}");
    // It is there after all: it has calls again.
    replicas.stall(0, false);
    assert_eq!(calls_for(&client, 3 * SECOND).await.1, 0);
}

#[tokio::test(start_paused = true)]
async fn two_of_three_may_fall_silent() {
    let (_, replicas) = three().await;
    let client = replicas.client(TOML).await;
    assert_eq!(calls_for(&client, 3 * SECOND).await.1, 0);
    replicas.stall(0, true);
    replicas.stall(2, true);
    let (calls, failures) = calls_for(&client, 20 * SECOND).await;
    assert!(calls > 1000 && failures == 2, "{failures} of {calls}");
}

#[tokio::test(start_paused = true)]
async fn if_all_are_silent_calls_end_in_time_and_all_is_well_afterwards() {
    let (_, replicas) = three().await;
    let toml = TOML.replace("breaker.failures = 1000000", "");
    let client = replicas.client(&toml).await;
    assert_eq!(calls_for(&client, 3 * SECOND).await.1, 0);
    (0..3).for_each(|index| replicas.stall(index, true));
    let mut left_alone = 0;
    for _ in 0..200 {
        let start = Instant::now();
        let outcome = one(&client, "tool").await;
        assert!(start.elapsed() <= ms(501), "{:?}", start.elapsed());
        assert_ne!(outcome, answered());
        let open = failed(Code::Unavailable, "CIRCUIT_OPEN", "not_started");
        left_alone += usize::from(outcome == open);
        sleep(ms(10)).await;
    }
    assert!(left_alone > 100, "{left_alone}");
    (0..3).for_each(|index| replicas.stall(index, false));
    let thawed = Instant::now();
    while one(&client, "tool").await != answered() {
        sleep(ms(10)).await;
    }
    assert!(thawed.elapsed() < 3 * SECOND, "{:?}", thawed.elapsed());
    assert_eq!(calls_for(&client, 3 * SECOND).await.1, 0);
}

/// It answers pings: only its tools hang.
#[tokio::test(start_paused = true)]
async fn an_address_where_calls_run_out_of_time_is_left_alone_if_others_answer() {
    let hangs = Arc::new(AtomicBool::new(false));
    let is_hanging = Arc::clone(&hangs);
    let hanging = Service::start(move |_| {
        let hangs = is_hanging.load(Ordering::SeqCst);
        async move {
            if hangs {
                pending::<()>().await;
            }
            Ok(())
        }
    })
    .await;
    let well = Service::start(|_| ready(Ok(()))).await;
    let replicas = Replicas::of([well.clone(), hanging.clone(), well]);
    let keys = "ENDPOINTS\nejection_time = '1h'\nmax_ejection_time = '1h'";
    let client = replicas.client(&TOML.replace("ENDPOINTS", keys)).await;
    assert_eq!(calls_for(&client, 3 * SECOND).await.1, 0);
    hangs.store(true, Ordering::SeqCst);
    let before = hanging.met().len();

    let (calls, failures) = calls_for(&client, 20 * SECOND).await;

    assert!(calls > 1000 && failures == 5, "{failures} of {calls}");
    assert_eq!(hanging.met().len(), before + 5);
    assert_eq!(hanging.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_always_takes_too_long_says_nothing_of_an_address() {
    let (services, replicas) = three().await;
    let keys = "ENDPOINTS\nejection_time = '1h'\nmax_ejection_time = '1h'";
    let client = replicas.client(&TOML.replace("ENDPOINTS", keys)).await;
    for _ in 0..40 {
        for outcome in results(&client, vec![call("", "slow"); 10]).await {
            assert_eq!(seen(&outcome), expired("maybe", "tool"));
        }
        assert_eq!(one(&client, "tool").await, answered());
    }
    // All of them still have calls, on the connections that they had.
    let before = services.each_ref().map(|it| it.met().len());
    assert_eq!(calls_for(&client, 3 * SECOND).await.1, 0);
    for (service, before) in services.iter().zip(before) {
        assert!(service.met().len() > before + 20);
        assert_eq!(service.dials(), 1);
    }
}

/// With real processes; by what happens, not by the clock: the machine may be busy.
#[tokio::test]
async fn a_frozen_process_of_three_is_left_alone_and_used_again_when_it_thaws() {
    let tools = [
        Process::demo_tools().await,
        Process::demo_tools().await,
        Process::demo_tools().await,
    ];
    let endpoints = tools
        .each_ref()
        .map(|tools| format!("'http://{}'", tools.address));
    let fanfare = Process::serve(&format!(
        "[server]\nlisten = '127.0.0.1:0'\n[services.tools]\nendpoints = [{}]\n\
         breaker.failures = 1000000\n\
         [tools.echo]\nservice = 'tools'\ntimeout = '500ms'\n\
         [tools.sleep]\nservice = 'tools'\ntimeout = '20s'\n",
        endpoints.join(", ")
    ))
    .await;
    let client = fanfare.client().await;
    while tools
        .iter()
        .any(|it| ledger::count(it, "call answered") < 3)
    {
        one(&client, "echo").await;
    }

    tools[1].signal(Signal::SIGSTOP);
    let frozen = tools[1].address.to_string();
    let closed =
        |line: &Value| message(line) == "closed a connection" && line["address"] == frozen.as_str();
    let freezing = async {
        while fanfare.log().all(closed).is_empty() {
            results(&client, vec![call("", "echo"); 4]).await;
        }
    };
    timeout(PATIENCE, freezing).await.expect("silence");

    // With time enough, however busy the machine is.
    let mut failures = 0;
    for _ in 0..25 {
        for result in results(&client, vec![nap(); 12]).await {
            failures += usize::from(!matches!(seen(&result), Seen::Ok(_)));
        }
    }
    assert!(failures <= 6, "{failures} of 300");

    let before = ledger::count(&tools[1], "call answered");
    tools[1].signal(Signal::SIGCONT);
    let thawing = async {
        while ledger::count(&tools[1], "call answered") < before + 20 {
            results(&client, vec![nap(); 4]).await;
        }
    };
    timeout(PATIENCE, thawing)
        .await
        .expect("calls at all three");
}
