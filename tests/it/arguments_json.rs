//! Arguments as the text that a model wrote, for tools of the protocol `fanfare`: they get
//! them as a `Struct`, exactly, or the call fails before anything runs.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use fanfare::{config::Config, demo::tools::DemoTools, json, pb};
use serde_json::json;
use tonic::Code;

use crate::support::{
    Seen, answered, call, call_with, call_with_text, error, failed, pipes, request, result,
    results, seen, tools::ServiceFn, violations,
};

async fn echoing() -> pipes::Client {
    pipes::client_of_service(Config::default(), DemoTools::default(), &["echo"]).await
}

/// The arguments that the tool got for this text; it echoes nothing else.
async fn got(text: &str) -> Seen {
    let seen_by_tool = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen_by_tool);
    let service = ServiceFn(move |request: tonic::Request<pb::CallToolRequest>| {
        noted.lock().unwrap().push(request.into_inner().arguments);
        async { Ok(None) }
    });
    let client = pipes::client_of_service(Config::default(), service, &["tool"]).await;
    let result = result(&client, call_with_text("", "tool", text.to_owned())).await;
    let mut noted = seen_by_tool.lock().unwrap();
    match seen(&result) {
        Seen::Ok(null) => {
            assert!(null.is_null());
            assert_eq!(noted.len(), 1);
            let arguments = noted.remove(0);
            Seen::Ok(arguments.map_or(null, |encoded| {
                json::decode_struct(&encoded).expect("a Struct").into()
            }))
        }
        failed @ Seen::Err(..) => {
            assert!(noted.is_empty(), "the tool ran");
            failed
        }
    }
}

fn invalid() -> Seen {
    failed(Code::InvalidArgument, "INVALID_ARGUMENTS", "not_started")
}

#[tokio::test(start_paused = true)]
async fn a_tool_gets_the_text_as_a_struct() {
    for (text, fields) in [
        (" {} ", json!({})),
        (
            r#"{"city": "Zürich", "days": 3, "half": -0.5, "large": 1e300, "list": [null, true, [], {"a": {}}]}"#,
            json!({"city": "Zürich", "days": 3, "half": -0.5, "large": 1e300,
                   "list": [null, true, [], {"a": {}}]}),
        ),
        (
            r#"{"\u0061\n": "\ud83d\ude00"}"#,
            json!({"a\n": "\u{1f600}"}),
        ),
        // The last that every double tells apart from the next.
        (
            r#"{"id": 9007199254740991}"#,
            json!({"id": 9_007_199_254_740_991_i64}),
        ),
        // A double, although it is beyond: it is what was written.
        (
            r#"{"id": 1234567890123456768}"#,
            json!({"id": 1.234_567_890_123_456_8e18}),
        ),
        // Absent, as the contract says of the empty text.
        ("", json!(null)),
    ] {
        assert_eq!(got(text).await, Seen::Ok(fields), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_rounded_and_no_slip_reaches_the_tool() {
    let client = echoing().await;
    for (text, told) in [
        ("nonsense", &[("arguments_json", "line 1 column")][..]),
        (r#"{"a": 1,}"#, &[("arguments_json", "line 1 column 9")]),
        (
            r#"{"a": 1} and more"#,
            &[("arguments_json", "line 1 column")],
        ),
        ("{\"a\":\n 01}", &[("arguments_json", "line 2 column")]),
        ("[1, 2]", &[("arguments_json", "object, is a list")]),
        (r#""{}""#, &[("arguments_json", "object, is a string")]),
        ("null", &[("arguments_json", "object, is null")]),
        (" ", &[("arguments_json", "JSON")]),
        (
            r#"{"order": {"ids": ["x", 9007199254740993]}, "n": 12345678901234567890123}"#,
            &[
                ("arguments.order.ids[1]", "string"),
                ("arguments.n", "string"),
            ],
        ),
        (r#"{"a": 1, "b": 2, "a": 3}"#, &[("arguments.a", "twice")]),
        (r#"{"a": 1e999}"#, &[("arguments.a", "range")]),
        (r#"{"a": "\ud800"}"#, &[("arguments.a", "surrogate")]),
    ] {
        assert_eq!(got(text).await, invalid(), "{text}");
        let result = result(&client, call_with_text("", "echo", text)).await;
        let violations = violations(&result);
        assert_eq!(violations.len(), told.len(), "{text}: {violations:?}");
        for ((field, description), (path, words)) in violations.iter().zip(told) {
            assert_eq!(field, path, "{text}");
            assert!(description.contains(words), "{text}: {description}");
        }
    }
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(60), "]".repeat(60));
    assert_eq!(got(&deep).await, invalid());
}

#[tokio::test(start_paused = true)]
async fn text_that_is_no_utf_8_costs_its_own_call() {
    let client = echoing().await;
    let broken = Bytes::from_static(b"{\"a\": \"\xff\xfe\"}");
    let calls = vec![
        call_with_text("", "echo", broken),
        call_with("", "echo", json!({"a": 1})),
    ];
    let results = results(&client, calls).await;
    assert_eq!(seen(&results[0]), invalid());
    let violations = violations(&results[0]);
    assert_eq!(violations[0].0, "arguments_json");
    assert!(violations[0].1.contains("UTF-8"), "{violations:?}");
    assert_eq!(seen(&results[1]), Seen::Ok(json!({"a": 1})));
}

#[tokio::test(start_paused = true)]
async fn arguments_have_one_form() {
    let client = echoing().await;
    let both = pb::ToolCall {
        arguments_json: "{}".into(),
        ..call_with("", "echo", json!({"a": 1}))
    };
    let result_of_both = result(&client, both).await;
    assert_eq!(seen(&result_of_both), invalid());
    assert_eq!(violations(&result_of_both)[0].0, "arguments_json");
    // The empty text is none.
    let one = pb::ToolCall {
        arguments_json: Bytes::new(),
        ..call_with("", "echo", json!({"a": 1}))
    };
    assert_eq!(seen(&result(&client, one).await), Seen::Ok(json!({"a": 1})));
}

/// The others are cancelled before they start: what a call's arguments are worth is known
/// first.
#[tokio::test(start_paused = true)]
async fn a_slip_cancels_the_rest_before_it_starts() {
    let client = echoing().await;
    let mut request = request(vec![call("", "echo"), call_with_text("", "echo", "{")]);
    request.set_failure_policy(pb::FailurePolicy::CancelRest);
    let response = client.clone().execute_tools(request).await.unwrap();
    let results = response.into_inner().results;
    let cancelled = failed(Code::Cancelled, "CANCELLED", "not_started");
    assert_eq!(seen(&results[0]), cancelled);
    assert_eq!(seen(&results[1]), invalid());
}

/// A text of two bytes an element becomes eleven.
#[tokio::test(start_paused = true)]
async fn what_a_text_becomes_has_to_fit_into_memory() {
    let mut config = Config::default();
    config.limits.max_request_bytes = 1 << 20;
    config.limits.max_response_bytes = 1 << 20;
    config.limits.max_result_bytes = 1 << 20;
    config.limits.max_buffered_bytes = 4 << 20;
    let service = ServiceFn(|_| async { Ok(None) });
    let client = pipes::client_of_service(config, service, &["tool"]).await;
    let text = |elements: usize| format!("{{\"list\":[{}]}}", vec!["1"; elements].join(","));
    let calls = vec![
        call_with_text("", "tool", text(100_000)),
        call_with_text("", "tool", text(1000)),
    ];
    let results = results(&client, calls).await;
    let overloaded = failed(Code::ResourceExhausted, "OVERLOADED", "not_started");
    assert_eq!(seen(&results[0]), overloaded);
    assert!(error(&results[0]).message.contains("max_buffered_bytes"));
    assert_eq!(seen(&results[1]), answered());
}
