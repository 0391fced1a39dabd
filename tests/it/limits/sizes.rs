use fanfare::{demo::tools::DemoTools, pb::stream_execute_tools_response::Event};
use prost::Message as _;
use serde_json::json;

use super::*;

const MIB: usize = 1 << 20;

/// A request that is `bytes` long.
fn request_of(bytes: usize) -> pb::ExecuteToolsRequest {
    let of = |padding: usize| {
        request(vec![pb::ToolCall {
            arguments: Some(vec![0; padding].into()),
            ..call("", "tool")
        }])
    };
    let overhead = of(bytes).encoded_len() - bytes;
    let request = of(bytes - overhead);
    assert_eq!(request.encoded_len(), bytes);
    request
}

#[tokio::test(start_paused = true)]
async fn a_request_may_have_so_many_bytes() {
    let mut config = config();
    for limit in [MIB, config.limits.max_request_bytes] {
        config.limits.max_request_bytes = limit;
        let catalog = catalog([("tool", Scripted::answers_with(1))]);
        let mut client = pipes::client(&config, catalog).await;

        client.execute_tools(request_of(limit)).await.unwrap();

        let status = client.execute_tools(request_of(limit + 1)).await;
        let status = status.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let expected = format!(
            "the request is too large: it may have {limit} bytes, uncompressed \
             (limits.max_request_bytes)"
        );
        assert_eq!(status.message(), expected);
        assert!(status.get_details_retry_info().is_none());
        let stream = client.stream_execute_tools(request_of(limit + 1)).await;
        assert_eq!(stream.unwrap_err().code(), Code::ResourceExhausted);
        client.execute_tools(request_of(limit)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_observation_may_have_so_many_bytes() {
    // A string of that length as a reply: two tags and two lengths of 3 bytes.
    const REPLY_OVERHEAD: usize = 8;
    const LIMIT: usize = 100_000;
    let mut config = config();
    config.limits.max_result_bytes = LIMIT;
    let names = ["payload", "echo"];
    let mut client = pipes::client_of_service(config, DemoTools::default(), &names).await;
    let payload = |bytes| call_with("", "payload", json!({"bytes": bytes}));
    let largest = LIMIT - REPLY_OVERHEAD;
    let calls = vec![
        payload(largest),
        payload(largest + 1),
        call_with("", "echo", json!({})),
        payload(64 * MIB),
    ];

    let response = client.execute_tools(request(calls)).await.unwrap();

    let outcomes: Vec<_> = response.get_ref().results.iter().map(seen).collect();
    let too_large = failed(Code::ResourceExhausted, "RESULT_TOO_LARGE", "done");
    assert_eq!(
        outcomes,
        [
            Seen::Ok("x".repeat(largest).into()),
            too_large.clone(),
            Seen::Ok(json!({})),
            too_large,
        ]
    );
}

/// A tool for each of `sizes`, that answers with so many bytes; all calls.
fn sized(sizes: &[(&'static str, usize)]) -> (fanfare::catalog::Catalog, Vec<pb::ToolCall>) {
    let tools = sizes
        .iter()
        .map(|&(name, bytes)| (name, Scripted::answers_with(bytes)));
    let calls = sizes.iter().map(|(name, _)| call("", name)).collect();
    (catalog(tools), calls)
}

/// Which results have their observation; the others must have given way.
fn kept(response: &pb::ExecuteToolsResponse) -> Vec<&str> {
    let too_large = failed(Code::ResourceExhausted, "RESULT_TOO_LARGE", "done");
    let kept = response.results.iter().filter(|result| {
        let outcome = result.outcome.as_ref().expect("an outcome");
        match outcome {
            pb::tool_execution_result::Outcome::Observation(_) => true,
            pb::tool_execution_result::Outcome::Error(_) => {
                assert_eq!(seen(result), too_large);
                false
            }
        }
    });
    kept.map(|result| result.name.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_largest_observations_give_way_to_the_others() {
    let (catalog, calls) = sized(&[
        ("a", MIB),
        ("b", MIB - 1),
        ("c", MIB - 2),
        ("d", MIB - 3),
        ("e", 10),
        ("f", MIB / 2),
    ]);
    // As a client of tonic is by default, and those of other libraries.
    let client = pipes::client(&config(), catalog).await;
    let mut client = client.max_decoding_message_size(4 * MIB);

    let response = client.execute_tools(request(calls.clone())).await.unwrap();

    let response = response.into_inner();
    assert!(response.encoded_len() <= 4 * MIB);
    assert_eq!(kept(&response), ["b", "c", "d", "e", "f"]);

    // The completions had every observation.
    let stream = client.stream_execute_tools(request(calls)).await.unwrap();
    let mut stream = stream.into_inner();
    let mut streamed = Vec::new();
    let aggregate = loop {
        match stream.message().await.unwrap().unwrap().event.unwrap() {
            Event::Completion(result) => streamed.push(result),
            Event::Aggregate(aggregate) => break aggregate,
        }
    };
    assert!(stream.message().await.unwrap().is_none());
    assert_eq!(kept(&aggregate), kept(&response));
    streamed.sort_by_key(|result| result.index);
    let streamed = pb::ExecuteToolsResponse {
        results: streamed,
        ..Default::default()
    };
    assert_eq!(kept(&streamed), ["a", "b", "c", "d", "e", "f"]);
}

#[tokio::test(start_paused = true)]
async fn a_response_is_full_before_an_observation_gives_way() {
    // What the configuration reserves for a result beside its observation.
    const BESIDE: usize = 1 << 10;
    for (bytes, expected) in [(2 * MIB - 2 * BESIDE, &["a", "b"][..]), (2 * MIB, &["b"])] {
        let (catalog, calls) = sized(&[("a", bytes), ("b", bytes - 1)]);
        let mut client = pipes::client(&config(), catalog).await;

        let response = client.execute_tools(request(calls)).await.unwrap();

        assert_eq!(kept(response.get_ref()), expected, "{bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_of_the_most_calls_with_the_longest_ids_fits() {
    let name = "n".repeat(128);
    let mut config = config();
    config.limits.max_response_bytes = 256 << 10;
    let catalog = catalog([("tool", Scripted::answers_with(900))]);
    let mut client = pipes::client(&config, catalog).await;
    let calls = (0..256).map(|index| {
        let name = if index % 2 == 0 { "tool" } else { &name };
        call(&format!("{index:0256}"), name)
    });

    let response = client
        .execute_tools(request(calls.collect()))
        .await
        .unwrap();

    let response = response.into_inner();
    assert_eq!(response.results.len(), 256);
    assert!(response.encoded_len() <= 256 << 10);
    assert!(response.results.iter().all(|r| r.id.len() == 256));
}
