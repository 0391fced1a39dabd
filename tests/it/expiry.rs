use std::time::Duration;

use fanfare::pb;
use h2::Reason;
use http::Response;
use tonic::Code;

use crate::support::{
    Seen, call, expired, failed,
    hostile::{Script, Step, fields, framed, head, http_head},
    length, lost, ms, results, seen,
    timed::Timed,
};

/// What a tool with a timeout of `timeout` comes to that does this so long after it
/// was asked; and after what time.
async fn result_of(script: Script, timeout: Duration, after: Duration) -> (Seen, Duration) {
    let service = Timed::new(script, after);
    let timeout = timeout.as_millis();
    let tool = format!("timeout = \"{timeout}ms\"\nidempotent = true");
    let result = result_at(&service, &tool).await;
    (seen(&result), length(result.duration))
}

async fn result_at(service: &Timed, tool: &str) -> pb::ToolExecutionResult {
    let client = service.client(tool).await;
    let mut results = results(&client, vec![call("", "tool")]).await;
    results.remove(0)
}

/// A response of headers alone.
fn status(code: &'static [u8]) -> Script {
    let mut head = head();
    head.headers_mut().extend(fields([("grpc-status", code)]));
    vec![Step::TrailersOnly(head)]
}

fn reset(reason: Reason) -> Script {
    vec![Step::Reset(reason)]
}

fn page(status: u16) -> Script {
    vec![Step::TrailersOnly(http_head(status, "text/html"))]
}

/// What libraries and proxies do when time is up, and what it is at another time.
fn ends() -> Vec<(&'static str, Script, Seen)> {
    let lost = || lost("maybe");
    let own = |code| failed(code, "TOOL_FAILED", "done");
    let after = |steps: &[Step], last| [steps, &[last]].concat();
    let answered = [Step::Head(head()), Step::Data(framed(0, 0, b""))];
    let reset_by = Step::Reset;
    let incomplete = || failed(Code::Internal, "INVALID_RESPONSE", "maybe");
    vec![
        ("CANCEL", reset(Reason::CANCEL), lost()),
        ("NO_ERROR", reset(Reason::NO_ERROR), lost()),
        ("INTERNAL_ERROR", reset(Reason::INTERNAL_ERROR), lost()),
        ("calm", reset(Reason::ENHANCE_YOUR_CALM), lost()),
        (
            "CANCEL after the head",
            after(&answered[..1], reset_by(Reason::CANCEL)),
            lost(),
        ),
        (
            "CANCEL after the message",
            after(&answered, reset_by(Reason::CANCEL)),
            lost(),
        ),
        ("a status of CANCELLED", status(b"1"), own(Code::Cancelled)),
        (
            "a status of DEADLINE_EXCEEDED",
            status(b"4"),
            own(Code::DeadlineExceeded),
        ),
        (
            "a status of UNAVAILABLE",
            status(b"14"),
            own(Code::Unavailable),
        ),
        (
            "no trailers",
            after(&answered, Step::EndStream),
            incomplete(),
        ),
        (
            "half an answer",
            after(&answered[..1], Step::EndStream),
            incomplete(),
        ),
        ("503", page(503), lost()),
        ("504", page(504), lost()),
        ("a lost connection", vec![Step::Cut], lost()),
    ]
}

const TIMEOUT: Duration = Duration::from_millis(300);

#[tokio::test(start_paused = true)]
async fn whatever_ends_a_call_just_before_its_deadline_is_the_deadline() {
    for (left, idempotent) in [(1, false), (24, false), (1, true), (24, true)] {
        for (what, script, _) in ends() {
            let service = Timed::new(script, TIMEOUT - ms(left));
            let tool = format!("timeout = \"300ms\"\nidempotent = {idempotent}");
            let result = result_at(&service, &tool).await;
            let came_to = (seen(&result), length(result.duration), result.attempts);
            assert_eq!(
                came_to,
                (expired("maybe", "tool"), TIMEOUT, 1),
                "{what}, {left}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_ends_a_call_before_that_has_a_reason_of_its_own() {
    for (what, script, expected) in ends() {
        let at = TIMEOUT - ms(40);
        let service = Timed::new(script, at);
        let result = result_at(&service, "timeout = \"300ms\"").await;
        assert_eq!(seen(&result), expected, "{what}");
        assert!(length(result.duration) < at + ms(5), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_only_the_tool_can_say_is_its_own_at_any_time() {
    let ok = [Step::Head(head()), Step::Data(framed(0, 0, b""))];
    let ok = [&ok[..], &[Step::Trailers(fields([("grpc-status", b"0")]))]].concat();
    let at = TIMEOUT - ms(5);
    let (outcome, took) = result_of(ok, TIMEOUT, at).await;
    assert_eq!(outcome, Seen::Ok(serde_json::Value::Null));
    assert!(took < at + ms(2), "{took:?}");
    for (status_code, code) in [
        (&b"2"[..], Code::Unknown),
        (b"3", Code::InvalidArgument),
        (b"5", Code::NotFound),
        (b"8", Code::ResourceExhausted),
        (b"13", Code::Internal),
    ] {
        let (outcome, took) = result_of(status(status_code), TIMEOUT, at).await;
        assert_eq!(outcome, failed(code, "TOOL_FAILED", "done"));
        assert!(took < at + ms(2), "{took:?}");
    }
    // What was refused unseen did not run, and there is time to send it again.
    let service = Timed::new(reset(Reason::REFUSED_STREAM), at);
    let result = result_at(&service, "timeout = \"300ms\"").await;
    assert_eq!((result.attempts, service.calls()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn of_little_time_only_the_last_quarter_is_near_the_deadline() {
    let (timeout, cancel) = (ms(20), reset(Reason::CANCEL));
    let result = result_of(cancel.clone(), timeout, ms(16)).await;
    assert_eq!(result, (expired("maybe", "tool"), timeout));

    // Before that there is time for another attempt.
    let service = Timed::new(cancel, ms(5));
    let tool = "timeout = \"20ms\"\nidempotent = true\n\
                retry = { initial_backoff = \"1ms\", max_backoff = \"1ms\" }";
    let result = result_at(&service, tool).await;
    assert!(result.attempts > 1, "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_just_before_a_deadline_speaks_against_its_address() {
    let at = TIMEOUT - ms(5);
    let service = Timed::new(vec![Step::Cut], at);
    let client = service.client("timeout = \"300ms\"").await;
    for dials in 1..=3 {
        let result = results(&client, vec![call("", "tool")]).await.remove(0);
        assert_eq!(seen(&result), expired("maybe", "tool"));
        assert_eq!((service.dials(), service.calls()), (dials, dials));
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_about_time_is_the_deadline_as_well() {
    let script = vec![Step::TrailersOnly(Response::clone(&http_head(
        408,
        "text/html",
    )))];
    let result = result_of(script, TIMEOUT, TIMEOUT - ms(5)).await;
    assert_eq!(result, (expired("maybe", "tool"), TIMEOUT));
}
