use bytes::Bytes;
use fanfare::pb::{self, tool_execution_result::Outcome};
use prost::Message as _;
use prost_types::{ListValue, Struct, Value, value::Kind};
use tonic::Code;

use crate::support::{Seen, call, config, failed, pipes, request, seen, tools::echo};

fn of(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn list(values: Vec<Value>) -> Value {
    of(Kind::ListValue(ListValue { values }))
}

fn object(value: Value) -> Value {
    let fields = [("key".to_owned(), value)].into_iter().collect();
    of(Kind::StructValue(Struct { fields }))
}

#[tokio::test(start_paused = true)]
async fn an_observation_that_json_can_not_say_fails_its_call_alone() {
    let odd = [
        of(Kind::NumberValue(f64::NAN)),
        of(Kind::NumberValue(f64::INFINITY)),
        of(Kind::NumberValue(f64::NEG_INFINITY)),
        Value { kind: None },
    ];
    let fine = of(Kind::NumberValue(1.0));
    let mut observations = vec![Some(fine.clone()), None];
    for odd in odd {
        let deep = (0..30).fold(odd.clone(), |inner, depth| {
            if depth % 2 == 0 {
                list(vec![fine.clone(), inner])
            } else {
                object(inner)
            }
        });
        observations.extend([odd, deep].map(Some));
    }
    let calls = observations.iter().map(|observation| pb::ToolCall {
        arguments: observation
            .as_ref()
            .map(|value| value.encode_to_vec().into()),
        ..call("", "echo")
    });
    let request = request(calls.collect());
    let mut client = pipes::client_of_service(config(), echo(), &["echo"]).await;

    let response = client.execute_tools(request.clone()).await.unwrap();

    let results = response.into_inner().results;
    assert_eq!(seen(&results[0]), Seen::Ok(1.into()));
    // `null_value`.
    let null = Outcome::Observation(Bytes::from_static(&[8, 0]));
    assert_eq!(results[1].outcome, Some(null));
    let expected = failed(Code::Internal, "INVALID_RESPONSE", "done");
    for result in &results[2..] {
        assert_eq!(seen(result), expected);
    }

    // What every caller gets, they can print: nothing else is left in the stream.
    let stream = client.stream_execute_tools(request).await.unwrap();
    let mut stream = stream.into_inner();
    let mut completions = 0;
    while let Some(message) = stream.message().await.unwrap() {
        if let Some(pb::stream_execute_tools_response::Event::Completion(result)) = message.event {
            let is_odd = result.index >= 2;
            assert_eq!(seen(&result) == expected, is_odd, "{result:?}");
            completions += 1;
        }
    }
    assert_eq!(completions, results.len());
}
