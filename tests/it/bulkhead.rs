use std::future::pending;

use fanfare::pb;
use prost::Message as _;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;
use tonic_types::pb::RetryInfo;

use crate::support::{
    SECOND, Seen, answered, call, error, error_info, expired, failed, length, ms, pipes::Client,
    results, seen, service::Service,
};

fn tool(keys: &str) -> String {
    format!(
        "[limits]\nmax_calls_per_request = 1000\n[tools.tool]\nservice = 'tools'\n{keys}\n\
         [tools.other]\nservice = 'tools'\n"
    )
}

/// Takes as many milliseconds as the id says before its dash; without an id, it
/// hangs.
async fn service() -> Service {
    Service::start(|call| async move {
        let time = call.id.split('-').next().and_then(|time| time.parse().ok());
        match time {
            Some(time) => sleep(ms(time)).await,
            None => pending().await,
        }
        Ok(())
    })
    .await
}

fn calls(count: usize, millis: u64) -> Vec<pb::ToolCall> {
    let calls = 0..count;
    calls
        .map(|index| call(&format!("{millis}-{index}"), "tool"))
        .collect()
}

fn spawn(
    client: &Client,
    calls: Vec<pb::ToolCall>,
) -> tokio::task::JoinHandle<Vec<pb::ToolExecutionResult>> {
    let client = client.clone();
    tokio::spawn(async move { results(&client, calls).await })
}

fn overloaded() -> Seen {
    failed(Code::ResourceExhausted, "OVERLOADED", "not_started")
}

fn within(millis: u64, call: pb::ToolCall) -> pb::ToolCall {
    pb::ToolCall {
        timeout: Some(ms(millis).try_into().unwrap()),
        ..call
    }
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_bound_wait_and_say_how_long() {
    let service = service().await;
    let client = service.client(&tool("max_concurrency = 2")).await;
    let mut batch = calls(5, 1000);
    batch.push(call("1000-other", "other"));

    let results = results(&client, batch).await;

    let times = results.iter().map(|result| {
        assert_eq!((seen(result), result.attempts), (answered(), 1));
        let [took, queued] = [result.duration, result.queue_duration].map(length);
        (took.as_millis(), queued.as_millis())
    });
    let expected = [
        (1000, 0),
        (1000, 0),
        (2000, 1000),
        (2000, 1000),
        (3000, 2000),
        (1000, 0),
    ];
    assert_eq!(times.collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_large_request_does_not_starve_a_small_one() {
    let service = service().await;
    let client = service.client(&tool("max_concurrency = 10")).await;
    let large = spawn(&client, calls(800, 100));
    sleep(ms(1050)).await;
    assert_eq!(service.running(), 10);

    let start = Instant::now();
    let small = results(&client, calls(2, 100)).await;

    // At most the calls that were running, and one before it in each round.
    assert!(start.elapsed() <= ms(300), "{:?}", start.elapsed());
    assert!(small.iter().all(|result| seen(result) == answered()));
    let large = large.await.unwrap();
    assert!(large.iter().all(|result| seen(result) == answered()));
    assert!(length(large[799].duration) <= ms(8100));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_finds_the_queue_full_fails_at_once() {
    let service = service().await;
    let client = service
        .client(&tool("max_concurrency = 2\nmax_queue = 3"))
        .await;

    let results = results(&client, calls(7, 100)).await;

    for result in &results[..5] {
        assert_eq!(seen(result), answered());
    }
    for result in &results[5..] {
        assert_eq!((seen(result), result.attempts), (overloaded(), 0));
        assert_eq!(error_info(error(result)).metadata["retryable"], "true");
        assert!(length(result.duration) < ms(1));
    }
    assert_eq!(service.met().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_would_come_too_late_is_refused_at_once() {
    let service = service().await;
    let client = service.client(&tool("max_concurrency = 1")).await;
    // From then on it is known that a call takes a second.
    results(&client, calls(1, 1000)).await;
    let running = spawn(&client, calls(2, 1000));
    sleep(ms(1)).await;

    let too_late = results(&client, vec![within(1500, call("1000-late", "tool"))]).await;

    assert_eq!(seen(&too_late[0]), overloaded());
    assert!(length(too_late[0].duration) < ms(1));
    let detail = &error(&too_late[0]).details[1];
    let info = RetryInfo::decode(detail.value.as_slice()).unwrap();
    let wait = length(info.retry_delay);
    assert!((ms(1900)..ms(2100)).contains(&wait), "{wait:?}");
    let patient = results(&client, vec![within(4000, call("1000-patient", "tool"))]).await;
    assert_eq!(seen(&patient[0]), answered());
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_leaves_the_queue_and_runs_nothing() {
    let service = service().await;
    let client = service
        .client(&tool("max_concurrency = 1\nmax_queue = 2"))
        .await;
    let running = spawn(&client, calls(1, 2000));
    sleep(ms(1)).await;

    let expired_call = results(&client, vec![within(500, call("1-expires", "tool"))]).await;
    assert_eq!(seen(&expired_call[0]), expired("not_started", "call"));
    assert_eq!(expired_call[0].attempts, 0);
    assert_eq!(length(expired_call[0].queue_duration), ms(500));
    let gone = timeout(ms(500), results(&client, calls(2, 1))).await;
    assert!(gone.is_err());
    sleep(ms(1)).await;

    // The queue is empty again.
    let waiting = results(&client, calls(2, 1)).await;
    assert!(waiting.iter().all(|result| seen(result) == answered()));
    assert_eq!(seen(&running.await.unwrap()[0]), answered());
    assert_eq!(service.met().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn cancelled_calls_give_their_places_back() {
    let service = service().await;
    let client = service.client(&tool("max_concurrency = 3")).await;
    let hanging = vec![call("", "tool"); 10];
    assert!(timeout(SECOND, results(&client, hanging)).await.is_err());

    let after = timeout(SECOND, results(&client, calls(3, 10))).await;

    assert!(
        after
            .unwrap()
            .iter()
            .all(|result| seen(result) == answered())
    );
}
