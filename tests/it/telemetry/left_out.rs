use fanfare::pb::{self, tool_execution_result::Outcome};
use http::HeaderMap;
use tonic::{Code, Request};

use crate::support::{
    call, failed,
    hostile::{Script, Step, answer_with, fields, framed, head},
    ms,
    observed::Observed,
    request, seen,
    timed::Timed,
};

use super::passed_on::SAMPLED;

fn ok() -> Script {
    answer_with(framed(0, 0, b""))
}

/// A server whose tool `tool` is at `service`; without spans of its own, so that what
/// it passes on is what it got.
async fn observed(service: &Timed) -> Observed {
    let (config, catalog) = service.catalog("");
    Observed::of(&config, catalog, &[("OTEL_TRACES_EXPORTER", "none")]).await
}

/// A call by a caller with such a context.
fn call_with(tracestate: &str, baggage: &str) -> Request<pb::ExecuteToolsRequest> {
    let mut request = Request::new(request(vec![call("", "tool")]));
    for (name, value) in [
        ("traceparent", SAMPLED),
        ("tracestate", tracestate),
        ("baggage", baggage),
    ] {
        request.metadata_mut().append(name, value.parse().unwrap());
    }
    request
}

fn list(bytes: usize) -> String {
    format!("a={}", "x".repeat(bytes - 2))
}

async fn result_of(
    observed: &Observed,
    request: Request<pb::ExecuteToolsRequest>,
) -> pb::ToolExecutionResult {
    let response = observed.client.clone().execute_tools(request).await;
    response.unwrap().into_inner().results.remove(0)
}

fn is_ok(result: &pb::ToolExecutionResult) -> bool {
    matches!(result.outcome, Some(Outcome::Observation(_)))
}

/// How long these are: the parent, the state, the baggage.
fn lengths(head: &HeaderMap) -> [Option<usize>; 3] {
    ["traceparent", "tracestate", "baggage"].map(|name| head.get(name).map(http::HeaderValue::len))
}

fn left_out(observed: &Observed) -> [f64; 3] {
    let page = observed.observer.page();
    ["traceparent", "tracestate", "baggage"].map(|name| {
        let label = [("fanfare_context_header", name)];
        page.value("fanfare_context_left_out_total", &label)
    })
}

#[tokio::test(start_paused = true)]
async fn context_over_the_limits_of_w3c_is_left_out_and_counted() {
    let service = Timed::new(ok(), ms(1));
    let observed = observed(&service).await;
    for (state, baggage) in [(512, 8192), (513, 8192), (512, 8193), (3000, 12_000)] {
        let result = result_of(&observed, call_with(&list(state), &list(baggage))).await;
        assert!(is_ok(&result), "{result:?}");
    }
    let seen: Vec<_> = service.heads().iter().map(lengths).collect();
    let parent = Some(55);
    let expected = [
        [parent, Some(512), Some(8192)],
        [parent, None, Some(8192)],
        [parent, Some(512), None],
        [parent, None, None],
    ];
    assert_eq!(seen, expected);
    assert_eq!(left_out(&observed), [0.0, 2.0, 2.0]);
}

#[tokio::test(start_paused = true)]
async fn one_callers_context_does_not_break_the_connection_of_all() {
    // Over four times as much it closes the connection.
    let service = Timed::new(ok(), ms(300)).announcing(1024);
    let observed = observed(&service).await;
    let innocent = Request::new(request(vec![call("", "tool")]));
    let innocent = result_of(&observed, innocent);
    let both = async {
        tokio::time::sleep(ms(100)).await;
        let large = result_of(&observed, call_with(&list(400), &list(7000))).await;
        let small = result_of(&observed, call_with("a=1", "b=1")).await;
        (large, small)
    };
    let (innocent, (large, small)) = tokio::join!(innocent, both);

    for result in [innocent, large, small] {
        assert!(is_ok(&result), "{result:?}");
        assert_eq!(result.attempts, 1);
    }
    let seen: Vec<_> = service.heads().iter().map(lengths).collect();
    let expected = [
        [None, None, None],
        [Some(55), Some(400), None],
        [Some(55), Some(3), Some(3)],
    ];
    assert_eq!(seen, expected);
    assert_eq!(left_out(&observed), [0.0, 0.0, 1.0]);
    assert_eq!(service.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_headers_has_not_started_and_counts_against_nobody() {
    // Not even what every call needs; it is tried all the same.
    let service = Timed::new(ok(), ms(1)).announcing(300);
    let observed = observed(&service).await;
    let refused = failed(Code::Unknown, "INVALID_RESPONSE", "not_started");
    for _ in 0..50 {
        let result = result_of(&observed, call_with("a=1", "b=1")).await;
        assert_eq!(seen(&result), refused);
    }
    assert_eq!(service.dials(), 1);
    assert_eq!(left_out(&observed), [100.0; 3]);
}

#[tokio::test(start_paused = true)]
async fn so_has_what_grpc_core_says_of_headers() {
    let refusal = |message: &'static [u8]| {
        let mut head = head();
        head.headers_mut()
            .extend(fields([("grpc-status", b"8"), ("grpc-message", message)]));
        vec![Step::TrailersOnly(head)]
    };
    for (message, effect, attempts) in [
        (
            &b"received metadata size exceeds soft limit (9539 vs. 8192)"[..],
            "not_started",
            2,
        ),
        (
            b"received metadata size exceeds hard limit (20000 vs. 16384)",
            "not_started",
            2,
        ),
        (b"too many requests", "done", 1),
    ] {
        let service = Timed::new(refusal(message), ms(1));
        let result = result_of(&observed(&service).await, call_with("a=1", "b=1")).await;
        let expected = failed(Code::ResourceExhausted, "TOOL_FAILED", effect);
        assert_eq!((seen(&result), result.attempts), (expected, attempts));
    }
}
