use std::{future::Pending, sync::Arc, time::Duration};

use fanfare::{
    catalog::Catalog,
    core::{
        call::{Outcome, ToolName},
        fanout::{Invocation, Tool},
    },
    demo::tools::DemoTools,
    pb::{self, stream_execute_tools_response::Event},
};
use futures_util::future::BoxFuture;
use tonic::Code;
use tonic_types::{ErrorDetail, StatusExt as _};

use crate::support::{
    SECOND, Seen, call, config, error, failed, ms, pipes, request, seen,
    tools::{Running, Scripted, catalog},
};

/// What the process takes: the largest request here is of as many calls, and is
/// admitted only if nothing else is in flight.
const MAX_CALLS: usize = 4;

async fn client(catalog: Catalog) -> pipes::Client {
    let mut config = config();
    config.limits.max_calls_per_request = MAX_CALLS;
    config.limits.max_in_flight_calls = MAX_CALLS;
    pipes::client(&config, catalog).await
}

/// All messages of a stream, and the status if it did not end well.
async fn read(
    client: &mut pipes::Client,
    calls: Vec<pb::ToolCall>,
) -> (Vec<Event>, Option<tonic::Status>) {
    let mut stream = match client.stream_execute_tools(request(calls)).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return (Vec::new(), Some(status)),
    };
    let mut events = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(message)) => events.push(message.event.expect("an event")),
            Ok(None) => return (events, None),
            Err(status) => return (events, Some(status)),
        }
    }
}

/// The status of a bug of ours: a fixed text that tells nothing.
#[track_caller]
fn assert_internal(status: &tonic::Status) {
    assert_eq!(
        (status.code(), status.message()),
        (Code::Internal, "internal error")
    );
    let details = status.get_error_details_vec();
    let [ErrorDetail::ErrorInfo(info)] = &details[..] else {
        panic!("{details:?}");
    };
    assert_eq!(
        (&*info.reason, &*info.metadata["effect"]),
        ("INTERNAL", "maybe")
    );
}

/// The same connection takes as many calls as the process may have in flight.
async fn assert_nothing_is_left(client: &mut pipes::Client) {
    let calls = (0..MAX_CALLS).map(|_| call("", "well")).collect();
    let response = client.execute_tools(request(calls)).await;
    for result in response.expect("to be admitted").into_inner().results {
        assert_eq!(seen(&result), Seen::Ok(serde_json::Value::Null));
    }
}

/// A tool with bugs beside its calls.
struct Buggy {
    timeout: fn() -> Duration,
    idempotent: fn() -> bool,
    call: fn() -> BoxFuture<'static, Outcome>,
}

impl Buggy {
    const HANGS: Self = Self {
        timeout: || SECOND,
        idempotent: || false,
        call: || Box::pin(std::future::pending()),
    };
}

impl Tool for Buggy {
    fn timeout(&self) -> Duration {
        (self.timeout)()
    }

    fn idempotent(&self) -> bool {
        (self.idempotent)()
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'static, Outcome> {
        invocation.sent();
        (self.call)()
    }
}

/// `buggy`, and `well` which answers.
fn beside(buggy: Buggy) -> Catalog {
    let mut catalog = catalog([("well", Scripted::answers_after(ms(1)))]);
    let name = ToolName::try_new("buggy".to_owned()).expect("a tool name");
    catalog.insert(name, String::new(), Arc::new(buggy));
    catalog
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_fails_alone() {
    let catalog = catalog([
        ("well", Scripted::answers_after(SECOND)),
        (
            "when_made",
            Scripted::new(|_| -> Pending<Outcome> { panic!("when made") }),
        ),
        (
            "when_polled",
            Scripted::new(|_| async { panic!("when polled") }),
        ),
        (
            "later",
            Scripted::new(|_| async {
                tokio::time::sleep(ms(500)).await;
                panic!("later")
            }),
        ),
    ]);
    let mut client = client(catalog).await;
    let calls = ["when_made", "well", "when_polled", "later"].map(|tool| call(tool, tool));
    let panicked = failed(Code::Internal, "INTERNAL", "maybe");
    let well = Seen::Ok(serde_json::Value::Null);
    let expected = [panicked.clone(), well, panicked.clone(), panicked];

    let response = client.execute_tools(request(calls.to_vec())).await.unwrap();
    let results = response.into_inner().results;
    assert!(results.iter().map(seen).eq(expected.clone()));
    assert_eq!(error(&results[0]).message, "internal error");

    let (events, end) = read(&mut client, calls.to_vec()).await;
    assert!(end.is_none(), "{end:?}");
    let order: Vec<_> = events.iter().map(index).collect();
    assert_eq!(order, [Some(0), Some(2), Some(3), Some(1), None]);
    let Some(Event::Aggregate(aggregate)) = events.last() else {
        panic!("no aggregate: {events:#?}");
    };
    assert!(aggregate.results.iter().map(seen).eq(expected));
    assert_nothing_is_left(&mut client).await;
}

fn index(event: &Event) -> Option<u32> {
    match event {
        Event::Completion(result) => Some(result.index),
        Event::Aggregate(_) => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_handler_is_an_answer_and_no_reset() {
    let mut client = client(beside(Buggy {
        timeout: || panic!("in the handler"),
        ..Buggy::HANGS
    }))
    .await;
    let calls = vec![call("a", "well"), call("b", "buggy")];

    let status = client.execute_tools(request(calls.clone())).await;
    assert_internal(&status.unwrap_err());
    let (events, end) = read(&mut client, calls).await;
    assert_eq!(events, []);
    assert_internal(&end.expect("a status"));
    let status = client.list_tools(pb::ListToolsRequest::default()).await;
    assert_internal(&status.unwrap_err());

    assert_nothing_is_left(&mut client).await;
}

/// The producer asks whether the tool is idempotent when the call has run out of
/// time: the handler has returned by then.
#[tokio::test(start_paused = true)]
async fn a_panic_in_a_streams_producer_is_no_clean_end() {
    let running = Running::default();
    let mut catalog = beside(Buggy {
        idempotent: || panic!("in the producer"),
        ..Buggy::HANGS
    });
    catalog.insert(
        ToolName::try_new("hangs".to_owned()).expect("a tool name"),
        String::new(),
        Arc::new(Scripted::hangs(&running)),
    );
    let mut client = client(catalog).await;
    let calls = vec![call("a", "buggy"), call("b", "well"), call("c", "hangs")];

    let (events, end) = read(&mut client, calls.clone()).await;
    // What was known before stands.
    assert_eq!(events.iter().map(index).collect::<Vec<_>>(), [Some(1)]);
    assert_internal(&end.expect("a status"));
    assert_eq!(running.count(), 0);

    let status = client.execute_tools(request(calls)).await;
    assert_internal(&status.unwrap_err());
    assert_eq!(running.count(), 0);
    assert_nothing_is_left(&mut client).await;
}

/// Panics when it is dropped, unless for another panic.
struct DropsBadly;

impl Drop for DropsBadly {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "when dropped");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_when_it_is_cancelled_is_no_clean_end() {
    let mut client = client(beside(Buggy {
        call: || {
            Box::pin(async {
                let _guard = DropsBadly;
                std::future::pending().await
            })
        },
        ..Buggy::HANGS
    }))
    .await;
    let calls = vec![call("a", "buggy"), call("b", "well")];

    // By its own timeout.
    let (events, end) = read(&mut client, calls.clone()).await;
    assert_eq!(events.iter().map(index).collect::<Vec<_>>(), [Some(1)]);
    assert_internal(&end.expect("a status"));
    let status = client.execute_tools(request(calls.clone())).await;
    assert_internal(&status.unwrap_err());
    assert_nothing_is_left(&mut client).await;

    // By its caller, who sees nothing of it.
    let stream = client.stream_execute_tools(request(calls)).await;
    let mut stream = stream.unwrap().into_inner();
    stream.message().await.unwrap().expect("the other one");
    drop(stream);
    tokio::time::sleep(ms(100)).await;
    assert_nothing_is_left(&mut client).await;
}

#[tokio::test(start_paused = true)]
async fn a_tool_service_that_panics_answers_and_lives() {
    let names = ["panic", "echo"];
    let mut client = pipes::client_of_service(config(), DemoTools::default(), &names).await;
    let calls = vec![call("a", "panic"), call("b", "echo")];

    for _ in 0..2 {
        let response = client.execute_tools(request(calls.clone())).await;
        let results = response.unwrap().into_inner().results;
        let panicked = failed(Code::Internal, "TOOL_FAILED", "done");
        assert_eq!(seen(&results[0]), panicked);
        assert_eq!(seen(&results[1]), Seen::Ok(serde_json::json!({})));
    }
}
