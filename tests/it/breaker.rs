mod whose;

use std::{future::pending, time::Duration};

use fanfare::pb::{self, BreakerState};
use nix::sys::signal::Signal;
use prost::Message as _;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tonic::{Code, Status};
use tonic_types::pb::RetryInfo;

use crate::support::{
    SECOND, Seen, answered, call, circuit_open, error, error_info, expired, failed, length, lost,
    ms,
    pipes::Client,
    process::{PATIENCE, Process, message},
    result, results, seen,
    service::Service,
    sockets::reserved,
    tool,
};

const TOOL: &str = "[tools.tool]\nservice = 'tools'\ntimeout = '2s'\n";

/// A call that hangs, under way.
async fn hanging(client: &Client) -> JoinHandle<pb::ToolExecutionResult> {
    let client = client.clone();
    let call = tokio::spawn(async move { result(&client, tool("hang")).await });
    sleep(ms(1)).await;
    call
}

/// Calls of the tool whose ids begin so.
fn calls(count: usize, id: &str) -> Vec<pb::ToolCall> {
    let calls = 0..count;
    calls
        .map(|index| call(&format!("{id}{index}"), "tool"))
        .collect()
}

/// What `ListTools` says of the tool.
async fn state(client: &Client) -> BreakerState {
    let tools = client
        .clone()
        .list_tools(pb::ListToolsRequest::default())
        .await;
    tools.expect("the tools").get_ref().tools[0].breaker_state()
}

/// When to try again, as a failed call says.
fn retry_after(result: &pb::ToolExecutionResult) -> Duration {
    let detail = &error(result).details[1];
    assert_eq!(detail.type_url, "type.googleapis.com/google.rpc.RetryInfo");
    let info = RetryInfo::decode(detail.value.as_slice()).expect("a RetryInfo");
    length(info.retry_delay)
}

/// Calls with an id that begins with `hang` do, those with `fail` fail.
async fn service() -> Service {
    Service::start(|call| async move {
        match call.id.get(..4) {
            Some("hang") => pending().await,
            Some("fail") => Err(Status::new(Code::Internal, "no")),
            _ => Ok(()),
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_service_that_can_not_be_reached_is_left_alone_until_it_can() {
    let service = service().await;
    let client = service.client(TOOL).await;
    assert_eq!(seen(&result(&client, tool("")).await), answered());
    assert_eq!(state(&client).await, BreakerState::Closed);
    service.kill();

    // It is tried as long as the breaker lets it.
    while state(&client).await == BreakerState::Closed {
        assert_eq!(seen(&result(&client, tool("")).await), lost("not_started"));
    }

    assert_eq!(state(&client).await, BreakerState::Open);
    let dials = service.dials();
    let mut wait = Duration::ZERO;
    for _ in 0..100 {
        let refused = result(&client, tool("")).await;
        assert_eq!((seen(&refused), refused.attempts), (circuit_open(), 0));
        assert_eq!(error_info(error(&refused)).metadata["retryable"], "true");
        let last = "can't connect to tool service tools: ";
        let message = &error(&refused).message;
        assert!(message.contains(last), "{message}");
        assert!(length(refused.duration) < ms(5));
        wait = retry_after(&refused);
        assert!(!wait.is_zero() && wait <= SECOND, "{wait:?}");
    }
    assert_eq!(service.dials(), dials);

    service.start_again();
    sleep(wait).await;
    assert_eq!(seen(&result(&client, tool("")).await), answered());
    assert_eq!(state(&client).await, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_enough_where_there_was_none_for_an_answer_may_take_long() {
    let service = service().await;
    let client = service.client(TOOL).await;
    service.kill();
    while state(&client).await == BreakerState::Closed {
        assert_eq!(seen(&result(&client, tool("")).await), lost("not_started"));
    }
    service.start_again();
    sleep(SECOND).await;

    let slow = hanging(&client).await;

    assert_eq!(service.running(), 1);
    assert_eq!(state(&client).await, BreakerState::Closed);
    assert_eq!(seen(&result(&client, tool("")).await), answered());
    assert_eq!(seen(&slow.await.unwrap()), expired("maybe", "tool"));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_is_left_alone_and_tried_by_few() {
    let service = service().await;
    let client = service.client(TOOL).await;
    for result in results(&client, calls(10, "hang")).await {
        assert_eq!(seen(&result), expired("maybe", "tool"));
    }
    assert_eq!(state(&client).await, BreakerState::Open);
    let refused = result(&client, tool("")).await;
    assert_eq!(seen(&refused), circuit_open());

    sleep(retry_after(&refused)).await;
    let trial = hanging(&client).await;
    assert_eq!(state(&client).await, BreakerState::HalfOpen);
    for _ in 0..10 {
        assert_eq!(seen(&result(&client, tool("")).await), circuit_open());
    }
    assert_eq!(service.met().len(), 11);
    assert_eq!(seen(&trial.await.unwrap()), expired("maybe", "tool"));

    let mut refused = 0;
    while seen(&result(&client, tool("")).await) != answered() {
        refused += 1;
        assert!(refused < 200);
        sleep(ms(10)).await;
    }
    assert_eq!(state(&client).await, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_in_line_for_a_service_that_is_left_alone() {
    let service = service().await;
    let client = service.client(&format!("{TOOL}max_concurrency = 1")).await;
    while state(&client).await == BreakerState::Closed {
        assert_eq!(
            seen(&result(&client, tool("hang")).await),
            expired("maybe", "tool")
        );
    }
    sleep(SECOND).await;
    // The trial has the only place.
    let trial = hanging(&client).await;
    assert_eq!(service.running(), 1);

    let start = Instant::now();
    assert_eq!(seen(&result(&client, tool("")).await), circuit_open());
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(seen(&trial.await.unwrap()), expired("maybe", "tool"));
}

#[tokio::test(start_paused = true)]
async fn what_a_tool_answers_and_what_callers_do_opens_nothing() {
    let service = service().await;
    let client = service.client(TOOL).await;
    let own_error = failed(Code::Internal, "TOOL_FAILED", "done");
    for result in results(&client, calls(100, "fail")).await {
        assert_eq!(seen(&result), own_error);
    }
    for _ in 0..20 {
        assert_eq!(seen(&result(&client, tool("fail")).await), own_error);
    }
    // Callers that go.
    for _ in 0..20 {
        let gone = timeout(SECOND, results(&client, calls(1, "hang"))).await;
        assert!(gone.is_err());
    }
    // Callers that allow next to no time.
    let impatient = calls(20, "hang").into_iter().map(|call| pb::ToolCall {
        timeout: Some(ms(100).try_into().unwrap()),
        ..call
    });
    for result in results(&client, impatient.collect()).await {
        assert_eq!(seen(&result), expired("maybe", "call"));
    }
    assert_eq!(state(&client).await, BreakerState::Closed);
    // A tool that hangs, while the service answers others.
    for _ in 0..3 {
        let hanging = results(&client, calls(10, "hang"));
        let other = async {
            sleep(ms(1500)).await;
            result(&client, tool("")).await
        };
        let (hanging, other) = tokio::join!(hanging, other);
        assert_eq!(seen(&other), answered());
        assert!(
            hanging
                .iter()
                .all(|hung| seen(hung) == expired("maybe", "tool"))
        );
    }
    assert_eq!(state(&client).await, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_one_failure_however_many_calls_it_had() {
    let service = service().await;
    let client = service.client(TOOL).await;
    for _ in 0..4 {
        let batch = tokio::spawn({
            let client = client.clone();
            async move { results(&client, calls(50, "hang")).await }
        });
        sleep(ms(100)).await;
        assert_eq!(service.running(), 50);
        service.kill();
        service.start_again();
        let batch = batch.await.unwrap();
        assert!(batch.iter().all(|result| seen(result) == lost("maybe")));
        assert_eq!(state(&client).await, BreakerState::Closed);
    }
    assert_eq!(seen(&result(&client, tool("")).await), answered());
}

#[tokio::test(start_paused = true)]
async fn other_services_are_not_concerned() {
    let service = service().await;
    let toml = format!(
        "{TOOL}[services.other]\nendpoint = 'http://other'\nbreaker.failures = 1000\n\
         [tools.untouched]\nservice = 'other'\n"
    );
    let client = service.client(&toml).await;
    results(&client, calls(10, "hang")).await;

    let calls = vec![call("", "tool"), call("", "untouched")];
    let results = results(&client, calls).await;
    assert_eq!(seen(&results[0]), circuit_open());
    assert_eq!(seen(&results[1]), answered());
}

/// With a real process that is killed and started again, and the log.
#[tokio::test]
async fn a_killed_process_is_left_alone_and_found_again() {
    let place = reserved();
    let tools = Process::demo_tools_at(place.address).await;
    let fanfare = Process::serve(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[services.demo]\nendpoint = \"http://{}\"\n\
         [tools.echo]\nservice = \"demo\"\n",
        place.address
    ))
    .await;
    let client = fanfare.client().await;
    let echo = || async { results(&client, vec![call("", "echo")]).await.remove(0) };
    assert!(matches!(seen(&echo().await), Seen::Ok(_)));

    tools.signal(Signal::SIGKILL);
    let open = async { while seen(&echo().await) != circuit_open() {} };
    timeout(PATIENCE, open).await.expect("the breaker to open");
    for _ in 0..50 {
        let refused = echo().await;
        if seen(&refused) == circuit_open() {
            assert_eq!(
                (refused.attempts, length(refused.queue_duration)),
                (0, ms(0))
            );
        }
    }
    let log = fanfare.log();
    let is = |text: &'static str| {
        move |line: &serde_json::Value| message(line).contains(text) && line["service"] == "demo"
    };
    let opened = log.wait_for("it opens", is("leaving it alone")).await;
    assert_eq!(opened["level"], "WARN");
    let reason = opened["reason"].as_str().expect("a reason");
    assert!(reason.contains("onnect"), "{reason}");

    let _restarted = Process::demo_tools_at(place.address).await;
    let back = async {
        while !matches!(seen(&echo().await), Seen::Ok(_)) {
            sleep(ms(5)).await;
        }
    };
    timeout(PATIENCE, back).await.expect("an answer");
    let closed = log.wait_for("it closes", is("is back")).await;
    assert_eq!(closed["level"], "INFO");
}
