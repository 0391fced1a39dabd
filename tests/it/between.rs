use bytes::Bytes;
use fanfare::json;
use http::Response;
use tonic::Code;

use crate::support::{
    Seen,
    amid_others::{Connection::Stays, check, result_amid_others},
    answered, call, error, failed,
    hostile::{Script, Step, answer_with, fields, framed, head, http_head, message},
    length, lost, ms, results, seen,
    timed::Timed,
};

fn own(code: Code) -> Seen {
    failed(code, "TOOL_FAILED", "done")
}

fn not_grpc(code: Code) -> Seen {
    failed(code, "INVALID_RESPONSE", "maybe")
}

fn page(status: u16, kind: &str, text: &'static str) -> Script {
    vec![
        Step::Head(http_head(status, kind)),
        Step::Data(Bytes::from_static(text.as_bytes())),
        Step::EndStream,
    ]
}

fn with_status(mut head: Response<()>, code: &'static [u8]) -> Response<()> {
    head.headers_mut().extend(fields([("grpc-status", code)]));
    head
}

/// An answer of OK after another head.
fn answer_after(head: Response<()>) -> Script {
    let mut script = answer_with(framed(0, 0, b""));
    script[0] = Step::Head(head);
    script
}

#[tokio::test]
async fn an_http_status_is_what_grpc_says_that_it_stands_for() {
    for (status, expected) in [
        (200, not_grpc(Code::Unknown)),
        (204, not_grpc(Code::Unknown)),
        (302, not_grpc(Code::Unknown)),
        (400, not_grpc(Code::Internal)),
        (401, not_grpc(Code::Unauthenticated)),
        (403, not_grpc(Code::PermissionDenied)),
        (404, not_grpc(Code::Unimplemented)),
        (408, not_grpc(Code::Unknown)),
        (429, lost("maybe")),
        (500, not_grpc(Code::Unknown)),
        (502, lost("maybe")),
        (503, lost("maybe")),
        (504, lost("maybe")),
    ] {
        let script = vec![Step::TrailersOnly(http_head(status, "text/html"))];
        check(expected, Stays, [("a status alone", script)]).await;
    }
    // The request did not get past its headers.
    let script = page(431, "text/plain", "too much");
    let result = result_amid_others("431", script, Stays, call("", "hostile")).await;
    let expected = failed(Code::Unknown, "INVALID_RESPONSE", "not_started");
    assert_eq!(seen(&result), expected);
}

#[tokio::test]
async fn the_message_names_the_status_and_what_the_page_says() {
    let long: &'static str = "say it again ".repeat(100).leak();
    for (status, kind, text, said) in [
        (
            429,
            "text/html",
            "<h1>Slow\r\n down</h1>\n",
            "429 Too Many Requests, came back: <h1>Slow down</h1>",
        ),
        (
            404,
            "application/json",
            "{\"error\": \"no route\"}",
            "404 Not Found, came back: {\"error\": \"no route\"}",
        ),
        (
            503,
            "image/png",
            "\u{fffd}PNG",
            "503 Service Unavailable, came back",
        ),
        (500, "text/plain", long, &long[..200]),
    ] {
        let script = page(status, kind, text);
        let result = result_amid_others("a page", script, Stays, call("", "hostile")).await;
        let message = &error(&result).message;
        assert!(message.ends_with(said), "{message}");
        assert!(message.contains(&status.to_string()), "{message}");
    }
}

#[tokio::test]
async fn a_grpc_status_decides_wherever_it_is() {
    let html = |status| http_head(status, "text/html");
    let alone = |head| vec![Step::TrailersOnly(head)];
    let scripts = [
        (
            "of 204",
            alone(with_status(http_head(204, "application/grpc"), b"14")),
        ),
        ("of 503", alone(with_status(html(503), b"14"))),
        ("before a page", answer_after(with_status(html(200), b"14"))),
    ];
    check(own(Code::Unavailable), Stays, scripts).await;
    let after = |status| {
        let mut script = page(status, "text/html", "<h1>");
        script[2] = Step::Trailers(fields([("grpc-status", b"5")]));
        script
    };
    let scripts = [("after a page", after(200)), ("after an error", after(502))];
    check(own(Code::NotFound), Stays, scripts).await;
    let ok_before = with_status(html(500), b"0");
    let mut no_trailers = answer_after(with_status(head(), b"0"));
    no_trailers[2] = Step::EndStream;
    let scripts = [
        (
            "OK after 500",
            answer_after(http_head(500, "application/grpc")),
        ),
        ("OK after no type", answer_after(Response::new(()))),
        ("OK before the message", answer_after(ok_before)),
        ("OK nowhere else", no_trailers),
        (
            "a suffix",
            answer_after(http_head(200, "application/grpc+proto")),
        ),
        (
            "a parameter",
            answer_after(http_head(200, "application/grpc;a=b")),
        ),
    ];
    check(answered(), Stays, scripts).await;
    let observation = json::encode_value(&"x".repeat(100).into());
    let mut script = answer_with(message(observation));
    script[0] = Step::Head(html(503));
    let expected = Seen::Ok("x".repeat(100).into());
    check(expected, Stays, [("OK after a page", script)]).await;
}

#[tokio::test]
async fn what_only_looks_like_grpc_is_not() {
    for kind in [
        "application/grpc-web",
        "application/grpcfoo",
        "application/json",
    ] {
        let mut script = answer_after(http_head(200, kind));
        script[2] = Step::EndStream;
        check(not_grpc(Code::Unknown), Stays, [("another type", script)]).await;
    }
}

#[tokio::test]
async fn a_page_is_not_read_for_ever() {
    let line = Step::Data(Bytes::from_static(&[b'x'; 1000]));
    let without_end = |step| vec![Step::Head(http_head(404, "text/plain")), step];
    for (what, script) in [
        ("no end", without_end(line.clone())),
        (
            "no end in sight",
            without_end(Step::Forever(Box::new(line))),
        ),
    ] {
        let result = result_amid_others(what, script, Stays, call("", "hostile")).await;
        assert_eq!(seen(&result), not_grpc(Code::Unimplemented), "{what}");
        assert!(length(result.duration) < ms(15_000), "{what}");
        let quoted = format!(": {}", "x".repeat(200));
        assert!(error(&result).message.ends_with(&quoted), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_means_unavailable_is_tried_again_and_nothing_else() {
    for (status, attempts) in [
        (429, 3),
        (502, 3),
        (503, 3),
        (504, 3),
        (400, 1),
        (401, 1),
        (403, 1),
        (404, 1),
        (500, 1),
    ] {
        for idempotent in [true, false] {
            let service = Timed::new(page(status, "text/html", "<h1>"), ms(1));
            let tool = if idempotent {
                "retry = { max_attempts = 3 }\nidempotent = true"
            } else {
                ""
            };
            let client = service.client(tool).await;
            let result = results(&client, vec![call("", "tool")]).await.remove(0);
            let expected = if idempotent { attempts } else { 1 };
            assert_eq!(result.attempts, expected, "{status}, {idempotent}");
        }
    }
}

#[tokio::test]
async fn a_status_is_digits_and_nothing_else() {
    let invalid = failed(Code::Internal, "INVALID_RESPONSE", "done");
    for code in [
        &b"+0"[..],
        b"00",
        b"-0",
        b"0x0",
        b"+5",
        b"05",
        b"005",
        b"",
        b" ",
        b"0 5",
        b"NOT_FOUND",
        b"OK",
        b"1.0",
        b"\xd9\xa5",
        b"0,0",
    ] {
        for whole in [true, false] {
            let mut script = answer_with(framed(0, 0, b""));
            script[2] = Step::Trailers(fields([("grpc-status", code)]));
            if !whole {
                script = vec![Step::TrailersOnly(with_status(head(), code))];
            }
            let what = str::from_utf8(code).unwrap_or_default().to_owned().leak();
            check(invalid.clone(), Stays, [(&*what, script)]).await;
        }
    }
    let with = |trailers| {
        let mut script = answer_with(framed(0, 0, b""));
        script[2] = Step::Trailers(trailers);
        script
    };
    // Two that differ say nothing; twice the same says it.
    let mut twice = fields([("grpc-status", b"0")]);
    twice.append("grpc-status", "0".parse().unwrap());
    check(answered(), Stays, [("twice OK", with(twice.clone()))]).await;
    twice.append("grpc-status", "5".parse().unwrap());
    check(invalid, Stays, [("two", with(twice))]).await;
    // What is a number, but of no status that we know.
    for code in [&b"17"[..], b"100", b"4294967296", b"99999999999999999999"] {
        let script = vec![Step::TrailersOnly(with_status(head(), code))];
        check(own(Code::Unknown), Stays, [("unknown", script)]).await;
    }
}
