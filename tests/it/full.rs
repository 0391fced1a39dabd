use std::time::Duration;

use fanfare::{catalog::Catalog, config::Config, pb};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::support::{
    SECOND, Seen,
    allowing::Allowing,
    answered, call, expired, ms,
    pipes::{self, Client},
    process::PATIENCE,
    results, seen,
    sockets::reserved,
};

async fn client(endpoints: &[String], keys: &str) -> Client {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|it| format!("'http://{it}'"))
        .collect();
    let toml = format!(
        "[services.tools]\nendpoints = [{}]\n{keys}\n[tools.tool]\nservice = 'tools'\n",
        endpoints.join(", ")
    );
    let config = Config::parse(&toml).expect("a configuration");
    pipes::client(&config, Catalog::new(&config)).await
}

fn within(time: Duration) -> pb::ToolCall {
    pb::ToolCall {
        timeout: Some(time.try_into().expect("a duration")),
        ..call("", "tool")
    }
}

/// Waits until it is so, looking every few milliseconds.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let looking = async {
        while !is_so() {
            sleep(ms(2)).await;
        }
    };
    let looked = timeout(PATIENCE, looking).await;
    looked.unwrap_or_else(|_| panic!("never came: {what}"));
}

#[tokio::test]
async fn a_service_that_allows_no_stream_is_full_and_not_dialed_again() {
    let full = Allowing::start(0).await;
    let client = client(&[full.address.to_string()], "").await;

    let batch = vec![within(2 * SECOND); 100];
    for result in results(&client, batch).await {
        assert_eq!(seen(&result), expired("not_started", "call"));
        assert_eq!(result.attempts, 0);
    }

    let connections = full.connections();
    assert!(connections <= 3, "{connections}");
    assert_eq!(full.calls(), 0);
}

#[tokio::test]
async fn calls_wait_until_the_service_allows_streams() {
    let full = Allowing::start(0).await;
    let client = client(&[full.address.to_string()], "").await;
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        calls.spawn(async move { results(&client, vec![within(20 * SECOND); 3]).await });
    }
    until("a connection", || full.connections() > 0).await;
    assert_eq!(full.calls(), 0);

    full.allow(100);

    for result in calls.join_all().await.into_iter().flatten() {
        assert_eq!((seen(&result), result.attempts), (answered(), 1));
    }
    assert_eq!(full.calls(), 60);
    // And the same on a connection that is in use.
    full.allow(0);
    let refused = within(SECOND);
    until_it_waits(&client, refused).await;
    let before = full.connections();
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { results(&client, vec![within(20 * SECOND); 9]).await })
    };
    full.allow(100);
    for result in waiting.await.unwrap() {
        assert_eq!(seen(&result), answered());
    }
    assert_eq!(full.connections(), before);
}

/// Calls until one finds no stream.
async fn until_it_waits(client: &Client, call: pb::ToolCall) {
    let calling =
        async { while seen(&results(client, vec![call.clone()]).await[0]) == answered() {} };
    timeout(PATIENCE, calling).await.expect("a call that waits");
}

#[tokio::test]
async fn another_address_takes_what_a_full_one_does_not() {
    let (full, well) = (Allowing::start(0).await, Allowing::start(100).await);
    let endpoints = [&full, &well].map(|it| it.address.to_string());
    let client = client(&endpoints, "").await;
    for _ in 0..50 {
        for result in results(&client, vec![within(20 * SECOND); 4]).await {
            assert_eq!(seen(&result), answered());
        }
    }
    assert_eq!((full.calls(), well.calls()), (0, 200));
    assert!(full.connections() <= 3, "{}", full.connections());
}

#[tokio::test]
async fn who_waits_at_a_full_address_finds_another_that_comes_up() {
    let full = Allowing::start(0).await;
    let place = reserved();
    let endpoints = [full.address.to_string(), place.address.to_string()];
    let client = client(&endpoints, "").await;
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { results(&client, vec![within(20 * SECOND)]).await })
    };
    until("a connection", || full.connections() > 0).await;

    let _tools = crate::support::process::Process::demo_tools_at(place.address).await;

    // It has no such tool, which is an answer.
    let outcome = seen(&waiting.await.unwrap()[0]);
    let code = |seen: &Seen| matches!(seen, Seen::Err(_, reason, ..) if reason == "TOOL_FAILED");
    assert!(code(&outcome), "{outcome:?}");
}

#[tokio::test]
async fn connections_that_are_closed_as_soon_as_they_are_there_are_not_dialed_in_a_loop() {
    let closing = Allowing::start(100).await;
    closing.close_new_ones();
    let keys = "breaker.failures = 1000000";
    let client = client(&[closing.address.to_string()], keys).await;
    let mut calls = JoinSet::new();
    for _ in 0..4 {
        let client = client.clone();
        calls.spawn(async move {
            // One after the other, whatever comes of them.
            for _ in 0..3 {
                results(&client, vec![within(SECOND)]).await;
            }
        });
    }
    calls.join_all().await;
    let connections = closing.connections();
    assert!(connections <= 100, "{connections}");
}
