//! What is wrong with one call costs that call alone; the request is refused only
//! for what concerns all of it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use fanfare::pb;
use tonic::Code;

use crate::support::{
    Seen, answered, call, config, error, failed,
    observed::Observed,
    pipes::{self, Client},
    request, seen,
    tools::{Scripted, catalog},
    violations,
};

/// Any calls, well-formed or not.
mod any;

/// Calls the tool `tool`, which is there and counts its calls.
async fn client(config: &fanfare::config::Config) -> (Client, Arc<AtomicUsize>) {
    let calls = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&calls);
    let tool = Scripted::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok(bytes::Bytes::new()) }
    });
    let catalog = catalog([("tool", tool)]);
    (pipes::client(config, catalog).await, calls)
}

fn with_timeout(seconds: i64, nanos: i32) -> pb::ToolCall {
    pb::ToolCall {
        timeout: Some(prost_types::Duration { seconds, nanos }),
        ..call("", "tool")
    }
}

fn unknown() -> Seen {
    failed(Code::NotFound, "UNKNOWN_TOOL", "not_started")
}

fn invalid() -> Seen {
    failed(Code::InvalidArgument, "INVALID_ARGUMENTS", "not_started")
}

/// The fields that a failed call names.
fn fields(result: &pb::ToolExecutionResult) -> Vec<String> {
    let violations = violations(result).into_iter();
    violations.map(|(field, _)| field).collect()
}

/// The results of both RPCs, which must be the same; of the stream as completions
/// and in its aggregate.
async fn results(
    client: &mut Client,
    request: &pb::ExecuteToolsRequest,
) -> Vec<pb::ToolExecutionResult> {
    use pb::stream_execute_tools_response::Event;
    let unary = client.execute_tools(request.clone()).await.unwrap();
    let unary = unary.into_inner().results;
    let stream = client.stream_execute_tools(request.clone()).await.unwrap();
    let mut stream = stream.into_inner();
    let mut completions = Vec::new();
    let aggregate = loop {
        match stream.message().await.unwrap().unwrap().event.unwrap() {
            Event::Completion(result) => completions.push(result),
            Event::Aggregate(aggregate) => break aggregate.results,
        }
    };
    completions.sort_by_key(|result| result.index);
    let outcomes = |results: &[pb::ToolExecutionResult]| -> Vec<_> {
        results
            .iter()
            .map(|r| (r.index, r.id.clone(), r.name.clone(), r.outcome.clone()))
            .collect()
    };
    assert_eq!(outcomes(&aggregate), outcomes(&unary));
    assert_eq!(outcomes(&completions), outcomes(&unary));
    unary
}

#[tokio::test(start_paused = true)]
async fn a_bad_call_fails_alone_and_names_its_field() {
    let (mut client, tool_calls) = client(&config()).await;
    let calls = vec![
        call("first", "tool"),
        call("nul \0", "tool"),
        call("red \u{1b}[31m", "tool"),
        call("c1 \u{85}", "tool"),
        call(&"i".repeat(1025), "tool"),
        with_timeout(0, 0),
        with_timeout(-1, 0),
        with_timeout(0, -1),
        with_timeout(i64::MIN, i32::MIN),
        with_timeout(1, 1_000_000_000),
        with_timeout(315_576_000_001, 0),
        pb::ToolCall {
            id: "\n".to_owned(),
            ..with_timeout(0, 0)
        },
        // Both wrong: the call can't be made whatever tools there are.
        call("\n", "no tool"),
        call("last", "tool"),
    ];

    let results = results(&mut client, &request(calls)).await;

    let outcomes: Vec<_> = results.iter().map(seen).collect();
    let mut expected = vec![invalid(); 14];
    expected[0] = answered();
    expected[13] = answered();
    assert_eq!(outcomes, expected);
    let named: Vec<_> = results[1..13].iter().map(|r| fields(r).join()).collect();
    let timeouts = ["timeout"; 6];
    let mut expected = vec!["id"; 4];
    expected.extend(timeouts);
    expected.extend(["id timeout", "id"]);
    assert_eq!(named, expected);
    for result in &results[1..13] {
        let message = &error(result).message;
        assert!(message.starts_with(&fields(result)[0]), "{message:?}");
        let control = message.find(|c: char| c.is_control());
        assert_eq!(control, None, "{message:?}");
        assert_eq!(result.attempts, 0);
    }
    // Each RPC called it twice.
    assert_eq!(tool_calls.load(Ordering::SeqCst), 2 * 2);
}

/// `["id", "timeout"]` as one word.
trait Join {
    fn join(self) -> String;
}

impl Join for Vec<String> {
    fn join(self) -> String {
        self.as_slice().join(" ")
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_no_tool_can_have_is_an_unknown_tool() {
    let (mut client, tool_calls) = client(&config()).await;
    let long = "n".repeat(129);
    let names = [
        "",
        "fetch<|x",
        "a:b",
        "get weather",
        "nul\0",
        "\u{1b}[31m",
        "\u{e9}",
        &long,
        "nobody",
        "tool",
    ];
    let calls = names.map(|name| call("", name)).to_vec();

    let results = results(&mut client, &request(calls)).await;

    let (known, others) = results.split_last().unwrap();
    assert_eq!(seen(known), answered());
    for (result, name) in others.iter().zip(names) {
        assert_eq!(seen(result), unknown(), "{name:?}");
        let message = &error(result).message;
        let control = message.find(|c: char| c.is_control());
        assert_eq!(control, None, "{message:?}");
    }
    assert_eq!(error(&results[8]).message, "no tool is named nobody");
    assert_eq!(
        error(&results[2]).message,
        "no tool is named \"a:b\": must hold only A-Z a-z 0-9 _ - . /, has ':'"
    );
    assert_eq!(tool_calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn the_first_call_of_an_id_runs_and_the_others_fail() {
    let (mut client, tool_calls) = client(&config()).await;
    let calls = vec![
        call("a", "tool"),
        call("", "tool"),
        call("b", "tool"),
        call("a", "tool"),
        call("", "tool"),
        call("a", "nobody"),
        // The same up to where an id too long is cut, and so not the same.
        call(&("i".repeat(1024) + "x"), "tool"),
        call(&"i".repeat(1024), "tool"),
    ];

    let results = results(&mut client, &request(calls)).await;

    let outcomes: Vec<_> = results.iter().map(seen).collect();
    let expected = [
        answered(),
        answered(),
        answered(),
        invalid(),
        answered(),
        invalid(),
        invalid(),
        answered(),
    ];
    assert_eq!(outcomes, expected);
    let message = "id: must be unique, is that of calls[0]: \"a\"";
    assert_eq!(error(&results[3]).message, message);
    assert_eq!(fields(&results[5]), ["id"]);
    assert_eq!(tool_calls.load(Ordering::SeqCst), 2 * 5);
}

#[tokio::test(start_paused = true)]
async fn ids_and_names_are_echoed_up_to_their_bounds() {
    let (mut client, _) = client(&config()).await;
    let calls = vec![
        call(&"i".repeat(1024), "tool"),
        call(&"é".repeat(600), &"n".repeat(128)),
        call("\n", &"é".repeat(100)),
        call(&"i".repeat(1 << 20), &"n".repeat(1 << 20)),
    ];

    let results = results(&mut client, &request(calls)).await;

    let echoed: Vec<_> = results.iter().map(|r| (&*r.id, &*r.name)).collect();
    let expected = [
        ("i".repeat(1024), "tool".to_owned()),
        ("é".repeat(512), "n".repeat(128)),
        ("\n".to_owned(), "é".repeat(64)),
        ("i".repeat(1024), "n".repeat(128)),
    ];
    let expected: Vec<_> = expected.iter().map(|(i, n)| (&**i, &**n)).collect();
    assert_eq!(echoed, expected);
    assert_eq!(seen(&results[0]), answered());
    assert_eq!(seen(&results[1]), invalid());
}

#[tokio::test(start_paused = true)]
async fn a_bad_call_is_the_first_failure_where_one_cancels_the_rest() {
    let cancelled = || failed(Code::Cancelled, "CANCELLED", "not_started");
    let (mut client, tool_calls) = client(&config()).await;
    let bad = [
        (with_timeout(0, 0), invalid()),
        (call("", "a:b"), unknown()),
        (call("", "nobody"), unknown()),
    ];
    for (first, outcome) in &bad {
        for (second, _) in &bad {
            let request = pb::ExecuteToolsRequest {
                failure_policy: pb::FailurePolicy::CancelRest.into(),
                ..request(vec![
                    call("", "tool"),
                    first.clone(),
                    second.clone(),
                    call("", "tool"),
                ])
            };

            let results = results(&mut client, &request).await;

            let outcomes: Vec<_> = results.iter().map(seen).collect();
            let expected = [cancelled(), outcome.clone(), cancelled(), cancelled()];
            assert_eq!(outcomes, expected);
        }
    }
    assert_eq!(tool_calls.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn the_longest_ids_and_names_of_the_most_calls_fit_into_a_response() {
    // The least that the configuration allows, twice that, and the default.
    for bytes in [256 << 10, 512 << 10, 4 << 20] {
        let mut config = config();
        config.limits.max_response_bytes = bytes;
        config.limits.max_result_bytes = bytes;
        let (client, _) = client(&config).await;
        // As a client that takes no larger one.
        let mut client = client.max_decoding_message_size(bytes);
        let longest = if bytes >= 512 << 10 { 1024 } else { 256 };
        let calls = (0..256).map(|index| match index % 4 {
            0 => call(&format!("{index:0longest$}"), "tool"),
            1 => call(&format!("{index:02000}"), &"n".repeat(8000)),
            2 => call(&format!("{index:0longest$}"), &"\"".repeat(8000)),
            _ => with_timeout(-1, 0),
        });

        let results = results(&mut client, &request(calls.collect())).await;

        assert_eq!(results.len(), 256);
        for (index, result) in results.iter().enumerate() {
            let expected = [answered(), invalid(), unknown(), invalid()];
            assert_eq!(seen(result), expected[index % 4], "{index}");
            assert!(result.id.len() <= 1024 && result.name.len() <= 128);
        }
        assert_eq!(results[0].id.len(), longest);
    }
}

#[tokio::test(start_paused = true)]
async fn names_that_callers_make_up_are_no_labels() {
    let mut observed = Observed::start().await;
    let calls = vec![
        call("i\n", "echo"),
        call("", "a:b"),
        call("", &"n".repeat(100_000)),
        call(&"i".repeat(100_000), "echo"),
    ];

    observed.client.execute_tools(request(calls)).await.unwrap();

    let seen = observed.end().await;
    let rejections = "fanfare_tool_rejections_total";
    for (tool, reason) in [("echo", "INVALID_ARGUMENTS"), ("_OTHER", "UNKNOWN_TOOL")] {
        let labels = [("gen_ai_tool_name", tool), ("error_type", reason)];
        assert_eq!(seen.page.value(rejections, &labels), 2.0, "{labels:?}");
    }
    let page = format!("{:?}", seen.page);
    assert!(!page.contains("a:b") && !page.contains("nnn"), "{page}");
    // What a span says is bounded as well.
    let spans = format!("{:?}", seen.trees);
    assert!(spans.contains("a:b") && spans.contains(&"n".repeat(128)));
    assert!(!spans.contains(&"n".repeat(129)) && !spans.contains(&"i".repeat(1025)));
}
