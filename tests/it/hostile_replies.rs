use bytes::Bytes;
use fanfare::{
    json,
    pb::{self, tool_execution_result::Outcome},
};
use h2::Reason;
use http::{HeaderMap, Response};
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::pb::Status as RichStatus;

use crate::support::{
    Seen,
    amid_others::{
        Connection::{Breaks, Drains, Stays},
        check, client_of, result_amid_others,
    },
    answered, call, error, expired, failed,
    hostile::{Hostile, Script, Step, answer_with, fields, framed, head, http_head, message},
    length, lost, ms, request, seen,
};

fn invalid(effect: &str) -> Seen {
    failed(Code::Internal, "INVALID_RESPONSE", effect)
}

fn too_large() -> Seen {
    failed(Code::ResourceExhausted, "RESULT_TOO_LARGE", "done")
}

fn tools_own(code: Code) -> Seen {
    failed(code, "TOOL_FAILED", "done")
}

/// The message of a tool's own status, and the details that follow ours.
fn told_by_the_tool(result: &pb::ToolExecutionResult) -> (&str, &[prost_types::Any]) {
    let error = error(result);
    (&error.message, &error.details[1..])
}

fn empty() -> Bytes {
    message(Bytes::new())
}

/// A gRPC head with one more header.
fn head_with(name: &'static str, value: &[u8]) -> Response<()> {
    let mut head = head();
    head.headers_mut().extend(fields([(name, value)]));
    head
}

fn answer_after(head: Response<()>, message: Bytes) -> Script {
    let mut script = answer_with(message);
    script[0] = Step::Head(head);
    script
}

fn failure(trailers: HeaderMap) -> Script {
    vec![Step::Head(head()), Step::Trailers(trailers)]
}

/// A reply that ends without trailers.
fn broken_off(message: Bytes) -> Script {
    vec![Step::Head(head()), Step::Data(message), Step::EndStream]
}

fn forever(step: Step) -> Step {
    Step::Forever(Box::new(step))
}

#[tokio::test]
async fn replies_that_are_no_message_fail_their_call_alone() {
    let garbage = framed(0, 16, &[0xff; 16]);
    let truncated = framed(0, 100, b"0123456789");
    let zip = framed(1, 3, b"zip");
    let two_in_one_frame = [empty(), empty()].concat();
    let mut two_in_two_frames = answer_with(empty());
    two_in_two_frames.insert(1, Step::Data(empty()));
    let ok_at_first = head_with("grpc-status", b"0");
    let no_gzip = head_with("grpc-encoding", b"gzip");
    let scripts = [
        ("truncated", answer_with(truncated.clone())),
        ("truncated, no trailers", broken_off(truncated)),
        ("half a prefix", answer_with(Bytes::from_static(&[0, 0]))),
        ("no trailers", broken_off(empty())),
        ("no message", failure(fields([("grpc-status", b"0")]))),
        (
            "nothing but OK",
            vec![Step::TrailersOnly(ok_at_first.clone())],
        ),
    ];
    check(invalid("maybe"), Stays, scripts).await;
    let scripts = [
        ("garbage", answer_with(garbage.clone())),
        (
            "garbage after OK",
            answer_after(ok_at_first.clone(), garbage),
        ),
        (
            "an observation that is no Value",
            answer_with(framed(0, 4, &[0x0a, 2, 0xff, 0xff])),
        ),
        ("no gzip", answer_after(no_gzip, zip.clone())),
        ("compressed, no encoding", answer_with(zip)),
        ("an unknown flag", answer_with(framed(0x80, 0, b""))),
        ("two in one frame", answer_with(two_in_one_frame.into())),
        ("two in two frames", two_in_two_frames),
    ];
    check(invalid("done"), Stays, scripts).await;
}

#[tokio::test]
async fn replies_that_are_not_grpc_fail_their_call_alone() {
    let page = |status| {
        let mut script = broken_off(Bytes::from_static(b"<html>"));
        script[0] = Step::Head(http_head(status, "text/html"));
        script
    };
    let wrong_length = head_with("content-length", b"3");
    let over_the_limit = head_with("x", &[b'x'; 300 << 10]);
    let scripts = [
        ("a wrong length", answer_after(wrong_length, empty())),
        ("headers too large", answer_after(over_the_limit, empty())),
    ];
    check(invalid("maybe"), Stays, scripts).await;
    let no_grpc = failed(Code::Unknown, "INVALID_RESPONSE", "maybe");
    check(no_grpc, Stays, [("a web page", page(200))]).await;
    let scripts = [("a proxy alone", page(503)), ("its timeout", page(504))];
    check(lost("maybe"), Stays, scripts).await;
}

#[tokio::test]
async fn odd_statuses_are_the_tools_own_all_the_same() {
    let status =
        |code: &'static [u8], name, value| failure(fields([("grpc-status", code), (name, value)]));
    let mut with_message = status(b"0", "x", &[b'x'; 20 << 10]);
    with_message.insert(1, Step::Data(empty()));
    check(answered(), Stays, [("20 KiB of trailers", with_message)]).await;
    let at_once = head_with("grpc-status", b"5");
    let scripts = [
        ("20 KiB of trailers", status(b"5", "x", &[b'x'; 20 << 10])),
        ("too many trailers", status(b"5", "x", &[b'x'; 300 << 10])),
        ("a failure at once", vec![Step::TrailersOnly(at_once)]),
    ];
    check(tools_own(Code::NotFound), Stays, scripts).await;
    let unknown = status(b"99", "x", b"");
    check(
        tools_own(Code::Unknown),
        Stays,
        [("an unknown status", unknown)],
    )
    .await;

    for (sent, told) in [
        (&b"100% of %zz"[..], "100% of %zz"),
        (b"%FF%FE", "%FF%FE"),
        (b"\xff%20", "\u{fffd}%20"),
    ] {
        let script = status(b"5", "grpc-message", sent);
        let result = result_amid_others(told, script, Stays, call("", "hostile")).await;
        assert_eq!(seen(&result), tools_own(Code::NotFound), "{told}");
        assert_eq!(told_by_the_tool(&result), (told, &[][..]));
    }
    // No base64, bytes that are no text, and base64 of what is no message.
    for details in [&b"!"[..], b"\xff", b"////"] {
        let what = "bad details";
        let script = status(b"5", "grpc-status-details-bin", details);
        let result = result_amid_others(what, script, Stays, call("", "hostile")).await;
        assert_eq!(seen(&result), tools_own(Code::NotFound), "{details:?}");
        assert_eq!(told_by_the_tool(&result), ("", &[][..]), "{details:?}");
    }
}

/// The result of a tool that fails with `status`.
async fn result_of_failure(status: Status) -> pb::ToolExecutionResult {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).expect("headers");
    let script = failure(trailers);
    result_amid_others("a failure", script, Stays, call("", "hostile")).await
}

fn rich(detail: &prost_types::Any) -> Bytes {
    let status = RichStatus {
        code: Code::Aborted.into(),
        message: "in the details".to_owned(),
        details: vec![detail.clone()],
    };
    status.encode_to_vec().into()
}

#[tokio::test]
async fn a_tools_own_status_is_kept() {
    const SPECIAL: &str = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
    let detail = prost_types::Any {
        type_url: "type.googleapis.com/of.the.tool".to_owned(),
        value: b"\x00its value\xff".to_vec(),
    };

    let status = Status::with_details(Code::FailedPrecondition, SPECIAL, rich(&detail));
    let result = result_of_failure(status).await;

    assert_eq!(seen(&result), tools_own(Code::FailedPrecondition));
    assert_eq!(told_by_the_tool(&result), (SPECIAL, &[detail][..]));
}

#[tokio::test]
async fn of_a_tools_status_as_much_is_kept_as_the_limits_allow() {
    let result = result_of_failure(Status::not_found("m".repeat(70 << 10))).await;
    assert_eq!(seen(&result), tools_own(Code::NotFound));
    let (told, _) = told_by_the_tool(&result);
    assert_eq!(told, format!("{} [cut]", "m".repeat(1024 - 6)));

    let detail = |length| prost_types::Any {
        type_url: "t".to_owned(),
        value: vec![7; length],
    };
    let room = 4096 - (rich(&detail(2048)).len() - 2048);
    for (detail, fits) in [(detail(room), true), (detail(room + 1), false)] {
        let rich = rich(&detail);
        assert_eq!(rich.len() <= 4096, fits);
        let result = result_of_failure(Status::with_details(Code::NotFound, "", rich)).await;
        let told: Vec<_> = fits.then_some(detail).into_iter().collect();
        assert_eq!(told_by_the_tool(&result), ("", &told[..]));
    }
}

#[tokio::test]
async fn reset_calls_are_lost_and_no_other() {
    let refused = vec![Step::Reset(Reason::REFUSED_STREAM)];
    check(lost("not_started"), Stays, [("refused", refused)]).await;
    for (what, reason) in [
        ("CANCEL", Reason::CANCEL),
        ("INTERNAL_ERROR", Reason::INTERNAL_ERROR),
        ("NO_ERROR", Reason::NO_ERROR),
        ("ENHANCE_YOUR_CALM", Reason::ENHANCE_YOUR_CALM),
    ] {
        let reset = Step::Reset(reason);
        check(lost("maybe"), Stays, [(what, vec![reset.clone()])]).await;
        let scripts = [
            (what, vec![Step::Head(head()), reset.clone()]),
            (what, vec![Step::Head(head()), Step::Data(empty()), reset]),
        ];
        check(lost("maybe"), Stays, scripts).await;
    }
}

#[tokio::test]
async fn a_goaway_ends_the_calls_that_it_leaves_out() {
    let left_out = |reason| vec![Step::GoAway(reason)];
    // Whatever its code is (RFC 9113, 6.8).
    let scripts = [
        ("NO_ERROR", left_out(Reason::NO_ERROR)),
        ("PROTOCOL_ERROR", left_out(Reason::PROTOCOL_ERROR)),
        ("INTERNAL_ERROR", left_out(Reason::INTERNAL_ERROR)),
        ("ENHANCE_YOUR_CALM", left_out(Reason::ENHANCE_YOUR_CALM)),
        ("an unknown code", left_out(Reason::from(0xdead))),
    ];
    check(lost("not_started"), Drains, scripts).await;
}

/// Response headers commit a call (gRFC A6): whatever the service says then, it may
/// have run.
#[tokio::test]
async fn a_call_whose_answer_has_begun_may_have_run() {
    let cut = |data: bool, end| {
        let mut script = vec![Step::Head(head())];
        script.extend(data.then(|| Step::Data(empty())));
        script.push(end);
        script
    };
    for data in [false, true] {
        let refused = cut(data, Step::Reset(Reason::REFUSED_STREAM));
        check(lost("maybe"), Stays, [("REFUSED_STREAM", refused)]).await;
        let scripts = [
            ("GOAWAY", cut(data, Step::GoAway(Reason::NO_ERROR))),
            (
                "angry GOAWAY",
                cut(data, Step::GoAway(Reason::ENHANCE_YOUR_CALM)),
            ),
        ];
        check(lost("maybe"), Drains, scripts).await;
    }
}

#[tokio::test]
async fn a_connection_that_ends_takes_its_calls_with_it() {
    let calm = Reason::ENHANCE_YOUR_CALM;
    let half = Step::Data(framed(0, 100, b"0123456789"));
    let huge = head_with("x", &vec![b'x'; 3 << 19]);
    let no_frame = b"HTTP/1.1 400 Bad Request\r\n\r\n";
    let scripts = [
        ("a close", vec![Step::Close(Reason::NO_ERROR)]),
        ("an angry close", vec![Step::Close(calm)]),
        ("RST", vec![Step::Cut]),
        ("RST after the head", vec![Step::Head(head()), Step::Cut]),
        ("RST in the data", vec![Step::Head(head()), half, Step::Cut]),
        ("no frame", vec![Step::Raw(no_frame)]),
        ("huge headers", vec![Step::TrailersOnly(huge)]),
    ];
    check(lost("maybe"), Breaks, scripts).await;
}

#[tokio::test]
async fn replies_that_never_end_run_into_their_deadline() {
    let claim = Step::Data(framed(0, 1 << 20, b""));
    let trickle = forever(Step::Data(Bytes::from_static(b"x")));
    let empty_frames = forever(Step::Data(Bytes::new()));
    for (what, script) in [
        ("silence", vec![]),
        ("no data", vec![Step::Head(head())]),
        ("no end", vec![Step::Head(head()), Step::Data(empty())]),
        ("endless 1xx", vec![forever(Step::Informational)]),
        ("a trickle", vec![Step::Head(head()), claim, trickle]),
        ("empty frames", vec![Step::Head(head()), empty_frames]),
    ] {
        let impatient = pb::ToolCall {
            timeout: Some(ms(300).try_into().unwrap()),
            ..call("", "hostile")
        };
        let result = result_amid_others(what, script, Stays, impatient).await;
        assert_eq!(seen(&result), expired("maybe", "call"), "{what}");
        // Without a deadline of its own it would be 30 s.
        assert!(length(result.duration) < ms(15_000), "{what}");
    }
}

/// An observation that makes a message of `bytes`, its prefix not counted.
fn observation_for(bytes: usize) -> Bytes {
    let observation = |length| json::encode_value(&"x".repeat(length).into());
    let overhead = message(observation(bytes)).len() - 5 - bytes;
    observation(bytes - overhead)
}

#[tokio::test]
async fn a_message_may_be_as_long_as_the_limit() {
    const LIMIT: usize = 1 << 20;
    let observation = observation_for(LIMIT);
    assert_eq!(message(observation.clone()).len(), 5 + LIMIT);
    let text = json::decode_value(&observation).unwrap();
    let at_limit = [("the limit", answer_with(message(observation)))];
    check(Seen::Ok(text), Stays, at_limit).await;

    let over = message(observation_for(LIMIT + 1));
    let claim = |length| answer_with(framed(0, length, b""));
    let scripts = [
        ("one byte more", answer_with(over)),
        ("a claim of 64 MiB", claim(64 << 20)),
        ("a claim of 4 GiB", claim(u32::MAX as usize)),
    ];
    check(too_large(), Stays, scripts).await;
}

#[tokio::test]
async fn a_hundred_results_of_the_limit_arrive() {
    // Together more than the window of the connection.
    const LIMIT: usize = 1 << 20;
    let observation = observation_for(LIMIT);
    let service = Hostile::start(answer_with(message(observation.clone()))).await;
    let limits = "max_result_bytes = \"1MiB\"\nmax_response_bytes = \"256MiB\"";
    let mut client = client_of(&service, limits).await;
    let calls = (0..100).map(|_| call("", "hostile")).collect();

    let response = client.execute_tools(request(calls)).await.unwrap();

    let results = response.into_inner().results;
    assert_eq!(results.len(), 100);
    for result in results {
        let Some(Outcome::Observation(arrived)) = &result.outcome else {
            panic!("{:?}", result.outcome);
        };
        assert!(*arrived == observation, "another observation");
    }
    assert_eq!(service.connections(), 1);
}
