use std::{
    collections::BTreeMap,
    future::{pending, ready},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use fanfare::pb;
use h2::Reason;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::support::{
    SECOND, Seen, answered, call, call_with,
    hostile::{Hostile, Step},
    killed::kill,
    ledger, lost, ms,
    pipes::Client,
    process::{PATIENCE, Process, message},
    results, seen,
    service::{Service, unavailable},
    sockets::{black_hole, reserved},
    stalled::Replicas,
};

/// Fanfare, whose tools are at these addresses.
async fn fanfare(addresses: &[SocketAddr], service: &str, tool: &str) -> Process {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|it| format!("'http://{it}'"))
        .collect();
    let mut toml = format!(
        "[server]\nlisten = '127.0.0.1:0'\n[services.tools]\nendpoints = [{}]\n{service}\n",
        endpoints.join(", ")
    );
    for name in ["echo", "hang", "sleep", "tool", "hostile"] {
        toml.push_str(&format!("[tools.{name}]\nservice = 'tools'\n{tool}\n"));
    }
    Process::serve(&toml).await
}

fn calls(prefix: &str, tool: &str, count: usize) -> Vec<pb::ToolCall> {
    let calls = 0..count;
    calls
        .map(|index| call(&format!("{prefix}{index}"), tool))
        .collect()
}

/// Waits until the replicas have been asked to stop that many attempts; returns how
/// many it is by then.
async fn cancelled(replicas: &[Service], count: usize) -> usize {
    let sum = || replicas.iter().map(Service::cancelled).sum::<usize>();
    let come = async {
        while sum() < count {
            sleep(ms(1)).await;
        }
    };
    let come = timeout(PATIENCE, come).await;
    come.unwrap_or_else(|_| panic!("{} cancelled, not {count}", sum()));
    sum()
}

/// Two replicas that do the same.
async fn two<F, Fut>(behaviour: F) -> ([Service; 2], [SocketAddr; 2])
where
    F: Fn(pb::CallToolRequest) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), tonic::Status>> + Send + 'static,
{
    let replicas = [
        Service::start(behaviour.clone()).await,
        Service::start(behaviour).await,
    ];
    let addresses = [replicas[0].listen().await, replicas[1].listen().await];
    (replicas, addresses)
}

#[tokio::test]
async fn a_hedge_goes_to_the_other_replica_and_the_loser_is_cancelled() {
    let (replicas, addresses) = two(|call| async move {
        if call.attempt == 1 {
            pending::<()>().await;
        }
        Ok(())
    })
    .await;
    let keys = "idempotent = true\nhedge.delay = '50ms'\nretry.max_attempts = 2";
    let fanfare = fanfare(&addresses, "retry_budget.max_tokens = 1000", keys).await;
    let client = fanfare.client().await;

    let results = results(&client, calls("c", "tool", 100)).await;

    for result in &results {
        assert_eq!((seen(result), result.attempts), (answered(), 2));
        let mut attempts = replicas.each_ref().map(|it| it.attempts(&result.id));
        attempts.sort_unstable();
        assert_eq!(attempts, [[1], [2]], "{}", result.id);
    }
    assert_eq!(cancelled(&replicas, 100).await, 100);
}

/// One call in a hundred takes 3 s at first, and so does a request of a hundred.
#[tokio::test(start_paused = true)]
async fn hedging_cuts_the_tail_of_replicas() {
    async fn run(tool: &str) -> (Vec<u128>, usize, usize) {
        let behaviour = |call: pb::CallToolRequest| async move {
            if call.attempt == 1 && call.id.ends_with("50") {
                sleep(ms(3000)).await;
            }
            Ok(())
        };
        let services = [
            Service::start(behaviour).await,
            Service::start(behaviour).await,
        ];
        let toml = "[services.tools]\nendpoints = ENDPOINTS\n[tools.tool]\nservice = 'tools'\n";
        let client = Replicas::of(services.clone())
            .client(&format!("{toml}{tool}"))
            .await;
        results(&client, calls("first", "tool", 9)).await;
        let mut times = Vec::new();
        for round in 0..3 {
            let start = Instant::now();
            for result in results(&client, calls(&format!("{round}-"), "tool", 100)).await {
                assert_eq!(seen(&result), answered());
            }
            times.push(start.elapsed().as_millis());
        }
        sleep(SECOND).await;
        let met = services.iter().map(|it| it.met().len()).sum();
        let cancelled = services.iter().map(Service::cancelled).sum();
        (times, met, cancelled)
    }
    let plain = run("idempotent = true").await;
    assert_eq!(plain, (vec![3000; 3], 309, 0));
    let hedged = run("idempotent = true\nhedge.delay = '500ms'").await;
    assert_eq!(hedged, (vec![500; 3], 309 + 3, 3));
}

#[tokio::test]
async fn what_one_replica_refuses_unseen_another_runs() {
    let angry = Reason::ENHANCE_YOUR_CALM;
    for refusal in [Step::Reset(Reason::REFUSED_STREAM), Step::GoAway(angry)] {
        let refusing = Hostile::start(vec![refusal.clone()]).await;
        let well = Service::start(|_| ready(Ok(()))).await;
        let addresses = [refusing.address, well.listen().await];
        // It is left alone if it does that often.
        let fanfare = fanfare(&addresses, "eject_after_failures = 1000", "").await;
        let client = fanfare.client().await;
        let mut again = 0;
        for index in 0..100 {
            let id = index.to_string();
            let result = results(&client, vec![call(&id, "hostile")]).await.remove(0);
            assert_eq!(seen(&result), answered(), "{refusal:?}: {result:?}");
            assert_eq!(well.attempts(&id), [result.attempts]);
            again += result.attempts - 1;
        }
        assert!(again > 10, "{refusal:?}: {again} of 100 were refused");
    }
}

#[tokio::test]
async fn a_retry_goes_to_the_other_replica() {
    let failing = Service::start(|_| ready(Err(unavailable(None)))).await;
    let well = Service::start(|_| ready(Ok(()))).await;
    let addresses = [failing.listen().await, well.listen().await];
    let keys = "idempotent = true";
    let fanfare = fanfare(&addresses, "retry_budget.max_tokens = 1000", keys).await;
    let client = fanfare.client().await;

    let mut again = 0;
    for index in 0..10 {
        for result in results(&client, calls(&format!("{index}-"), "tool", 10)).await {
            assert_eq!(seen(&result), answered());
            assert_eq!(well.attempts(&result.id), [result.attempts]);
            let failed: Vec<_> = (1..result.attempts).collect();
            assert_eq!(failing.attempts(&result.id), failed);
            assert!(result.attempts <= 2);
            again += result.attempts - 1;
        }
    }
    assert!(again > 10, "{again} of 100 failed at first");
}

#[tokio::test]
async fn one_dead_replica_of_two_costs_no_call_and_no_attempt() {
    let live = Process::demo_tools().await;
    let mut dead = Process::demo_tools().await;
    let hole = black_hole().await;
    let with_hole = fanfare(&[live.address, hole.address], "", "").await;
    let with_dead = fanfare(&[live.address, dead.address], "", "").await;
    let mut client = with_dead.client().await;
    // Both are connected to.
    while ledger::count(&dead, "call started") == 0 {
        results(&client, vec![call("", "echo")]).await;
    }
    kill(&mut dead, &client).await;

    for _ in 0..2 {
        let mut again = 0;
        for _ in 0..100 {
            for result in results(&client, calls("counted", "echo", 5)).await {
                assert_eq!(seen(&result), Seen::Ok(json!({})), "{result:?}");
                again += result.attempts - 1;
            }
        }
        assert!(again <= 5, "{again} of 500 calls were made again");
        client = with_hole.client().await;
    }
    let counted = |line: &Value| {
        let is_one = line["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("counted"));
        is_one && message(line) == "call started"
    };
    let started = live.log().wait_for_all("the calls", 1000, counted).await;
    assert_eq!(started.len(), 1000);
}

/// What came of each call, by its id.
type Outcomes = BTreeMap<String, Seen>;

/// Calls with ids of their own until told to stop.
async fn call_on(client: Client, stop: Arc<AtomicBool>, caller: usize) -> Outcomes {
    let mut outcomes = Outcomes::new();
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let nap = |index| {
            let id = format!("{caller}-{round}-{index}");
            call_with(&id, "sleep", json!({"seconds": 0.02}))
        };
        for result in results(&client, (0..4).map(nap).collect()).await {
            // What arrives while a replica says goodbye is refused unseen.
            assert!(result.attempts <= 2, "{result:?}");
            outcomes.insert(result.id.clone(), seen(&result));
        }
    }
    outcomes
}

/// How often each call was started, by the ledgers of these processes.
fn executions(tools: &[Process]) -> BTreeMap<String, usize> {
    let mut executions = BTreeMap::new();
    for tools in tools {
        for line in tools.log().all(|line| message(line) == "call started") {
            let id = line["id"].as_str().expect("an id").to_owned();
            *executions.entry(id).or_default() += 1;
        }
    }
    executions
}

/// Ends one of two replicas under load as `end` does and starts it again, in turns.
/// What came of the calls, and how often each was executed.
async fn restarts(
    rounds: usize,
    end: impl AsyncFn(&mut Process),
) -> (Outcomes, BTreeMap<String, usize>) {
    let places = [reserved(), reserved()];
    let mut running = Vec::new();
    for place in &places {
        running.push(Process::demo_tools_at(place.address).await);
    }
    let fanfare = fanfare(&places.each_ref().map(|place| place.address), "", "").await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let client = fanfare.client().await;
        callers.spawn(call_on(client, Arc::clone(&stop), caller));
    }
    let mut tools = Vec::new();
    for round in 0..rounds {
        let (victim, place) = (&mut running[round % 2], &places[round % 2]);
        ledger::answered(victim, 40).await;
        end(victim).await;
        let again = Process::demo_tools_at(place.address).await;
        tools.push(std::mem::replace(victim, again));
    }
    ledger::answered(&running[(rounds + 1) % 2], 40).await;
    stop.store(true, Ordering::Relaxed);
    let outcomes = callers.join_all().await.into_iter().flatten();
    let outcomes: Outcomes = outcomes.collect();
    tools.append(&mut running);

    // The last lines may still be on their way.
    let is_ok = |id: &String| matches!(outcomes[id], Seen::Ok(_));
    let all_told = async {
        loop {
            let executions = executions(&tools);
            let mut ok = outcomes.keys().filter(|id| is_ok(id));
            if ok.all(|id| executions.contains_key(id)) {
                return executions;
            }
            sleep(ms(10)).await;
        }
    };
    let executions = timeout(PATIENCE, all_told).await;
    (outcomes, executions.expect("the lines of all calls"))
}

#[tokio::test]
async fn a_rolling_restart_fails_no_call_and_runs_each_once() {
    let (outcomes, executions) = restarts(6, async |tools| {
        tools.signal(Signal::SIGTERM);
        assert_eq!(tools.exit_code().await, Some(0));
    })
    .await;
    let failed: Vec<_> = outcomes
        .iter()
        .filter(|(_, seen)| !matches!(seen, Seen::Ok(_)))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(outcomes.len() >= 240, "{}", outcomes.len());
    assert!(outcomes.keys().eq(executions.keys()));
    assert!(executions.values().all(|&times| times == 1));
}

#[tokio::test]
async fn replicas_that_are_killed_while_they_drain_run_no_call_twice() {
    let (outcomes, executions) = restarts(6, async |tools| {
        tools.signal(Signal::SIGTERM);
        let drains = |line: &Value| message(line).contains("drain");
        tools.log().wait_for("the drain", drains).await;
        tools.signal(Signal::SIGKILL);
        tools.exit_code().await;
    })
    .await;
    for (id, seen) in &outcomes {
        let times = executions.get(id).copied().unwrap_or_default();
        let (least, most) = match seen {
            Seen::Ok(_) => (1, 1),
            seen if *seen == lost("maybe") => (0, 1),
            Seen::Err(..) => panic!("{id}: {seen:?}"),
        };
        assert!(
            (least..=most).contains(&times),
            "{id}: {seen:?}, {times} times"
        );
    }
}
