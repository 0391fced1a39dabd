//! The demo tools: small tools that answer, wait, fail, hang or crash on
//! request, behind the contract that any remote tool service implements.
//!
//! Each call leaves its trace in the `ledger`.

mod definitions;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use prost::Message as _;
use prost_types::{Value, value::Kind};
use serde_json::{Map, Value as Json, json};
use tonic::{Code, Request, Response, Status};

use super::ledger;
use crate::{
    core::status,
    json,
    pb::{
        CallToolRequest, CallToolResponse, ListToolsRequest, ListToolsResponse,
        tool_service_server::ToolService,
    },
    waterfall,
};

/// The longest string that `payload` returns, in bytes: 256 MiB.
pub const MAX_PAYLOAD_BYTES: u64 = 256 << 20;
/// How many keys `flaky` remembers. Beyond it the oldest is forgotten.
pub const MAX_FLAKY_KEYS: usize = 10_000;
/// The longest key of `flaky`, in bytes.
pub const MAX_FLAKY_KEY_BYTES: usize = 256;

/// The tool service of the demo.
///
/// | tool | arguments | does |
/// |---|---|---|
/// | `echo` | any | returns its arguments, byte for byte |
/// | `sleep` | `seconds` | waits, then returns `{"slept_seconds": n}` |
/// | `fail` | `code` (number, or name such as `"NOT_FOUND"`), `message` | fails with that status |
/// | `flaky` | `key`, `failures` | `UNAVAILABLE` for the first so many calls with this key, then returns `{"key": key, "attempts": n}` |
/// | `hang` | | never answers |
/// | `payload` | `bytes` | returns a string of that length, at most [`MAX_PAYLOAD_BYTES`] |
/// | `panic` | | panics in the handler |
/// | `crash` | | aborts the process |
///
/// Missing or wrong arguments are `INVALID_ARGUMENT`, other tools `UNIMPLEMENTED`.
///
/// Clones share the memory of `flaky`.
#[derive(Clone, Debug, Default)]
pub struct DemoTools {
    flaky: Arc<Mutex<Attempts>>,
}

impl DemoTools {
    /// The tools, with nothing remembered.
    pub fn new() -> Self {
        Self::default()
    }

    async fn run(&self, tool: &str, encoded: Bytes) -> Result<Bytes, Status> {
        if tool == "echo" {
            return Ok(struct_value(encoded));
        }
        let arguments = json::decode_struct(&encoded)
            .map_err(|error| Status::invalid_argument(format!("arguments: {error}")))?;
        match tool {
            "sleep" => sleep(&arguments).await,
            "fail" => Err(requested_failure(&arguments)?),
            "flaky" => self.flaky(&arguments),
            "hang" => std::future::pending().await,
            "payload" => payload(&arguments),
            "panic" => panic!("the demo tool \"panic\" was called"),
            "crash" => {
                crate::logging::flush();
                std::process::abort()
            }
            _ => {
                let shown = waterfall::cut(&crate::logging::escaped(tool), MAX_SHOWN);
                Err(Status::unimplemented(format!("no demo tool `{shown}`")))
            }
        }
    }

    fn flaky(&self, arguments: &Map<String, Json>) -> Result<Bytes, Status> {
        let must = format!("a string of at most {MAX_FLAKY_KEY_BYTES} bytes");
        let key = argument(arguments, "key", &must, |json| {
            let key = json.as_str()?;
            (key.len() <= MAX_FLAKY_KEY_BYTES).then_some(key)
        })?;
        let failures = argument(arguments, "failures", "a whole number", Json::as_u64)?;

        let mut attempts = self.flaky.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = attempts.count(key);
        drop(attempts);
        if attempt <= failures {
            let message = format!("failure {attempt} of {failures}, as requested");
            return Err(Status::unavailable(message));
        }
        Ok(json::encode_value(
            &json!({"key": key, "attempts": attempt}),
        ))
    }
}

#[tonic::async_trait]
impl ToolService for DemoTools {
    async fn call_tool(
        &self,
        request: Request<CallToolRequest>,
    ) -> Result<Response<CallToolResponse>, Status> {
        let entry = ledger::Entry::start(&request);
        let CallToolRequest {
            name, arguments, ..
        } = request.into_inner();

        let result = self.run(&name, arguments.unwrap_or_default()).await;
        let code = result.as_ref().err().map_or(Code::Ok, Status::code);
        entry.answered(status::Code::from_number(code.into()));
        result.map(|observation| {
            Response::new(CallToolResponse {
                observation: Some(observation),
            })
        })
    }

    async fn list_tools(
        &self,
        _: Request<ListToolsRequest>,
    ) -> Result<Response<ListToolsResponse>, Status> {
        let tools = definitions::tools();
        Ok(Response::new(ListToolsResponse {
            tools,
            ..ListToolsResponse::default()
        }))
    }
}

/// How often each key of `flaky` was called.
#[derive(Debug, Default)]
struct Attempts {
    by_key: HashMap<String, u64>,
    oldest_first: VecDeque<String>,
}

impl Attempts {
    fn count(&mut self, key: &str) -> u64 {
        if let Some(attempts) = self.by_key.get_mut(key) {
            *attempts += 1;
            return *attempts;
        }
        if self.oldest_first.len() == MAX_FLAKY_KEYS
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.by_key.remove(&oldest);
        }
        self.oldest_first.push_back(key.to_owned());
        self.by_key.insert(key.to_owned(), 1);
        1
    }
}

/// `google.protobuf.Value`, its struct left encoded: the two look the same on
/// the wire.
#[derive(Clone, PartialEq, prost::Message)]
struct OpaqueStructValue {
    #[prost(bytes = "bytes", optional, tag = "5")]
    struct_value: Option<Bytes>,
}

fn struct_value(encoded: Bytes) -> Bytes {
    let value = OpaqueStructValue {
        struct_value: Some(encoded),
    };
    value.encode_to_vec().into()
}

async fn sleep(arguments: &Map<String, Json>) -> Result<Bytes, Status> {
    let must = "a number of seconds, at least 0";
    let length = argument(arguments, "seconds", must, |json| {
        Duration::try_from_secs_f64(json.as_f64()?).ok()
    })?;
    tokio::time::sleep(length).await;
    Ok(json::encode_value(
        &json!({"slept_seconds": length.as_secs_f64()}),
    ))
}

fn requested_failure(arguments: &Map<String, Json>) -> Result<Status, Status> {
    let must = "the number (1 to 16) or the name of a gRPC code other than OK";
    let code = argument(arguments, "code", must, |json| {
        let is_meant = |code: &status::Code| match json.as_str() {
            Some(name) => code.name() == name,
            None => json.as_i64() == Some(code.number().into()),
        };
        let code = status::Code::ALL.into_iter().find(is_meant)?;
        (code != status::Code::Ok).then(|| Code::from_i32(code.number()))
    })?;
    let message = match arguments.contains_key("message") {
        true => argument(arguments, "message", "a string", Json::as_str)?,
        false => "as requested",
    };
    Ok(Status::new(code, message))
}

fn payload(arguments: &Map<String, Json>) -> Result<Bytes, Status> {
    let must = format!("a whole number of at most {MAX_PAYLOAD_BYTES}");
    let length = argument(arguments, "bytes", &must, |json| {
        let length = json
            .as_u64()
            .filter(|&length| length <= MAX_PAYLOAD_BYTES)?;
        usize::try_from(length).ok()
    })?;
    let value = Value {
        kind: Some(Kind::StringValue("x".repeat(length))),
    };
    Ok(value.encode_to_vec().into())
}

/// How much of what the caller sent is repeated in an error, in characters: the
/// message travels in a header.
const MAX_SHOWN: usize = 100;

/// Reads one argument; `read` returns `None` for a value that is not what it must
/// be.
fn argument<'a, T>(
    arguments: &'a Map<String, Json>,
    name: &str,
    must: &str,
    read: impl FnOnce(&'a Json) -> Option<T>,
) -> Result<T, Status> {
    let given = arguments.get(name);
    given.and_then(read).ok_or_else(|| {
        let fault = given.map_or_else(
            || "is missing".to_owned(),
            |json| format!("is {}", waterfall::cut(&json.to_string(), MAX_SHOWN)),
        );
        Status::invalid_argument(format!("argument `{name}` must be {must}, {fault}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn call(tools: &DemoTools, tool: &str, arguments: Json) -> Result<Json, Status> {
        let request = CallToolRequest {
            id: "call_1".to_owned(),
            name: tool.to_owned(),
            arguments: arguments.as_object().map(json::encode_struct),
            attempt: 1,
        };
        let response = tools.call_tool(Request::new(request)).await?;
        let observation = response.into_inner().observation.unwrap();
        Ok(json::decode_value(&observation).unwrap())
    }

    async fn code(tool: &str, arguments: Json) -> Code {
        let result = call(&DemoTools::new(), tool, arguments).await;
        result.map_or_else(|status| status.code(), |_| Code::Ok)
    }

    #[tokio::test]
    async fn echo_returns_its_arguments() {
        let tools = DemoTools::new();
        let arguments = json!({"city": "Köln", "days": [1, 2.5, null]});
        let echoed = call(&tools, "echo", arguments.clone()).await.unwrap();
        assert_eq!(echoed, arguments);
        assert_eq!(call(&tools, "echo", Json::Null).await.unwrap(), json!({}));
    }

    #[tokio::test(start_paused = true)]
    async fn sleep_takes_as_long_as_it_is_told() {
        let start = tokio::time::Instant::now();
        let slept = call(&DemoTools::new(), "sleep", json!({"seconds": 2.5})).await;
        assert_eq!(slept.unwrap(), json!({"slept_seconds": 2.5}));
        assert_eq!(start.elapsed(), Duration::from_millis(2500));
    }

    #[tokio::test(start_paused = true)]
    async fn hang_never_answers() {
        let tools = DemoTools::new();
        let year = Duration::from_secs(365 * 24 * 3600);
        let hanging = call(&tools, "hang", json!({}));
        assert!(tokio::time::timeout(year, hanging).await.is_err());
    }

    #[tokio::test]
    async fn fail_fails_as_requested() {
        let tools = DemoTools::new();
        let named = json!({"code": "NOT_FOUND", "message": "no such city"});
        let status = call(&tools, "fail", named).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::NotFound, "no such city")
        );
        let silent = json!({"code": "NOT_FOUND"});
        let status = call(&tools, "fail", silent).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::NotFound, "as requested")
        );
        let numbered = json!({"code": 16, "message": ""});
        assert_eq!(code("fail", numbered).await, Code::Unauthenticated);
    }

    #[tokio::test]
    async fn flaky_counts_the_calls_of_each_key() {
        let tools = DemoTools::new();
        for key in ["a", "b"] {
            let arguments = json!({"key": key, "failures": 2});
            for _ in 0..2 {
                let status = call(&tools, "flaky", arguments.clone()).await.unwrap_err();
                assert_eq!(status.code(), Code::Unavailable);
            }
            let answer = call(&tools.clone(), "flaky", arguments).await.unwrap();
            assert_eq!(answer, json!({"key": key, "attempts": 3}));
        }
    }

    #[test]
    fn flaky_forgets_the_oldest_key() {
        let mut attempts = Attempts::default();
        for key in 0..=MAX_FLAKY_KEYS {
            attempts.count(&key.to_string());
        }
        assert_eq!(attempts.by_key.len(), MAX_FLAKY_KEYS);
        assert_eq!(attempts.count("1"), 2);
        assert_eq!(attempts.count("0"), 1);
    }

    #[tokio::test]
    async fn payload_has_exactly_the_length_asked_for() {
        for length in [0, 1, 100_000] {
            let payload = call(&DemoTools::new(), "payload", json!({"bytes": length})).await;
            assert_eq!(payload.unwrap().as_str().unwrap().len(), length);
        }
    }

    #[tokio::test]
    #[should_panic(expected = "the demo tool \"panic\" was called")]
    async fn panic_panics() {
        let _ = call(&DemoTools::new(), "panic", json!({})).await;
    }

    #[tokio::test]
    async fn wrong_arguments_are_refused() {
        for (tool, arguments) in [
            ("sleep", json!({})),
            ("sleep", json!({"seconds": -1})),
            ("sleep", json!({"seconds": "3"})),
            ("fail", json!({"code": 0, "message": ""})),
            ("fail", json!({"code": "OK", "message": ""})),
            ("fail", json!({"code": 17, "message": ""})),
            ("fail", json!({"code": "NOT_FOUND", "message": 1})),
            ("fail", json!({"message": "no code"})),
            ("flaky", json!({"key": "k".repeat(257), "failures": 1})),
            ("flaky", json!({"key": "k", "failures": 0.5})),
            ("payload", json!({"bytes": MAX_PAYLOAD_BYTES + 1})),
        ] {
            let shown = format!("{tool} {arguments}");
            assert_eq!(
                code(tool, arguments).await,
                Code::InvalidArgument,
                "{shown}"
            );
        }
        let status = call(&DemoTools::new(), "sleep", json!({"seconds": "3"})).await;
        assert_eq!(
            status.unwrap_err().message(),
            "argument `seconds` must be a number of seconds, at least 0, is \"3\""
        );
        assert_eq!(code("brew", json!({})).await, Code::Unimplemented);
    }
}
