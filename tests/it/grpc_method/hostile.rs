//! Replies that are not what they should be.

use h2::Reason;

use super::*;
use crate::support::{
    call_with,
    hostile::{Hostile, Script, Step, answer_with, fields, framed, head, http_head, message},
    lost,
};

const MANY: &str = "[tools.many]\nservice = 'a'\nremote = 'test.Many/Call'\nstream = 'collect'\n\
                    [tools.brief]\nservice = 'a'\nremote = 'test.Many/Call'\n\
                    stream = 'collect'\ntimeout = '300ms'\n\
                    [limits]\nmax_result_bytes = '64KiB'\n";

/// What a call of that tool comes to, if it is answered so.
async fn played(tool: &str, script: Script) -> pb::ToolExecutionResult {
    let service = Hostile::start(script).await;
    let file = descriptors();
    let config = settings(&format!("http://{}", service.address), &file, MANY);
    let client = known(&config, Discovery::new(&config)).await;
    result(&client, call_with("", tool, json!({"name": "hostile"}))).await
}

fn one() -> Bytes {
    message(json::encode_value(&json!("one")))
}

fn invalid_response(effect: &str) -> Seen {
    failed(Code::Internal, "INVALID_RESPONSE", effect)
}

fn ok() -> Step {
    Step::Trailers(fields([("grpc-status", b"0")]))
}

#[tokio::test]
async fn replies_that_are_not_of_its_type_are_invalid() {
    // A CallToolResponse whose observation has a kind of the wrong type, and one cut short.
    let wrong = [0x0a, 2, 0x19, 0];
    let cut = [0x0a, 9, 0x1a];
    // No text that is one.
    let no_text = [0x0a, 3, 0x1a, 1, 0xff];
    for tool in ["call", "many"] {
        for reply in [&wrong[..], &cut, &no_text, &[0xff; 16]] {
            let script = answer_with(framed(0, reply.len(), reply));
            let result = played(tool, script).await;
            assert_eq!(seen(&result), invalid_response("done"), "{tool} {reply:?}");
            let message = &error(&result).message;
            assert!(message.contains("fanfare.v1.CallToolResponse"), "{message}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_does_not_end_well_has_no_observation() {
    let failure = fields([("grpc-status", b"5"), ("grpc-message", b"no more")]);
    let own = failed(Code::NotFound, "TOOL_FAILED", "done");
    let too_large = failed(Code::ResourceExhausted, "RESULT_TOO_LARGE", "done");
    let page = http_head(404, "text/html");
    let large = message(json::encode_value(&"x".repeat(40_000).into()));
    let many = vec![&*one(); 20].concat();
    for (what, script, expected) in [
        (
            "items, then a status",
            vec![
                Step::Head(head()),
                Step::Data(one()),
                Step::Trailers(failure),
            ],
            own,
        ),
        (
            "no status",
            vec![Step::Head(head()), Step::Data(one()), Step::EndStream],
            invalid_response("maybe"),
        ),
        (
            "half an item",
            vec![Step::Head(head()), Step::Data(one().slice(..7)), ok()],
            invalid_response("maybe"),
        ),
        (
            "reset",
            vec![
                Step::Head(head()),
                Step::Data(one()),
                Step::Reset(Reason::INTERNAL_ERROR),
            ],
            lost("maybe"),
        ),
        (
            "too large a message",
            vec![Step::Head(head()), Step::Data(framed(0, 1 << 30, b"x"))],
            too_large.clone(),
        ),
        (
            "too many bytes in all",
            vec![
                Step::Head(head()),
                Step::Data(large.clone()),
                Step::Data(large),
                ok(),
            ],
            too_large.clone(),
        ),
        (
            "no end",
            vec![
                Step::Head(head()),
                Step::Forever(Box::new(Step::Data(many.into()))),
            ],
            too_large.clone(),
        ),
        (
            "no end of nothing",
            vec![
                Step::Head(head()),
                Step::Forever(Box::new(Step::Data(vec![0; 500].into()))),
            ],
            too_large,
        ),
        (
            "a page",
            vec![
                Step::Head(page),
                Step::Data(Bytes::from_static(b"what?")),
                Step::EndStream,
            ],
            failed(Code::Unimplemented, "INVALID_RESPONSE", "maybe"),
        ),
        (
            "an unknown flag",
            vec![Step::Head(head()), Step::Data(framed(7, 1, b"x")), ok()],
            invalid_response("done"),
        ),
    ] {
        assert_eq!(seen(&played("many", script).await), expected, "{what}");
    }
    let unended = vec![Step::Head(head()), Step::Data(one())];
    assert_eq!(
        seen(&played("brief", unended).await),
        expired("maybe", "tool")
    );
}

#[tokio::test]
async fn a_stream_may_come_in_any_pieces() {
    let bytes = [one(), one(), message(Bytes::new())].concat();
    let list = Seen::Ok(json!([{"observation": "one"}, {"observation": "one"}, {}]));
    for size in [1, 3, 7, bytes.len()] {
        let mut script = vec![Step::Head(head())];
        let pieces = bytes.chunks(size).map(Bytes::copy_from_slice);
        script.extend(pieces.map(Step::Data));
        script.push(ok());
        assert_eq!(seen(&played("many", script).await), list, "{size}");
    }
    let nothing = vec![Step::Head(head()), ok()];
    assert_eq!(seen(&played("many", nothing).await), Seen::Ok(json!([])));
    let trailers_only = {
        let mut head = head();
        head.headers_mut().extend(fields([("grpc-status", b"0")]));
        vec![Step::TrailersOnly(head)]
    };
    assert_eq!(
        seen(&played("many", trailers_only).await),
        Seen::Ok(json!([]))
    );
}
