use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use fanfare::{
    core::{
        admission::Full,
        error::{CallError, Effect, Limit, Reason, ToolStatus},
        status::Code,
    },
    orchestrator::wire::status::{self, Violations},
};
use tonic::Status;
use tonic_types::StatusExt as _;

const README: &str = include_str!("../../README.md");

/// The cells of each row of a table, without their code marks.
fn rows(table: &str) -> Vec<Vec<String>> {
    let begin = format!("<!-- errors:{table} -->");
    let (_, rest) = README.split_once(&begin).expect("the table's begin");
    let (text, _) = rest.split_once("<!-- end -->").expect("the table's end");
    let rows = text.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| row.split('|').map(|cell| cell.trim().replace('`', "")))
        .map(|cells| cells.skip(1).collect())
        .collect()
}

/// As gRPC writes it: `NOT_FOUND`.
fn name(code: i32) -> String {
    Code::from_number(code).name().to_owned()
}

/// One of each reason, and of each code that Fanfare gives it.
fn reasons() -> Vec<Reason> {
    let mut all = vec![Reason::UnknownTool(None)];
    while let Some(next) = match all[all.len() - 1] {
        Reason::UnknownTool(_) => Some(Reason::InvalidArguments(Vec::new())),
        Reason::InvalidArguments(_) => Some(Reason::ToolFailed(ToolStatus {
            code: Code::DataLoss,
            details: Bytes::new(),
        })),
        Reason::ToolFailed(_) => Some(Reason::DeadlineExceeded(Limit::Call)),
        Reason::DeadlineExceeded(_) => Some(Reason::ToolUnavailable),
        Reason::ToolUnavailable => Some(Reason::Cancelled),
        Reason::Cancelled => Some(Reason::Overloaded),
        Reason::Overloaded => Some(Reason::CircuitOpen),
        Reason::CircuitOpen => Some(Reason::ResultTooLarge),
        Reason::ResultTooLarge => Some(Reason::InvalidResponse(Code::Internal)),
        Reason::InvalidResponse(_) => Some(Reason::Internal),
        Reason::Internal => None,
    } {
        all.push(next);
    }
    all
}

#[test]
fn the_table_of_failed_calls_has_each_reason_with_its_code() {
    let rows = rows("calls");
    let effects = [Effect::NotStarted, Effect::Maybe, Effect::Done].map(Effect::as_str);
    let mut listed = BTreeSet::new();
    for row in &rows {
        let effects_are_known = row[3].split(", ").all(|word| effects.contains(&word));
        assert!(effects_are_known, "{row:?}");
        // Whatever the tool or a proxy says.
        if row[1] != "the tool's own" && !row[1].starts_with("[by HTTP status]") {
            listed.insert((row[0].clone(), row[1].clone()));
        }
    }
    let mut given = BTreeSet::new();
    for reason in reasons() {
        let is_its_own = matches!(reason, Reason::ToolFailed(_));
        let word = reason.as_str().to_owned();
        assert!(rows.iter().any(|row| row[0] == word), "{word}");
        let error = CallError::new(reason, Effect::Maybe, false, String::new());
        let code = status::of_call_error(error).code;
        if !is_its_own {
            given.insert((word, name(code)));
        }
    }
    assert_eq!(listed, given);
    let expired = rows.iter().find(|row| row[0] == "DEADLINE_EXCEEDED");
    for limit in [Limit::Call, Limit::Tool, Limit::Request, Limit::Server] {
        let what = &expired.expect("a row")[2];
        assert!(what.contains(limit.as_str()), "{limit:?}: {what}");
    }
}

#[test]
fn the_table_of_failed_requests_has_each_status() {
    let mut violations = Violations::default();
    violations.add("calls", "must not be empty");
    let statuses = [
        Status::from(violations),
        Status::from(Full { max: 1 }),
        status::overloaded(),
        status::draining(),
        status::no_time_left(),
        status::not_complete(Duration::ZERO),
        status::headers_too_long(2, 1),
        status::request_too_large(1, None),
        status::list_too_large(1, 2, 1),
        status::no_such_method("", ""),
        status::malformed(""),
        status::not_one_message(""),
        status::unknown_compression(""),
        status::answer_is_late(),
        status::read_too_slowly(),
        status::internal(),
    ];
    let given: BTreeSet<_> = statuses
        .iter()
        .map(|status| {
            let info = status.get_details_error_info().expect("an ErrorInfo");
            (name(status.code().into()), info.reason)
        })
        .collect();
    let ours = rows("requests").into_iter().filter(|row| row[1] != "none");
    let listed: BTreeSet<_> = ours.map(|row| (row[0].clone(), row[1].clone())).collect();
    assert_eq!(listed, given);
}
