//! The settings of retries, hedging, bulkheads and circuit breakers.

use std::time::Duration;

use http::Uri;

use super::{Config, Service, Tool, assert_refused, mistaken_keys, problem};
use crate::{
    config::{Breaker, HedgeDelay, Retry, RetryBudget},
    core::status::Code,
};

/// A file with these keys of a tool.
fn tool(keys: &str) -> String {
    format!("[services.a]\nendpoint = 'http://a'\n[tools.t]\nservice = 'a'\n{keys}")
}

fn idempotent(keys: &str) -> String {
    tool(&format!("idempotent = true\n{keys}"))
}

fn read(text: &str) -> Tool {
    let config = Config::parse(text).unwrap();
    assert_eq!(Config::parse(&config.to_toml()).as_ref(), Ok(&config));
    config.tools["t"].clone()
}

#[test]
fn every_setting_of_the_policies_can_be_set() {
    let text = r#"
        [services.a]
        endpoint = "http://a"
        [services.a.breaker]
        failures = 2
        open_time = "3s"
        max_open_time = "4s"
        probes = 5
        [services.a.retry_budget]
        max_tokens = 6
        answers_per_token = 7
        [tools.t]
        service = "a"
        idempotent = true
        max_concurrency = 8
        max_queue = 9
        [tools.t.retry]
        max_attempts = 5
        codes = ["ABORTED", "UNAVAILABLE", "ABORTED"]
        initial_backoff = "10ms"
        max_backoff = "11ms"
        connect_patience = "0s"
        [tools.t.hedge]
        delay = "12ms"
        [tools.t.breaker]
        failures = 13
        open_time = "14s"
        max_open_time = "15s"
        probes = 16
    "#;
    let config = Config::parse(text).unwrap();
    let ms = Duration::from_millis;
    let service = Service {
        breaker: Breaker {
            failures: 2,
            open_time: ms(3000),
            max_open_time: ms(4000),
            probes: 5,
        },
        retry_budget: RetryBudget {
            max_tokens: 6,
            answers_per_token: 7,
        },
        ..Service::new(Uri::from_static("http://a"))
    };
    let tool = Tool {
        idempotent: true,
        max_concurrency: 8,
        max_queue: 9,
        retry: Retry {
            max_attempts: 5,
            codes: vec![Code::Aborted, Code::Unavailable],
            initial_backoff: ms(10),
            max_backoff: ms(11),
            connect_patience: Duration::ZERO,
        },
        hedge: Some(HedgeDelay::Fixed(ms(12))),
        breaker: Breaker {
            failures: 13,
            open_time: ms(14_000),
            max_open_time: ms(15_000),
            probes: 16,
        },
        ..Tool::new("a".to_owned())
    };
    assert_eq!(
        (&config.services["a"], &config.tools["t"]),
        (&service, &tool)
    );
    assert_eq!(Config::parse(&config.to_toml()), Ok(config));
}

#[test]
fn what_is_left_out_has_its_default() {
    assert_eq!(read(&tool("")), Tool::new("a".to_owned()));
    let limits = "[limits]\nmax_in_flight_calls = 300\n";
    assert_eq!(read(&format!("{limits}{}", tool(""))).max_concurrency, 300);
    let long = read(&tool("[tools.t.retry]\ninitial_backoff = '2s'"));
    assert_eq!(long.retry.max_backoff, Duration::from_secs(2));
    let hedged = read(&idempotent("hedge.delay = 'p95'"));
    assert_eq!(hedged.hedge, Some(HedgeDelay::P95));
    let never = read(&idempotent("retry.codes = []\nretry.max_attempts = 1"));
    assert_eq!((never.retry.max_attempts, never.retry.codes), (1, vec![]));
}

#[test]
fn what_a_tools_breaker_does_not_say_its_services_does() {
    let service = "[services.a.breaker]\nfailures = 7\nopen_time = '2s'\n";
    let of = |keys: &str| read(&format!("{}{service}", tool(keys))).breaker;
    let inherited = of("");
    assert_eq!(inherited.failures, 7);
    assert_eq!(inherited.open_time, Duration::from_secs(2));
    let own = of("breaker.failures = 2\nbreaker.open_time = '3s'\n");
    assert_eq!((own.failures, own.probes), (2, 3));
    assert_eq!(own.open_time, Duration::from_secs(3));
    assert_eq!(own.max_open_time, Duration::from_secs(3));
    let key = "tools.t.breaker.max_open_time";
    let text = format!("{}{service}", tool("breaker.max_open_time = '1s'\n"));
    assert_refused(&text, key);
}

#[test]
fn policies_that_can_not_be_are_mistakes() {
    let cases = [
        ("retry.max_attempts = 0", "retry.max_attempts"),
        ("retry.max_attempts = 6", "retry.max_attempts"),
        ("retry.codes = 'ABORTED'", "retry.codes"),
        ("retry.codes = ['OK']", "retry.codes"),
        ("retry.codes = ['aborted']", "retry.codes"),
        ("retry.codes = [14]", "retry.codes"),
        ("retry.max_backoff = '49ms'", "retry.max_backoff"),
        ("retry = 1", "retry"),
        ("hedge.delay = 'p99'", "hedge.delay"),
        ("hedge.delay = '0s'", "hedge.delay"),
        ("hedge = {}", "hedge.delay"),
        ("max_queue = 0", "max_queue"),
        ("max_concurrency = 0", "max_concurrency"),
    ];
    for (keys, key) in cases {
        assert_refused(&idempotent(keys), &format!("tools.t.{key}"));
    }
    let service = "[services.a]\nendpoint = 'http://a'\n";
    for (keys, key) in [
        ("breaker.failures = 0", "breaker.failures"),
        ("breaker.max_open_time = '499ms'", "breaker.max_open_time"),
        ("breaker.opentime = '1s'", "breaker.opentime"),
        ("retry_budget.max_tokens = 0", "retry_budget.max_tokens"),
    ] {
        assert_refused(&format!("{service}{keys}"), &format!("services.a.{key}"));
    }
    let unknown = problem(&idempotent("retry.codes = ['BUSY']"));
    assert!(unknown.contains("\"BUSY\" is none"), "{unknown}");
}

#[test]
fn only_an_idempotent_tool_is_retried_or_hedged() {
    let keys = "retry.max_attempts = 3\nretry.codes = []\nhedge.delay = '1s'";
    assert_eq!(
        mistaken_keys(&tool(keys)),
        [
            "tools.t.retry.max_attempts",
            "tools.t.retry.codes",
            "tools.t.hedge.delay"
        ]
    );
    let mistaken = tool(&format!("idempotent = 1\n{keys}"));
    assert_refused(&mistaken, "tools.t.idempotent");
    // What was certainly not run is sent again for any tool.
    read(&tool(
        "retry.initial_backoff = '1ms'\nretry.connect_patience = '5s'",
    ));
}

#[test]
fn what_is_no_status_is_named() {
    let cases = [
        (
            "['unavailable', 14]",
            "(\"unavailable\" is none, did you mean \"UNAVAILABLE\"?), got [\"unavailable\", 14]",
        ),
        (
            "['ABORTED', 14]",
            "(the integer 14 is none, did you mean \"UNAVAILABLE\"?)",
        ),
        ("[0]", "(the integer 0 is none), got [0]"),
        ("['UNAVAILABEL']", "did you mean \"UNAVAILABLE\"?"),
        ("['nothing like it']", "(\"nothing like it\" is none), got"),
        (
            "[true, {a = 1}, [1]]",
            "(true is none), got [true, a table, [...]]",
        ),
        (
            "'UNAVAILABLE'",
            "such as \"UNAVAILABLE\", got \"UNAVAILABLE\"",
        ),
    ];
    for (codes, expected) in cases {
        let problem = problem(&idempotent(&format!("retry.codes = {codes}")));
        assert!(problem.contains(expected), "{problem}");
    }
}
