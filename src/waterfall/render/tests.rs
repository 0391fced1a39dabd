//! Rows and tables, narrow and wide, of results that are well and that are not.

use serde_json::{Value as Json, json};

use super::*;

pub(in crate::waterfall) fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

pub(in crate::waterfall) fn call(id: &str, seconds: f64) -> ToolCall {
    let arguments = json!({"seconds": seconds});
    ToolCall {
        id: id.to_owned(),
        name: "sleep".to_owned(),
        arguments: arguments.as_object().map(json::encode_struct),
        ..ToolCall::default()
    }
}

pub(in crate::waterfall) fn observation(json: &Json) -> Outcome {
    Outcome::Observation(json::encode_value(json))
}

pub(in crate::waterfall) fn slept(index: u32, id: &str, seconds: f64) -> ToolExecutionResult {
    let duration = prost_types::Duration::try_from(at(seconds)).unwrap();
    let start = START;
    ToolExecutionResult {
        index,
        id: id.to_owned(),
        name: "sleep".to_owned(),
        start_time: Some(start),
        end_time: Some(Timestamp {
            seconds: start.seconds + duration.seconds,
            nanos: start.nanos + duration.nanos,
        }),
        duration: Some(duration),
        attempts: 1,
        outcome: Some(observation(&json!({"slept_seconds": seconds}))),
        queue_duration: None,
    }
}

pub(in crate::waterfall) fn response(results: Vec<ToolExecutionResult>) -> ExecuteToolsResponse {
    ExecuteToolsResponse {
        results,
        start_time: Some(START),
        end_time: None,
        duration: None,
    }
}

/// 2026-01-02T03:04:05.678901234Z
const START: Timestamp = Timestamp {
    seconds: 1_767_323_045,
    nanos: 678_901_234,
};

#[test]
fn an_error_shows_its_code_and_message() {
    let mut result = slept(0, "", 1.0);
    result.outcome = Some(Outcome::Error(tonic_types::pb::Status {
        code: 5,
        message: "no such\ncity".to_owned(),
        details: vec![],
    }));
    let row = Row::ended(&result, at(1.0));
    assert_eq!(
        super::row(Style::PIPE, &[], &row, at(1.0)),
        r"  1.00 s  [0]   sleep   1.00 s  error NOT_FOUND: no such\ncity"
    );
}

#[test]
fn a_narrow_terminal_is_never_exceeded() {
    for width in 0..120 {
        let style = Style {
            live: true,
            color: false,
            width,
        };
        let result = slept(0, "東京", 1.0);
        let row = Row::ended(&result, at(1.0));
        let mut text = super::row(style, &[], &row, at(2.0)) + "\n";
        text += &calls(style, &[row], &[call("東京", 1.0)]);
        text += &table(style, at(1.0), &response(vec![result]));
        text += &closing(style, at(1.0), at(1.0));
        assert!(text.lines().all(|line| columns(line) <= width), "{text}");
    }
}

#[test]
fn a_wide_terminal_has_wide_bars() {
    let cells = |width| {
        let style = Style {
            live: true,
            color: false,
            width,
        };
        let result = slept(0, "call_a", 4.0);
        let row = [Row::ended(&result, at(4.0))];
        let bar = super::row(style, &row, &row[0], at(4.0));
        let table = table(style, at(4.0), &response(vec![result]));
        [bar, table].map(|text| text.matches('\u{2588}').count())
    };
    assert_eq!(cells(60), [4, 10]);
    assert_eq!(cells(80), [16, 10]);
    assert_eq!(cells(120), [56, 50]);
    assert_eq!(cells(1000), [100, 100]);
}

#[test]
fn nonsense_from_a_server_does_no_harm() {
    let longest = prost_types::Duration {
        seconds: i64::MAX,
        nanos: i32::MIN,
    };
    let mut result = slept(u32::MAX, "", 1.0);
    result.duration = Some(longest);
    result.start_time = Some(Timestamp {
        seconds: i64::MIN,
        nanos: i32::MIN,
    });
    result.outcome = Some(Outcome::Observation(b"\xff".as_slice().into()));
    let mut response = response(vec![result.clone()]);
    assert!(table(Style::PIPE, Duration::ZERO, &response).contains("ok "));
    response.start_time = result.start_time;
    assert!(table(Style::PIPE, Duration::ZERO, &response).contains("ok "));
}

#[test]
fn the_closing_line_compares_wall_time_and_sum() {
    assert_eq!(
        closing(Style::PIPE, at(3.01), at(6.01)),
        "wall 3.01 s, sum of the calls 6.01 s: saved 3.00 s (2.0x)\n"
    );
    assert_eq!(
        closing(Style::PIPE, at(1.0), at(0.9)),
        "wall 1.00 s, sum of the calls 0.90 s: saved 0.00 s (0.9x)\n"
    );
}
