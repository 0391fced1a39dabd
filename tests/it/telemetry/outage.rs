//! What an export may cost is asserted under a paused clock, or by making the alternative
//! last for ever: exports would wait for an hour, and only the end does not.

use std::{fs, net::SocketAddr};

use fanfare::{demo::tools::DemoTools, pb};
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point::Value};
use serde_json::json;
use tokio::time::{Instant, timeout};
use tonic::Code;

use crate::support::{
    SECOND, call, call_with,
    collector::{Answer, Collector},
    config, length, ms,
    observed::Observed,
    pipes::Client,
    process::{PATIENCE, Process, message},
    request, seen,
    sockets::{self, reserved},
    spans::flat,
};

const CALLS: usize = 8;
/// The RPC, its calls, their attempts.
const SPANS: usize = 1 + 2 * CALLS;
const REQUESTS: usize = 150;
/// Less than a tenth of all spans.
const QUEUE: &str = "200";
/// In milliseconds.
const AN_HOUR: &str = "3600000";

/// A service whose collector of spans is at `spans`, while another one takes its
/// metrics, and one like it whose collector is well.
struct Pair {
    tried: Process,
    client: Client,
    metrics: Collector,
    began: Instant,
    healthy: Process,
    healthy_client: Client,
    _healthy_collector: Collector,
    _tools: Process,
}

async fn serve(tools: SocketAddr, spans: SocketAddr, metrics: SocketAddr) -> Process {
    let demo = fanfare::demo::config_toml(tools);
    let toml = format!("[server]\nlisten = \"127.0.0.1:0\"\n{demo}");
    let (spans, metrics) = (format!("http://{spans}"), format!("http://{metrics}"));
    let environment = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", spans.as_str()),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &metrics),
        ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_BSP_EXPORT_TIMEOUT", AN_HOUR),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", AN_HOUR),
    ];
    Process::serve_in(&toml, &environment).await
}

impl Pair {
    async fn start(spans: SocketAddr) -> Self {
        let tools = Process::demo_tools().await;
        let (metrics, well) = (Collector::start(), Collector::start());
        let began = Instant::now();
        let tried = serve(tools.address, spans, metrics.address).await;
        let healthy = serve(tools.address, well.address, well.address).await;
        Self {
            client: tried.client().await,
            tried,
            metrics,
            began,
            healthy_client: healthy.client().await,
            healthy,
            _healthy_collector: well,
            _tools: tools,
        }
    }

    /// Calls both in turns. They must answer the same.
    async fn compare(&mut self) {
        for number in 0..REQUESTS {
            let ours = ask(&mut self.client, number).await;
            assert_eq!(ours, ask(&mut self.healthy_client, number).await);
        }
    }

    /// Spans that were lost and why, by the last metrics pushed.
    fn lost(&self) -> (i64, i64) {
        let received = self.metrics.received();
        if received.metrics.is_empty() {
            return (0, 0);
        }
        let metrics = received.last_metrics();
        let dropped = metrics
            .into_iter()
            .find(|m| m.name == "fanfare.telemetry.dropped_spans");
        let Some(Data::Sum(sum)) = dropped.and_then(|metric| metric.data) else {
            panic!("no such counter");
        };
        let of = |reason: &str| {
            let point = sum.data_points.iter().find(|point| {
                crate::support::spans::attributes(&point.attributes)["error.type"] == reason
            });
            match point.expect("a reason").value {
                Some(Value::AsInt(count)) => count,
                other => panic!("{other:?}"),
            }
        };
        (of("queue_full"), of("export_failed"))
    }

    /// Waits until what was lost by now is known.
    async fn is_told_anew(&self) {
        let pushes = self.metrics.received().metrics.len();
        let told = async {
            // One may be under way.
            while self.metrics.received().metrics.len() < pushes + 2 {
                tokio::time::sleep(ms(10)).await;
            }
        };
        timeout(PATIENCE, told).await.expect("metrics");
    }

    async fn until_lost(&self, enough: impl Fn((i64, i64)) -> bool) {
        let lost = async {
            while !enough(self.lost()) {
                tokio::time::sleep(ms(10)).await;
            }
        };
        let lost = timeout(PATIENCE, lost).await;
        assert!(lost.is_ok(), "{:?}", self.lost());
    }

    /// The log said of it, and of nothing else, at most every ten seconds.
    fn has_complained(&self) {
        let of_spans = |line: &_| message(line).starts_with("spans are lost");
        let all = self.tried.log().all(|line| line["level"] != "INFO");
        let count = self.tried.log().all(of_spans).len();
        assert_eq!(all.len(), count, "{all:#?}");
        let most = 1 + self.began.elapsed().as_secs() / 10;
        assert!((1..=most).contains(&(count as u64)), "{all:#?}");
    }

    fn memory_is_bounded(&self) {
        let (tried, healthy) = (memory(&self.tried), memory(&self.healthy));
        assert!(tried < healthy + (32 << 20), "{tried}, not {healthy}");
    }

    /// Ends, although an export would wait for an hour.
    async fn ends(&mut self) {
        self.tried.signal(Signal::SIGTERM);
        assert_eq!(self.tried.exit_code().await, Some(0));
    }
}

/// What comes of a request.
async fn ask(client: &mut Client, number: usize) -> Vec<crate::support::Seen> {
    let mut calls: Vec<pb::ToolCall> = (1..CALLS)
        .map(|i| call_with("", "echo", json!({"number": number, "call": i})))
        .collect();
    calls.insert(3, call("", "nobody"));
    calls[3] = call_with("", "fail", json!({"code": "NOT_FOUND", "message": "no"}));
    let response = client.execute_tools(request(calls)).await;
    let results = response.expect("an answer").into_inner().results;
    assert_eq!(results.len(), CALLS);
    results.iter().map(seen).collect()
}

/// Resident, in bytes.
fn memory(process: &Process) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid()));
    let status = status.expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: usize = kib.expect("a size").parse().expect("a number");
    kib << 10
}

/// To the millisecond, whatever becomes of the spans.
#[tokio::test(start_paused = true)]
async fn no_collector_delays_a_call() {
    for answer in [
        Answer::Takes,
        Answer::TakesAfter(3600 * SECOND),
        Answer::Refuses(Code::ResourceExhausted),
    ] {
        let small = [
            ("OTEL_BSP_MAX_QUEUE_SIZE", "20"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
        ];
        let mut observed = Observed::with(config(), DemoTools::default(), &small).await;
        observed.observer.collector.answers(answer);
        for _ in 0..20 {
            let start = Instant::now();
            let calls = vec![call_with("", "sleep", json!({"seconds": 1})); CALLS];
            let response = observed.client.execute_tools(request(calls)).await;
            let took = length(response.unwrap().into_inner().duration);
            assert_eq!((start.elapsed(), took), (SECOND, SECOND));
        }
    }
}

#[tokio::test]
async fn a_collector_that_refuses_connections_costs_its_spans_and_comes_back() {
    let place = reserved();
    let mut pair = Pair::start(place.address).await;

    pair.compare().await;

    pair.until_lost(|(queue_full, _)| queue_full > 0).await;
    pair.has_complained();
    pair.memory_is_bounded();
    let collector = Collector::start_at(place.address, None);
    collector.has_taken(1).await;
    pair.is_told_anew().await;
    let before = pair.lost();
    ask(&mut pair.client, 0).await;
    pair.ends().await;
    assert_eq!(pair.lost(), before);
    // Of earlier requests some spans are missing.
    let spans = flat(&collector.received().traces);
    let last = &spans.last().expect("the last request's").trace_id;
    let of_last = spans.iter().filter(|span| span.trace_id == *last);
    assert_eq!(of_last.count(), SPANS);
}

#[tokio::test]
async fn a_collector_that_accepts_and_is_silent_costs_its_spans_alone() {
    let mut pair = Pair::start(sockets::silent(sockets::SETTINGS).await).await;

    pair.compare().await;

    pair.until_lost(|(queue_full, _)| queue_full > 0).await;
    pair.has_complained();
    pair.memory_is_bounded();
    let start = Instant::now();
    pair.ends().await;
    assert!(start.elapsed() >= 3 * SECOND);
    // What was on its way at the end is lost, too.
    let last = |line: &_| message(line) == "spans were lost";
    let line = pair.tried.log().wait_for("what was lost", last).await;
    let of = |reason: &str| line[reason].as_u64().expect("a number");
    let all = (REQUESTS * SPANS) as u64;
    assert_eq!(of("queue_full") + of("export_failed"), all, "{line}");
}

#[tokio::test]
async fn metrics_that_do_not_arrive_are_told_of_once() {
    let collector = Collector::start();
    collector.answers(Answer::Refuses(Code::PermissionDenied));
    let endpoint = format!("http://{}", collector.address);
    let environment = [
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", endpoint.as_str()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "20"),
    ];
    let toml = "[server]\nlisten = \"127.0.0.1:0\"\n";
    let mut server = Process::serve_in(toml, &environment).await;

    collector.is_asked(20).await;
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code().await, Some(0));

    let done = |line: &_| message(line) == "done";
    server.log().wait_for("the end", done).await;
    let lines = server.log().all(|line| line["level"] != "INFO");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(message(&lines[0]), "metrics do not get to the collector");
    assert_eq!(lines[0]["failed"], 1);
    let error = lines[0]["error"].as_str().expect("an error");
    assert!(error.contains("PERMISSION_DENIED"), "{error}");
}

#[tokio::test]
async fn a_slow_collector_gets_what_it_can_take() {
    let collector = Collector::start();
    collector.answers(Answer::TakesAfter(2 * SECOND));
    let mut pair = Pair::start(collector.address).await;

    pair.compare().await;

    pair.until_lost(|(queue_full, _)| queue_full > 0).await;
    pair.has_complained();
    pair.memory_is_bounded();
    pair.ends().await;
    assert!(collector.spans() > 0);
}

#[tokio::test]
async fn a_collector_that_refuses_exports_is_asked_again_for_the_next_ones() {
    let collector = Collector::start();
    collector.answers(Answer::Refuses(Code::ResourceExhausted));
    let mut pair = Pair::start(collector.address).await;

    pair.compare().await;

    // Each batch is offered once: nothing said when to try again.
    let all = (REQUESTS * SPANS) as i64;
    pair.until_lost(|(queue_full, failed)| queue_full + failed == all)
        .await;
    assert!(pair.lost().1 > 0);
    pair.has_complained();
    pair.memory_is_bounded();
    collector.answers(Answer::Takes);
    ask(&mut pair.client, 0).await;
    pair.ends().await;
    assert_eq!(collector.spans(), SPANS);
}

#[tokio::test]
async fn with_a_healthy_collector_the_end_loses_nothing() {
    let tools = Process::demo_tools().await;
    let collector = Collector::start();
    let demo = fanfare::demo::config_toml(tools.address);
    let toml = format!("[server]\nlisten = \"127.0.0.1:0\"\n{demo}");
    let endpoint = format!("http://{}", collector.address);
    // Who waits for that at the end loses everything.
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", AN_HOUR),
    ];
    let mut server = Process::serve_in(&toml, &environment).await;
    let mut client = server.client().await;
    // Fewer than wait for each other: all of them leave at the end.
    const FEW: usize = 25;
    for number in 0..FEW {
        ask(&mut client, number).await;
    }
    // One that the end finds under way.
    let slow = vec![call_with("", "sleep", json!({"seconds": 0.5}))];
    let slow = tokio::spawn(async move { client.execute_tools(request(slow)).await });
    crate::support::ledger::started(&tools, FEW * CALLS + 1).await;

    server.signal(Signal::SIGTERM);
    slow.await.unwrap().expect("an answer");
    assert_eq!(server.exit_code().await, Some(0));

    assert_eq!(collector.spans(), FEW * SPANS + 3);
    let received = collector.received();
    assert_eq!((received.traces.len(), received.metrics.len()), (1, 1));
    assert_eq!(collector.trees().len(), FEW + 1);
}
