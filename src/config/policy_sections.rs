//! The keys of retries, hedging, bulkheads and circuit breakers, once for reading
//! and once for writing.

use std::time::Duration;

use toml::de::DeValue;
use tonic::Code;

use super::{
    HedgeDelay, Tool,
    policy::{Breaker, Retry, RetryBudget},
    reader::{Reader, nearest},
    scalar::{count, count_up_to, duration, shown},
    sections::{Entry, TICK, duration_string, section, string},
};
use crate::telemetry::names;

/// gRFC A6.
const MAX_ATTEMPTS: u32 = 5;
const P95: &str = "p95";

// === Reading ===

pub(super) fn read_retry(table: &mut Reader<'_, '_>, idempotent: bool) -> Retry {
    let mut r = Retry::default();
    table.set(
        "max_attempts",
        &mut r.max_attempts,
        count_up_to(MAX_ATTEMPTS),
    );
    table.set("codes", &mut r.codes, codes);
    if !idempotent {
        table.refuse("max_attempts", NOT_IDEMPOTENT);
        table.refuse("codes", NOT_IDEMPOTENT);
    }
    table.set("initial_backoff", &mut r.initial_backoff, duration(TICK));
    r.max_backoff = r.max_backoff.max(r.initial_backoff);
    table.set("max_backoff", &mut r.max_backoff, duration(TICK));
    let patience = duration(Duration::ZERO);
    table.set("connect_patience", &mut r.connect_patience, patience);
    check_order(
        table,
        ("initial_backoff", r.initial_backoff),
        ("max_backoff", r.max_backoff),
    );
    r
}

const NOT_IDEMPOTENT: &str = "only for a tool with idempotent = true";

pub(super) fn read_hedge(table: &mut Reader<'_, '_>, idempotent: bool) -> Option<HedgeDelay> {
    let mut delay = None;
    table.require("delay", &mut delay, |value| hedge_delay(value).map(Some));
    if !idempotent {
        table.refuse("delay", NOT_IDEMPOTENT);
    }
    delay
}

pub(super) fn read_breaker(table: &mut Reader<'_, '_>, defaults: Breaker) -> Breaker {
    let mut b = defaults;
    table.set("failures", &mut b.failures, count);
    table.set("open_time", &mut b.open_time, duration(TICK));
    b.max_open_time = b.max_open_time.max(b.open_time);
    table.set("max_open_time", &mut b.max_open_time, duration(TICK));
    table.set("probes", &mut b.probes, count);
    check_order(
        table,
        ("open_time", b.open_time),
        ("max_open_time", b.max_open_time),
    );
    b
}

pub(super) fn read_budget(table: &mut Reader<'_, '_>) -> RetryBudget {
    let mut b = RetryBudget::default();
    table.set("max_tokens", &mut b.max_tokens, count);
    table.set("answers_per_token", &mut b.answers_per_token, count);
    b
}

/// The second must not be shorter than the first.
fn check_order(
    table: &mut Reader<'_, '_>,
    (first_key, first): (&'static str, Duration),
    (key, value): (&'static str, Duration),
) {
    table.check(
        value >= first,
        key,
        first_key,
        format_args!(
            "at least {first_key} ({})",
            humantime::format_duration(first)
        ),
        humantime::format_duration(value),
    );
}

fn hedge_delay(value: &DeValue<'_>) -> Result<HedgeDelay, String> {
    if value.as_str() == Some(P95) {
        return Ok(HedgeDelay::P95);
    }
    duration(TICK)(value)
        .map(HedgeDelay::Fixed)
        .map_err(|expected| format!("\"{P95}\" or {expected}"))
}

fn codes(value: &DeValue<'_>) -> Result<Vec<Code>, String> {
    const EXPECTED: &str = "a list of gRPC statuses such as \"UNAVAILABLE\"";
    let mut codes = Vec::new();
    for element in value.as_array().ok_or(EXPECTED)? {
        let element = element.get_ref();
        let name = element.as_str().unwrap_or_default();
        let known = || (1..=16).map(Code::from_i32);
        let code = known().find(|&code| names::code(code) == name);
        let code = code.ok_or_else(|| {
            let number: Option<i32> = element
                .as_integer()
                .and_then(|number| number.as_str().parse().ok());
            let nearest = match number {
                Some(number) => known().find(|&code| code as i32 == number).map(names::code),
                None => nearest(&name.to_ascii_uppercase(), known().map(names::code)),
            };
            let meant = nearest.map(|name| format!(", did you mean \"{name}\"?"));
            let meant = meant.unwrap_or_default();
            format!("{EXPECTED} ({} is none{meant})", shown(element))
        })?;
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    Ok(codes)
}

// === Writing ===

/// Of a tool, in sections of their own.
pub(super) fn tool_sections(header: &str, tool: &Tool) -> Vec<String> {
    let retry = section(&format!("{header}.retry"), &retry_entries(tool));
    let hedge = tool.hedge.map(|delay| {
        let delay = match delay {
            HedgeDelay::Fixed(delay) => duration_string(delay),
            HedgeDelay::P95 => string(&P95),
        };
        section(&format!("{header}.hedge"), &[("delay", delay)])
    });
    let breaker = breaker_section(header, &tool.breaker);
    [Some(retry), hedge, Some(breaker)]
        .into_iter()
        .flatten()
        .collect()
}

/// Of a service, in sections of their own.
pub(super) fn service_sections(header: &str, service: &super::Service) -> [String; 2] {
    let budget = &service.retry_budget;
    [
        breaker_section(header, &service.breaker),
        section(
            &format!("{header}.retry_budget"),
            &[
                ("max_tokens", budget.max_tokens.to_string()),
                ("answers_per_token", budget.answers_per_token.to_string()),
            ],
        ),
    ]
}

fn breaker_section(header: &str, breaker: &Breaker) -> String {
    section(
        &format!("{header}.breaker"),
        &[
            ("failures", breaker.failures.to_string()),
            ("open_time", duration_string(breaker.open_time)),
            ("max_open_time", duration_string(breaker.max_open_time)),
            ("probes", breaker.probes.to_string()),
        ],
    )
}

fn retry_entries(tool: &Tool) -> Vec<Entry> {
    let retry = &tool.retry;
    let mut entries = Vec::new();
    if tool.idempotent {
        let names = retry.codes.iter().map(|&code| string(&names::code(code)));
        let codes = names.collect::<Vec<_>>().join(", ");
        entries.push(("max_attempts", retry.max_attempts.to_string()));
        entries.push(("codes", format!("[{codes}]")));
    }
    entries.extend([
        ("initial_backoff", duration_string(retry.initial_backoff)),
        ("max_backoff", duration_string(retry.max_backoff)),
        ("connect_patience", duration_string(retry.connect_patience)),
    ]);
    entries
}
