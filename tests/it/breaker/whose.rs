//! Whose breaker opens: a tool's, for what the tool does; or its service's, for what
//! its connections do.

use std::future::pending;

use fanfare::{
    catalog::Catalog,
    config::Config,
    pb::{self, BreakerState},
};
use h2::Reason;
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::{sleep, timeout};
use tonic::Code;

use super::{answered, calls, hanging, retry_after, service};
use crate::support::{
    SECOND, Seen, call, call_with, circuit_open, error, expired, failed,
    hostile::{Hostile, Step, http_head},
    lost,
    pipes::{self, Client},
    process::{PATIENCE, Process, message},
    result, results, seen,
    service::{Service, unavailable},
    tool,
};

/// Two tools of the service, of which one is called `tool`.
const SIBLINGS: &str = "[tools.tool]\nservice = 'tools'\ntimeout = '2s'\n\
    [tools.sibling]\nservice = 'tools'\n";

/// What `ListTools` says of them.
async fn states(client: &Client) -> [BreakerState; 2] {
    let listed = client
        .clone()
        .list_tools(pb::ListToolsRequest::default())
        .await;
    let listed = listed.expect("the tools").into_inner().tools;
    ["tool", "sibling"].map(|name| {
        let tool = listed.iter().find(|tool| tool.name == name);
        tool.expect("the tool").breaker_state()
    })
}

/// What becomes of one call of each, and what `ListTools` says then.
async fn both(client: &Client) -> [(Seen, BreakerState); 2] {
    let calls = vec![call("", "tool"), call("", "sibling")];
    let results = results(client, calls).await;
    let [tool, sibling] = states(client).await;
    [(seen(&results[0]), tool), (seen(&results[1]), sibling)]
}

#[tokio::test(start_paused = true)]
async fn what_a_tool_does_leaves_its_siblings_alone() {
    let own_error = failed(Code::Unavailable, "TOOL_FAILED", "done");
    let cases = [
        ("hang", expired("maybe", "tool"), "no answer within 2000 ms"),
        // Its words are for its caller only.
        ("busy", own_error, "it answered UNAVAILABLE"),
    ];
    for (what, expected, last) in cases {
        let service = Service::start(move |call| async move {
            match call.id.get(..4) {
                Some("hang") => pending().await,
                Some("busy") => Err(unavailable(None)),
                _ => Ok(()),
            }
        })
        .await;
        let client = service.client(SIBLINGS).await;
        for _ in 0..5 {
            assert_eq!(states(&client).await[0], BreakerState::Closed, "{what}");
            assert_eq!(seen(&result(&client, tool(what)).await), expected, "{what}");
        }

        let [tool, sibling] = both(&client).await;

        assert_eq!(tool, (circuit_open(), BreakerState::Open), "{what}");
        assert_eq!(sibling, (answered(), BreakerState::Closed), "{what}");
        let refused = result(&client, call("", "tool")).await;
        let message = &error(&refused).message;
        let expected = format!("tool tool keeps failing and is left alone for a while: {last}");
        assert_eq!(*message, expected);
        sleep(retry_after(&refused)).await;
        for fine in both(&client).await {
            assert_eq!(fine, (answered(), BreakerState::Closed), "{what}");
        }
    }
}

#[tokio::test]
async fn a_tool_that_ends_without_an_answer_leaves_its_siblings_alone() {
    for end in [
        Step::Reset(Reason::INTERNAL_ERROR),
        Step::TrailersOnly(http_head(502, "text/html")),
    ] {
        let service = Hostile::start(vec![end]).await;
        let toml = format!(
            "[services.tools]\nendpoint = 'http://{}'\nbreaker.open_time = '1h'\n\
             [tools.hostile]\nservice = 'tools'\n[tools.next]\nservice = 'tools'\n",
            service.address
        );
        let config = Config::parse(&toml).expect("a configuration");
        let client = pipes::client(&config, Catalog::new(&config)).await;
        // Together they are one failure, as in a restart behind a proxy.
        for count in [50, 1, 1, 1, 1] {
            for result in results(&client, vec![call("", "hostile"); count]).await {
                assert_eq!(seen(&result), lost("maybe"));
            }
        }

        let calls = vec![call("", "hostile"), call("", "next")];
        let results = results(&client, calls).await;

        assert_eq!(seen(&results[0]), circuit_open());
        assert_eq!(seen(&results[1]), answered());
        assert_eq!(service.connections(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_to_connections_concerns_all_tools_of_the_service() {
    let service = service().await;
    let client = service.client(SIBLINGS).await;
    for fine in both(&client).await {
        assert_eq!(fine, (answered(), BreakerState::Closed));
    }
    service.kill();
    let mut failures = 0;
    while states(&client).await[0] == BreakerState::Closed {
        assert_eq!(seen(&result(&client, tool("")).await), lost("not_started"));
        failures += 1;
        assert!(failures < 100, "no breaker opens");
    }

    for left in both(&client).await {
        assert_eq!(left, (circuit_open(), BreakerState::Open));
    }

    let message = error(&result(&client, tool("")).await).message.clone();
    assert!(
        message.starts_with("tool service tools keeps failing"),
        "{message}"
    );
    service.start_again();
    sleep(SECOND).await;
    // One is tried, and lets the other through.
    assert_eq!(seen(&result(&client, tool("")).await), answered());
    for fine in both(&client).await {
        assert_eq!(fine, (answered(), BreakerState::Closed));
    }
}

/// A tool on trial that hangs does not keep its siblings from trying the service, nor
/// does what bars the service use up a tool's own trial.
#[tokio::test(start_paused = true)]
async fn the_trials_of_a_tool_and_of_its_service_do_not_hinder_each_other() {
    let service = service().await;
    let keys = "[services.tools.breaker]\nprobes = 1\n";
    let client = service.client(&format!("{keys}{SIBLINGS}")).await;
    for result in results(&client, calls(5, "hang")).await {
        assert_eq!(seen(&result), expired("maybe", "tool"));
    }
    let open = [BreakerState::Open, BreakerState::Closed];
    assert_eq!(states(&client).await, open);
    service.kill();
    let sibling = || async { results(&client, vec![call("", "sibling")]).await.remove(0) };
    while seen(&sibling().await) != circuit_open() {}
    // Meanwhile a trial of the tool is due, and barred by its service.
    sleep(SECOND).await;
    service.start_again();

    let trial = hanging(&client).await;
    assert_eq!(service.running(), 1);
    // The connection was enough for the service.
    assert_eq!(seen(&sibling().await), answered());
    assert_eq!(seen(&result(&client, tool("")).await), circuit_open());
    assert_eq!(seen(&trial.await.unwrap()), expired("maybe", "tool"));
    sleep(SECOND).await;
    assert_eq!(seen(&result(&client, tool("")).await), answered());
}

#[tokio::test(start_paused = true)]
async fn a_tool_may_be_left_alone_sooner_or_later_than_its_service() {
    let service = service().await;
    let toml = format!(
        "{SIBLINGS}[services.tools.breaker]\nfailures = 7\n[tools.sibling.breaker]\nfailures = 2\n"
    );
    let client = service.client(&toml).await;
    for (tool, failures) in [("tool", 7), ("sibling", 2)] {
        let mut count = 0;
        let hang = || pb::ToolCall {
            timeout: Some((2 * SECOND).try_into().unwrap()),
            ..call("hang", tool)
        };
        while seen(&results(&client, vec![hang()]).await[0]) != circuit_open() {
            count += 1;
        }
        assert_eq!(count, failures, "{tool}");
    }
}

/// Three healthy replicas, and a tool that takes longer than it may.
#[tokio::test]
async fn a_slow_tool_does_not_take_its_service_down() {
    let replicas = [
        Process::demo_tools().await,
        Process::demo_tools().await,
        Process::demo_tools().await,
    ];
    let endpoints = replicas
        .each_ref()
        .map(|r| format!("'http://{}'", r.address));
    // Once open, a breaker stays so for as long as the test takes.
    let fanfare = Process::serve(&format!(
        "[server]\nlisten = '127.0.0.1:0'\n\
         [services.demo]\nendpoints = [{}]\nbreaker.open_time = '1h'\n\
         [tools.echo]\nservice = 'demo'\n\
         [tools.sleep]\nservice = 'demo'\ntimeout = '300ms'\n",
        endpoints.join(", ")
    ))
    .await;
    let client = fanfare.client().await;
    let sleep = call_with("", "sleep", json!({"seconds": 1}));
    for result in results(&client, vec![sleep.clone(); 30]).await {
        assert_eq!(seen(&result), expired("maybe", "tool"));
    }

    for result in results(&client, vec![call("", "echo"); 30]).await {
        assert_eq!(seen(&result), Seen::Ok(json!({})));
    }

    for result in results(&client, vec![sleep; 30]).await {
        assert_eq!((seen(&result), result.attempts), (circuit_open(), 0));
        let message = &error(&result).message;
        assert!(message.starts_with("tool sleep keeps failing"), "{message}");
    }
    let listed = client
        .clone()
        .list_tools(pb::ListToolsRequest::default())
        .await;
    let listed = listed.expect("the tools").into_inner().tools;
    let states = listed
        .iter()
        .map(|tool| (&*tool.name, tool.breaker_state()));
    assert_eq!(
        states.collect::<Vec<_>>(),
        [
            ("echo", BreakerState::Closed),
            ("sleep", BreakerState::Open)
        ]
    );
    let log = fanfare.log();
    let opened = log
        .wait_for("it opens", |line| line["tool"] == "sleep")
        .await;
    assert_eq!(message(&opened), "a tool keeps failing: leaving it alone");
    let reason = opened["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("no answer within "), "{reason}");
}

/// Nothing answers any more, no ping either: its tools' own breakers open first, then
/// the connections are lost and can't be made, and the service is left alone.
#[tokio::test]
async fn a_service_that_is_frozen_is_left_alone_as_a_whole() {
    let tools = Process::demo_tools().await;
    let fanfare = Process::serve(&format!(
        "[server]\nlisten = '127.0.0.1:0'\n\
         [services.demo]\nendpoint = 'http://{}'\n\
         [tools.echo]\nservice = 'demo'\ntimeout = '500ms'\n\
         [tools.sleep]\nservice = 'demo'\ntimeout = '500ms'\n",
        tools.address
    ))
    .await;
    let client = fanfare.client().await;
    let calls = [
        call("", "echo"),
        call_with("", "sleep", json!({"seconds": 0})),
    ];
    let both = || results(&client, calls.to_vec());
    let is_well = |results: &[pb::ToolExecutionResult]| {
        results
            .iter()
            .all(|result| matches!(seen(result), Seen::Ok(_)))
    };
    assert!(is_well(&both().await));

    tools.signal(Signal::SIGSTOP);
    let barred = |result: &pb::ToolExecutionResult| {
        seen(result) == circuit_open()
            && error(result)
                .message
                .starts_with("tool service demo keeps failing")
    };
    let left_alone = async { while !both().await.iter().all(barred) {} };
    timeout(PATIENCE, left_alone)
        .await
        .expect("an open breaker");

    tools.signal(Signal::SIGCONT);
    let back = async { while !is_well(&both().await) {} };
    timeout(PATIENCE, back).await.expect("answers");
}
