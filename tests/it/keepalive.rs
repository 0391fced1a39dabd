use std::{future::pending, sync::Arc, time::Duration};

use fanfare::{catalog::Catalog, config::Config, pb};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::support::{
    answered, call, error, expired, lost, ms,
    pipes::{self, Client},
    process::{Process, message},
    result, results, seen,
    service::Service,
    strict::{DEFAULTS, Rules, Strict},
    tool,
};

const MINUTE: Duration = Duration::from_secs(60);

/// A service whose tool takes as many seconds as the id of its call says.
async fn service() -> Service {
    Service::start(|call| async move {
        match call.id.parse() {
            Ok(seconds) => sleep(Duration::from_secs_f64(seconds)).await,
            Err(_) => pending().await,
        }
        Ok(())
    })
    .await
}

async fn client(strict: &Strict, keys: &str) -> Client {
    let toml = format!(
        "[server]\nmax_connection_age = '24h'\n[limits]\nmax_request_timeout = '2h'\n\
         [services.tools]\nendpoint = 'http://tools'\n{keys}\n\
         [tools.tool]\nservice = 'tools'\ntimeout = '2h'\n"
    );
    let config = Config::parse(&toml).expect("a configuration");
    let catalog = Catalog::with_connect(&config, |_| Arc::new(strict.clone()));
    pipes::client(&config, catalog).await
}

/// Calls of such a length, with nothing else on their connection.
#[tokio::test(start_paused = true)]
async fn a_long_call_is_not_pinged_to_death() {
    for keys in [
        "",
        "keepalive_interval = '10s'",
        "keepalive_interval = '1s'",
    ] {
        let strict = Strict::new(&service().await, DEFAULTS);
        let client = client(&strict, keys).await;
        for seconds in ["200", "360", "3600", "1", "90", "1000"] {
            let start = Instant::now();
            let result = result(&client, tool(seconds)).await;
            assert_eq!((seen(&result), result.attempts), (answered(), 1), "{keys}");
            // It begins with one, may send another, and then one in 5 minutes.
            let within = |at: &&Instant| **at >= start;
            let pings = strict.pings().iter().filter(within).count();
            let most = 2 + start.elapsed().as_secs() / 300;
            assert!(pings as u64 <= most, "{pings} pings in {seconds} s {keys}");
        }
        assert_eq!(strict.ended(), 0, "{keys}");
    }
}

/// An answer now and then, between long calls, and times without calls.
#[tokio::test(start_paused = true)]
async fn answers_in_between_do_not_make_pings_too_many() {
    let strict = Strict::new(&service().await, DEFAULTS);
    let client = client(&strict, "keepalive_interval = '7s'").await;
    for round in 0..40_u64 {
        let long = {
            let client = client.clone();
            tokio::spawn(async move { result(&client, tool("500")).await })
        };
        for pause in [3, 20, 100, 50] {
            sleep(Duration::from_secs(pause + round)).await;
            assert_eq!(seen(&result(&client, tool("1")).await), answered());
        }
        assert_eq!(seen(&long.await.unwrap()), answered());
        sleep(2 * MINUTE).await;
    }
    assert_eq!(strict.ended(), 0);
    assert!(strict.pings().len() > 40);
}

/// Each of these calls makes one wonder whether somebody is there.
#[tokio::test(start_paused = true)]
async fn who_was_pinged_enough_is_asked_by_settings() {
    let strict = Strict::new(&service().await, DEFAULTS);
    let client = client(&strict, "breaker.failures = 1000000").await;
    for _ in 0..100 {
        let call = pb::ToolCall {
            timeout: Some(ms(100).try_into().expect("a duration")),
            ..call("hang", "tool")
        };
        let outcome = seen(&results(&client, vec![call]).await[0]);
        assert_eq!(outcome, expired("maybe", "call"));
    }
    assert_eq!((strict.connections(), strict.ended()), (1, 0));
    let (pings, settings) = (strict.pings().len(), strict.settings());
    // Most by SETTINGS. Where a call that ran out of time is answered all the same,
    // pings are free again.
    assert!(settings > 50 && pings + settings > 90, "{pings} {settings}");
}

/// A service that does not even allow what all others do.
#[tokio::test(start_paused = true)]
async fn who_complains_of_pings_gets_fewer_of_them() {
    let rules = Rules {
        max_strikes: 1,
        permit: 15 * MINUTE,
        ..DEFAULTS
    };
    let strict = Strict::new(&service().await, rules);
    let client = client(&strict, "breaker.failures = 1000000").await;

    let first = result(&client, tool("7200")).await;

    assert_eq!(seen(&first), lost("maybe"));
    let message = &error(&first).message;
    assert!(
        message.contains("ENHANCE_YOUR_CALM: too_many_pings"),
        "{message}"
    );
    // At first the free one is not, then 10 minutes are too few, then 20 are enough.
    assert_eq!(seen(&result(&client, tool("7000")).await), lost("maybe"));
    assert_eq!(seen(&result(&client, tool("7000")).await), answered());
    assert_eq!(strict.ended(), 2);
}

#[tokio::test]
async fn complaints_of_pings_are_told() {
    let rules = Rules {
        max_strikes: 1,
        ..DEFAULTS
    };
    let strict = Strict::new(&service().await, rules);
    let address = strict.listen().await;
    let fanfare = Process::serve(&format!(
        "[server]\nlisten = '127.0.0.1:0'\n\
         [services.strict]\nendpoint = 'http://{address}'\nkeepalive_interval = '50ms'\n\
         [tools.tool]\nservice = 'strict'\n"
    ))
    .await;
    let client = fanfare.client().await;

    let lost_call = result(&client, tool("hang")).await;

    assert_eq!(seen(&lost_call), lost("maybe"));
    let text = &error(&lost_call).message;
    assert!(text.contains("ENHANCE_YOUR_CALM: too_many_pings"), "{text}");
    let told = |line: &Value| line["level"] == "WARN" && message(line).contains("too_many_pings");
    let line = fanfare.log().wait_for("a warning", told).await;
    assert_eq!(line["service"], "strict");
    assert_eq!(line["address"], address.to_string());
    // It is pinged too seldom now for the next to be lost.
    assert_eq!(seen(&result(&client, tool("0.5")).await), answered());
}
