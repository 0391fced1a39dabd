use std::sync::Arc;

use bytes::Bytes;
use fanfare::{
    catalog::Catalog,
    config::{Compression, Config},
    json,
    pb::{self, tool_execution_result::Outcome},
    server::Server,
    transport::gzip::deflate,
};
use tonic::Code;

use crate::support::{
    Seen, call, config, failed,
    hostile::{Step, answer_with, fields, framed, head, message},
    ms,
    pipes::{self, PipeConnect},
    results, seen,
    timed::Timed,
    tools::echo,
};

const LIMIT: usize = 1 << 20;

/// The result of a tool that answers with these bytes, flagged as compressed or not.
async fn result_of(
    encoding: Option<&'static [u8]>,
    flag: u8,
    body: &[u8],
) -> pb::ToolExecutionResult {
    let mut script = answer_with(framed(flag, body.len(), body));
    if let Some(encoding) = encoding {
        let mut head = head();
        head.headers_mut()
            .extend(fields([("grpc-encoding", encoding)]));
        script[0] = Step::Head(head);
    }
    let service = Timed::new(script, ms(1));
    let client = service.client("").await;
    let result = results(&client, vec![call("", "tool")]).await.remove(0);
    for head in service.heads() {
        assert_eq!(head["grpc-accept-encoding"], "identity,gzip");
        assert!(!head.contains_key("grpc-encoding"));
    }
    result
}

/// A `CallToolResponse` of so many bytes.
fn response(bytes: usize) -> Bytes {
    let observation = |length| json::encode_value(&"x".repeat(length).into());
    let overhead = message(observation(bytes)).len() - 5 - bytes;
    message(observation(bytes - overhead)).slice(5..)
}

fn gzip(message: &[u8]) -> Bytes {
    deflate(message).expect("less")
}

/// gzip of nothing.
const EMPTY: [u8; 20] = [
    0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

#[tokio::test(start_paused = true)]
async fn a_compressed_answer_is_what_it_stands_for() {
    for bytes in [500, LIMIT] {
        let response = response(bytes);
        assert_eq!(response.len(), bytes);
        let (first, last) = response.split_at(400);
        let members = [gzip(first), gzip(&[last, &[]].concat())].concat();
        for body in [gzip(&response), members.into()] {
            let result = result_of(Some(b"gzip"), 1, &body).await;
            let Some(Outcome::Observation(observation)) = &result.outcome else {
                panic!("{:?}", result.outcome);
            };
            assert!(response.ends_with(observation), "another observation");
        }
    }
    let null = Seen::Ok(serde_json::Value::Null);
    let result = result_of(Some(b"gzip"), 1, &EMPTY).await;
    assert_eq!(seen(&result), null);
    // Each message says for itself whether it is compressed.
    for encoding in [&b"gzip"[..], b"identity", b"snappy"] {
        let result = result_of(Some(encoding), 0, b"").await;
        assert_eq!(seen(&result), null);
    }
}

#[tokio::test(start_paused = true)]
async fn what_inflates_to_more_than_the_limit_is_too_large() {
    let too_large = failed(Code::ResourceExhausted, "RESULT_TOO_LARGE", "done");
    let result = result_of(Some(b"gzip"), 1, &gzip(&response(LIMIT + 1))).await;
    assert_eq!(seen(&result), too_large);
    // 1 MB that stands for 1 GB.
    let bomb = gzip(&vec![0; LIMIT]).repeat(980);
    assert!((1_000_000..=LIMIT).contains(&bomb.len()), "{}", bomb.len());
    let result = result_of(Some(b"gzip"), 1, &bomb).await;
    assert_eq!(seen(&result), too_large);
    // One that would not fit in whatever way.
    let result = result_of(Some(b"gzip"), 1, &vec![0; 2 * LIMIT]).await;
    assert_eq!(seen(&result), too_large);
}

#[tokio::test(start_paused = true)]
async fn what_is_compressed_otherwise_or_not_whole_is_invalid() {
    let invalid = failed(Code::Internal, "INVALID_RESPONSE", "done");
    let whole = gzip(&response(500));
    let followed = [&whole[..], b"garbage"].concat();
    for (what, encoding, body) in [
        ("cut", Some(&b"gzip"[..]), &whole[..whole.len() - 1]),
        ("followed", Some(b"gzip"), &followed),
        ("nothing", Some(b"gzip"), b""),
        ("no gzip", Some(b"gzip"), b"zip"),
        ("no encoding", None, &whole),
        ("identity", Some(b"identity"), &whole),
        ("another", Some(b"deflate"), &whole),
        ("two", Some(b"gzip,gzip"), &whole),
    ] {
        let result = result_of(encoding, 1, body).await;
        assert_eq!(seen(&result), invalid, "{what}");
    }
    let result = result_of(Some(b"gzip"), 2, &whole).await;
    assert_eq!(seen(&result), invalid, "an unknown flag");
}

#[tokio::test(start_paused = true)]
async fn requests_are_compressed_where_that_is_asked_for_and_helps() {
    let echo = Arc::new(Server::tools(&config(), echo()).await);
    for (compression, expected) in [
        (Compression::None, [None, None, None]),
        (Compression::Gzip, [None, Some("gzip"), Some("gzip")]),
    ] {
        let toml = "[services.a]\nendpoint = \"http://a\"\n[tools.tool]\nservice = \"a\"";
        let mut config = Config::parse(toml).unwrap();
        config.services.get_mut("a").unwrap().compression = compression;
        let understood =
            Catalog::with_connect(&config, |_| Arc::new(PipeConnect(Arc::clone(&echo))));
        let understood = pipes::client(&config, understood).await;
        let noted = Timed::new(answer_with(framed(0, 0, b"")), ms(1));
        let noting = Catalog::with_connect(&config, |_| Arc::new(noted.clone()));
        let noting = pipes::client(&config, noting).await;
        for bytes in [1, 500, 100_000] {
            // Opaque to us: any Value will do.
            let arguments = json::encode_value(&"x".repeat(bytes).into());
            let call = pb::ToolCall {
                arguments: Some(arguments.clone()),
                ..call("id", "tool")
            };
            let result = results(&understood, vec![call.clone()]).await.remove(0);
            assert_eq!(result.outcome, Some(Outcome::Observation(arguments)));
            results(&noting, vec![call]).await;
        }
        let heads = noted.heads();
        let encodings = heads.iter().map(|head| head.get("grpc-encoding"));
        let encodings: Vec<_> = encodings
            .map(|value| value.map(|value| value.to_str().unwrap()))
            .collect();
        assert_eq!(encodings, expected);
    }
}
