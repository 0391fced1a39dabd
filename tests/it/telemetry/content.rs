use fanfare::{demo::tools::DemoTools, pb};
use serde_json::{Value, json};

use crate::support::{call, call_with, config, observed::Observed, request};

const CAPTURE: &str = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";
const LIMIT: &str = "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT";

/// Arguments and result of each call, as their spans have them.
async fn content(
    variables: &[(&str, &str)],
    calls: Vec<pb::ToolCall>,
) -> Vec<(Option<Value>, Option<Value>)> {
    let tools = DemoTools::default();
    let mut observed = Observed::with(config(), tools, variables).await;
    observed.client.execute_tools(request(calls)).await.unwrap();
    let tree = observed.end().await.tree();
    tokio::time::pause();
    for span in tree.all() {
        let on_its_call = span.attributes.contains_key("gen_ai.tool.name");
        let has_content = span
            .attributes
            .keys()
            .any(|name| name.starts_with("gen_ai.tool.call."));
        assert!(on_its_call || !has_content, "{span:#?}");
    }
    let of = |name: &str| format!("gen_ai.tool.call.{name}");
    let calls = tree.children.into_iter().map(|span| span.attributes);
    calls
        .map(|mut attributes| {
            let mut take = |name| attributes.remove(&of(name));
            (take("arguments"), take("result"))
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn what_tools_are_told_and_say_is_on_spans_only_if_asked_for() {
    let city = || {
        vec![call_with(
            "",
            "echo",
            json!({"city": "Köln", "days": [1, 2.5]}),
        )]
    };
    for variables in [&[][..], &[(CAPTURE, "false")], &[(CAPTURE, "NO_CONTENT")]] {
        assert_eq!(content(variables, city()).await, [(None, None)]);
    }
    let text = Some(json!(r#"{"city":"Köln","days":[1,2.5]}"#));
    for value in ["true", "SPAN_ONLY", "span_and_event"] {
        let captured = content(&[(CAPTURE, value)], city()).await;
        assert_eq!(captured, [(text.clone(), text.clone())]);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_cut_to_size_between_characters() {
    let city = || vec![call_with("", "echo", json!({"city": "Köln"}))];
    for (limit, cut) in [
        ("0", ""),
        ("10", "{\"city\":\"K"),
        // In the middle of the ö.
        ("11", "{\"city\":\"K"),
        ("12", "{\"city\":\"Kö"),
        ("1000", "{\"city\":\"Köln\"}"),
    ] {
        let captured = content(&[(CAPTURE, "true"), (LIMIT, limit)], city()).await;
        assert_eq!(captured, [(Some(json!(cut)), Some(json!(cut)))], "{limit}");
    }
    let large = vec![call_with("", "payload", json!({"bytes": 100_000}))];
    let captured = content(&[(CAPTURE, "true")], large).await;
    let result = captured[0].1.as_ref().and_then(Value::as_str).unwrap();
    assert_eq!(result.len(), 4096);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_or_can_not_be_read_is_left_out() {
    let unreadable = pb::ToolCall {
        arguments: Some(vec![0xff; 10].into()),
        ..call("", "sleep")
    };
    let calls = vec![
        call("", "echo"),
        call_with("", "fail", json!({"code": 5, "message": "no"})),
        call_with("", "nobody", json!({"a": null})),
        unreadable,
    ];
    let captured = content(&[(CAPTURE, "true")], calls).await;
    let text = |text| Some(json!(text));
    assert_eq!(
        captured,
        [
            (None, text("{}")),
            (text(r#"{"code":5,"message":"no"}"#), None),
            (text(r#"{"a":null}"#), None),
            (text(""), None),
        ]
    );
}
