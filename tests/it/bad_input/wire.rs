use super::*;

/// A message with `depth` groups of an unknown field inside each other.
fn nested_groups(depth: usize) -> Vec<u8> {
    const START_GROUP_9: u8 = 9 << 3 | 3;
    const END_GROUP_9: u8 = 9 << 3 | 4;
    [vec![START_GROUP_9; depth], vec![END_GROUP_9; depth]].concat()
}

/// A Struct with `depth` more inside each other.
fn nested_struct(depth: usize) -> Bytes {
    let mut json = serde_json::json!({});
    for _ in 0..depth {
        json = serde_json::json!({"in": json});
    }
    fanfare::json::encode_struct(json.as_object().unwrap())
}

#[tokio::test]
async fn a_body_that_is_no_request_costs_its_rpc_alone() {
    let (client, tool_calls) = raw_client_on_loopback().await;
    let good = good();
    let with_flag = |flag: u8| {
        let mut frame = good.to_vec();
        frame[0] = flag;
        Bytes::from(frame)
    };
    // calls[0].name, not UTF-8.
    let bad_utf8 = [0x0a, 4, 0x12, 2, 0xff, 0xfe];
    let cases = [
        ("garbage", framed_bytes(&[0xff; 64]), Code::InvalidArgument),
        ("bad UTF-8", framed_bytes(&bad_utf8), Code::InvalidArgument),
        (
            "groups",
            framed_bytes(&nested_groups(10_000)),
            Code::InvalidArgument,
        ),
        ("nothing", Bytes::new(), Code::Unimplemented),
        ("half a prefix", good.slice(..3), Code::InvalidArgument),
        (
            "half a message",
            good.slice(..good.len() - 1),
            Code::InvalidArgument,
        ),
        ("compressed", with_flag(1), Code::InvalidArgument),
        ("a flag of 7", with_flag(7), Code::InvalidArgument),
        (
            "4 GiB",
            vec![0, 0xff, 0xff, 0xff, 0xff].into(),
            Code::ResourceExhausted,
        ),
    ];

    for path in [EXECUTE, STREAM] {
        for (what, body, code) in &cases {
            let answer = client.ask(post(path), body.clone()).await.unwrap();
            assert_eq!(answer.code(), *code, "{what}");
        }
    }

    assert_eq!(tool_calls.load(Ordering::SeqCst), 0);
    assert_serves(&client).await;
}

#[tokio::test]
async fn arguments_pass_through_however_deep_or_wrong() {
    let (client, _) = raw_client_on_loopback().await;
    for arguments in [nested_struct(300), vec![0xff; 1000].into()] {
        let call = pb::ToolCall {
            arguments: Some(arguments.clone()),
            ..call("", "tool")
        };
        let body = framed(&request(vec![call]));

        let answer = client.ask(post(EXECUTE), body).await.unwrap();

        assert_eq!(answer.code(), Code::Ok);
        let response = &answer.messages::<pb::ExecuteToolsResponse>()[0];
        let outcome = response.results[0].outcome.as_ref().unwrap();
        let expected = pb::tool_execution_result::Outcome::Observation(arguments);
        assert_eq!(outcome, &expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_can_not_read_its_arguments_fails_alone() {
    let names = ["echo", "sleep"];
    let mut client = pipes::client_of_service(config(), DemoTools::default(), &names).await;
    let arguments = [nested_struct(300), vec![0xff; 1000].into()];
    let call = |name: &str, arguments: &Bytes| pb::ToolCall {
        arguments: Some(arguments.clone()),
        ..call("", name)
    };
    let calls = [
        call("sleep", &arguments[0]),
        call("sleep", &arguments[1]),
        call("echo", &arguments[0]),
        call("echo", &arguments[1]),
        call("echo", &Bytes::new()),
    ];

    let response = client.execute_tools(request(calls.to_vec())).await.unwrap();

    let results = &response.get_ref().results;
    let refused = failed(Code::InvalidArgument, "TOOL_FAILED", "done");
    assert_eq!(seen(&results[0]), refused);
    assert_eq!(seen(&results[1]), refused);
    // What the caller could not decode would cost it the other results too.
    let echoed = failed(Code::Internal, "INVALID_RESPONSE", "done");
    assert_eq!(seen(&results[2]), echoed);
    assert_eq!(seen(&results[3]), echoed);
    assert_eq!(seen(&results[4]), Seen::Ok(serde_json::json!({})));
}

#[tokio::test]
async fn what_is_not_grpc_is_answered_in_http() {
    let (client, tool_calls) = raw_client_on_loopback().await;
    let of_type = |content_type: &str| {
        let mut request = post(EXECUTE);
        let value = content_type.parse().unwrap();
        request.headers_mut().insert("content-type", value);
        request
    };
    let mut untyped = post(EXECUTE);
    untyped.headers_mut().remove("content-type");
    let mut get = post(EXECUTE);
    *get.method_mut() = http::Method::GET;

    let unsupported = [
        "text/html",
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpc-web-text",
        "application/grpcfoo",
        "application/grpc+json",
    ];
    let mut refused: Vec<_> = unsupported
        .map(|kind| (of_type(kind), StatusCode::UNSUPPORTED_MEDIA_TYPE))
        .into();
    refused.push((untyped, StatusCode::UNSUPPORTED_MEDIA_TYPE));
    refused.push((get, StatusCode::METHOD_NOT_ALLOWED));
    for (request, expected) in refused {
        let sent = format!("{request:?}");
        let answer = client.ask(request, good()).await.unwrap();
        assert_eq!(answer.http, expected, "{sent}");
    }
    for path in [
        "/fanfare.v1.OrchestratorService/Nothing",
        "/fanfare.v1.Nobody/ExecuteTools",
        "/",
    ] {
        let answer = client.ask(post(path), good()).await.unwrap();
        assert_eq!(answer.code(), Code::Unimplemented, "{path}");
    }
    assert_eq!(tool_calls.load(Ordering::SeqCst), 0);
    assert_serves(&client).await;

    for kind in ["application/grpc+proto", "application/grpc; charset=utf-8"] {
        let answer = client.ask(of_type(kind), good()).await.unwrap();
        assert_eq!(answer.code(), Code::Ok, "{kind}");
    }
}

#[tokio::test]
async fn metadata_that_is_reserved_or_broken_does_no_harm() {
    let (client, _) = raw_client_on_loopback().await;
    for (name, value) in [
        ("grpc-status", "7"),
        ("grpc-message", "%00%1b%5b31m"),
        ("grpc-status-details-bin", "!!!"),
        ("grpc-previous-rpc-attempts", "-1"),
        ("grpc-retry-pushback-ms", "x"),
        ("grpc-nothing-known", "x"),
        ("grpc-trace-bin", "!!!"),
        ("grpc-accept-encoding", "gzip, nonsense"),
        ("x-custom-bin", "!!!"),
        ("traceparent", "00-zz-zz-zz"),
    ] {
        let answer = client
            .ask(post_with(EXECUTE, name, value), good())
            .await
            .unwrap();
        assert_eq!(answer.code(), Code::Ok, "{name}");
    }
    // A compression that was not offered can't be read.
    let compressed = post_with(EXECUTE, "grpc-encoding", "snappy");
    let answer = client.ask(compressed, good()).await.unwrap();
    assert_eq!(answer.code(), Code::Unimplemented);
}

#[tokio::test]
async fn http_1_is_hung_up_on() {
    let calls = Arc::default();
    let address = loopback(&config(), echo(&calls)).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: fanfare\r\nContent-Length: 0\r\n\r\n")
        .await
        .unwrap();

    let mut answer = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;

    // With or without a last frame of HTTP/2, but no HTTP/1.1.
    assert!(end.is_ok(), "the connection stays open");
    assert!(!answer.starts_with(b"HTTP/1"));
    assert_serves(&RawClient::connect(address).await).await;
}

/// Requests, broken at random: whatever comes of each, it is a proper answer.
#[tokio::test]
async fn mutated_requests_never_panic_the_server() {
    const MUTATIONS: usize = 2000;
    const AT_A_TIME: usize = 50;
    let panics = count_panics_of_this_thread();
    let (client, _) = raw_client_on_loopback().await;
    let mut random = fastrand::Rng::with_seed(20_261_122);
    let whole = pb::ExecuteToolsRequest {
        calls: vec![
            pb::ToolCall {
                arguments: Some(nested_struct(2)),
                ..with_timeout(1, 500_000_000)
            },
            call("id", "nobody"),
        ],
        failure_policy: 2,
        concurrency_limit: 1,
        aggregate_view: 2,
    };
    let whole = framed(&whole);

    let mut served = 0;
    for round in 0..MUTATIONS / AT_A_TIME {
        let path = if round % 2 == 0 { EXECUTE } else { STREAM };
        let bodies: Vec<Bytes> = (0..AT_A_TIME)
            .map(|_| mutated(&whole, &mut random))
            .collect();
        let mut responses = Vec::new();
        for body in &bodies {
            responses.push(client.send(post(path), body.clone()).await.unwrap());
        }
        for (response, body) in responses.into_iter().zip(bodies) {
            let answer = timeout(PATIENCE, Answer::read(response)).await;
            let answer = answer.unwrap().unwrap_or_else(|e| panic!("{e}: {body:?}"));
            let code = answer.code();
            if code == Code::Ok {
                served += 1;
                assert_is_whole(&answer, path);
            }
            let proper = [
                Code::Ok,
                Code::InvalidArgument,
                Code::ResourceExhausted,
                // Its length may have become less than it is.
                Code::Unimplemented,
            ];
            assert!(proper.contains(&code), "{code:?}: {body:?}");
            assert_eq!(panics.load(Ordering::SeqCst), 0, "{body:?}");
        }
    }

    // Neither all harmless nor all hopeless.
    assert!((100..MUTATIONS - 100).contains(&served), "{served}");
    assert_serves(&client).await;
}

/// An answer of OK has a result for each call.
fn assert_is_whole(answer: &Answer, path: &str) {
    use pb::stream_execute_tools_response::Event;
    let results = if path == EXECUTE {
        let results = answer
            .messages::<pb::ExecuteToolsResponse>()
            .remove(0)
            .results;
        assert!(results.iter().all(|r| r.outcome.is_some()), "{answer:?}");
        results
    } else {
        let mut messages = answer.messages::<pb::StreamExecuteToolsResponse>();
        let Some(Event::Aggregate(aggregate)) = messages.pop().unwrap().event else {
            panic!("no aggregate at the end: {answer:?}");
        };
        assert_eq!(messages.len(), aggregate.results.len());
        aggregate.results
    };
    assert!(!results.is_empty());
}

/// Breaks a frame in up to three places; its prefix is put right mostly, or
/// little would get past it.
fn mutated(whole: &Bytes, random: &mut fastrand::Rng) -> Bytes {
    let mut frame = whole.to_vec();
    for _ in 0..random.usize(1..=3) {
        let at = random.usize(5..frame.len());
        match random.u8(..6) {
            0 => frame[at] ^= 1 << random.u8(..8),
            1 => frame[at] = random.u8(..),
            2 => frame.truncate(at.max(6)),
            3 => frame.insert(at, random.u8(..)),
            4 => drop(frame.remove(at)),
            _ => {
                let copy = frame[at..].to_vec();
                frame.extend_from_slice(&copy);
            }
        }
        // Keeps room for the next one.
        frame.resize(frame.len().max(6), 0);
    }
    if random.u8(..10) == 0 {
        let at = random.usize(..5);
        frame[at] ^= 1 << random.u8(..8);
        return frame.into();
    }
    framed_bytes(&frame[5..])
}

/// In a test with tokio's runtime of one thread, that is all of its tasks.
fn count_panics_of_this_thread() -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let (counted, this) = (count.clone(), std::thread::current().id());
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == this {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        previous(info);
    }));
    count
}
