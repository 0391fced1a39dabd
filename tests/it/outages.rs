//! Outages of tool services: processes that freeze, are cut off or are killed. What
//! they cost is counted; how long recovery takes is asserted under a paused clock.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fanfare::pb;
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::{Instant, interval, sleep, timeout};
use tonic::Code;

use crate::support::{
    SECOND, Seen, answered, call, call_with, circuit_open, expired, ledger, lost, ms,
    pipes::Client,
    process::{PATIENCE, Process},
    relay::Relay,
    request, result, seen,
    service::Service,
    sockets::reserved,
    stalled::Replicas,
};

async fn one(client: &Client) -> Seen {
    seen(&result(client, call("", "echo")).await)
}

/// Calls every 10 ms until the answer is that.
async fn until(client: &Client, wanted: &Seen) {
    let asking = async {
        while one(client).await != *wanted {
            sleep(ms(10)).await;
        }
    };
    let found = timeout(PATIENCE, asking).await;
    assert!(found.is_ok(), "still not {wanted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_frozen_service_is_left_alone_and_found_again_and_others_notice_nothing() {
    let services = [
        Service::start(|_| std::future::ready(Ok(()))).await,
        Service::start(|_| std::future::ready(Ok(()))).await,
    ];
    let replicas = Replicas::of(services);
    let toml = "[services.tried]\nendpoint = 'http://127.0.0.1:1'\n\
        [services.other]\nendpoint = 'http://127.0.0.1:2'\n\
        [tools.echo]\nservice = 'tried'\ntimeout = '600ms'\nidempotent = true\n\
        [tools.payload]\nservice = 'other'\n";
    let client = replicas.client(toml).await;
    assert_eq!(one(&client).await, answered());

    replicas.stall(0, true);
    until(&client, &expired("maybe", "tool")).await;
    until(&client, &circuit_open()).await;
    // At once: a few trials apart, which take as long as the tool may.
    let (mut at_once, mut trials) = (0, 0);
    for _ in 0..100 {
        let start = Instant::now();
        let outcome = one(&client).await;
        if outcome == circuit_open() {
            assert_eq!(start.elapsed(), Duration::ZERO);
            at_once += 1;
        } else {
            let expected = [
                expired("maybe", "tool"),
                // There may be no connection by then, or it can't be made in time.
                expired("not_started", "tool"),
                lost("not_started"),
            ];
            assert!(expected.contains(&outcome), "{outcome:?}");
            trials += 1;
        }
        let other = result(&client, call("", "payload")).await;
        assert_eq!((seen(&other), other.attempts), (answered(), 1));
        sleep(ms(10)).await;
    }
    assert!(at_once >= 90 && trials <= 10, "{at_once} {trials}");

    replicas.stall(0, false);
    let thawed = Instant::now();
    until(&client, &answered()).await;
    assert!(thawed.elapsed() < 3 * SECOND, "{:?}", thawed.elapsed());
}

/// `echo` of the one service, given little time.
async fn serve(tried: SocketAddr) -> Process {
    Process::serve(&format!(
        "[server]\nlisten = '127.0.0.1:0'\n[services.tried]\nendpoint = 'http://{tried}'\n\
         [tools.echo]\nservice = 'tried'\ntimeout = '600ms'\nidempotent = true\n"
    ))
    .await
}

#[tokio::test]
async fn a_partition_costs_hardly_more_attempts_than_calls_and_heals() {
    let cut_off = Process::demo_tools().await;
    let line = Relay::to(cut_off.address, Duration::ZERO).await;
    let server = serve(line.address).await;
    let client = server.client().await;
    let answered = Seen::Ok(json!({}));
    until(&client, &answered).await;

    line.stall(true);
    let mut ticks = interval(ms(20));
    let mut calls = Vec::new();
    for _ in 0..200 {
        ticks.tick().await;
        let client = client.clone();
        let call = call("", "echo");
        calls.push(tokio::spawn(async move { result(&client, call).await }));
    }
    let mut attempts = 0;
    for call in calls {
        let result = call.await.unwrap();
        let Seen::Err(code, ..) = seen(&result) else {
            panic!("answered through a partition");
        };
        assert!(
            matches!(code, Code::Unavailable | Code::DeadlineExceeded),
            "{code:?}"
        );
        attempts += result.attempts;
    }
    assert!(attempts <= 240, "{attempts} for 200 calls");

    line.stall(false);
    until(&client, &answered).await;
}

#[tokio::test]
async fn a_killed_process_costs_no_call_of_an_idempotent_tool() {
    let place = reserved();
    let victim = Process::demo_tools_at(place.address).await;
    let patience = "retry.connect_patience = '1m'";
    let toml = format!(
        "[server]\nlisten = '127.0.0.1:0'\n[services.demo]\nendpoint = 'http://{}'\n\
         [tools.sleep]\nservice = 'demo'\nidempotent = true\n{patience}\n\
         [tools.hang]\nservice = 'demo'\n",
        place.address
    );
    let fanfare = Process::serve(&toml).await;
    let client = fanfare.client().await;
    let mut calls: Vec<_> = (0..100)
        .map(|index| call_with(&format!("s{index}"), "sleep", json!({"seconds": 3})))
        .collect();
    calls.extend((0..100).map(|index| call(&format!("h{index}"), "hang")));
    let batch = tokio::spawn({
        let mut client = client.clone();
        async move { client.execute_tools(request(calls)).await }
    });
    ledger::started(&victim, 200).await;
    victim.signal(Signal::SIGKILL);
    // Until then it is down.
    let refused = async {
        loop {
            let listed = client
                .clone()
                .list_tools(pb::ListToolsRequest::default())
                .await;
            let listed = listed.expect("the tools").into_inner().tools;
            if listed[0].connectivity_state() == pb::ConnectivityState::TransientFailure {
                break;
            }
            sleep(ms(10)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("a refused dial");
    let restarted = Arc::new(Process::demo_tools_at(place.address).await);

    let results = batch.await.unwrap().unwrap().into_inner().results;

    for result in &results[..100] {
        let slept = Seen::Ok(json!({"slept_seconds": 3}));
        assert_eq!(seen(result), slept, "{result:?}");
        assert_eq!(result.attempts, 2);
    }
    for result in &results[100..] {
        assert_eq!((seen(result), result.attempts), (lost("maybe"), 1));
    }
    let again = ledger::started(&restarted, 100).await;
    assert_eq!(again.len(), 100);
    for line in again {
        let (tool, attempt) = (&line["tool"], &line["attempt"]);
        assert_eq!((tool, attempt), (&json!("sleep"), &json!(2)));
    }
}
