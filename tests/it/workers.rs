//! The workers of the real binary: they share the connections, and one whose thread hangs
//! takes only its own with it.

use std::{fs, sync::mpsc, thread};

use fanfare::pb::{
    self, orchestrator_service_client::OrchestratorServiceClient, tool_execution_result::Outcome,
};
use nix::{
    sys::{
        ptrace,
        signal::Signal,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};
use tonic::transport::Channel;

use crate::support::{
    answered, call_with, error, error_info,
    page::{Page, of_admin},
    process::{PATIENCE, Process, message},
    request, result, seen,
    service::Service,
    tool,
};

type Client = OrchestratorServiceClient<Channel>;

const CONNECTIONS: &str = "fanfare_worker_connections";

/// How many connections each of two workers has.
async fn spread(process: &Process) -> [f64; 2] {
    let page = Page::of_process(process).await;
    let of = |worker| page.value(CONNECTIONS, &[("fanfare_worker_index", worker)]);
    [of("0"), of("1")]
}

async fn call(mut client: Client, name: &str, arguments: Value) -> pb::ToolExecutionResult {
    let call = call_with("", name, arguments);
    let answer = client.execute_tools(request(vec![call]));
    let answer = timeout(PATIENCE, answer).await.expect("an answer in time");
    answer.expect("an answer").into_inner().results.remove(0)
}

async fn echo(client: &Client) {
    let result = call(client.clone(), "echo", json!({"a": 1})).await;
    assert!(
        matches!(result.outcome, Some(Outcome::Observation(_))),
        "{result:?}"
    );
}

/// Two callers, each on a worker of its own.
async fn two(process: &Process) -> [Client; 2] {
    let clients = [process.client().await, process.client().await];
    for client in &clients {
        echo(client).await;
    }
    assert_eq!(spread(process).await, [1.0, 1.0]);
    clients
}

/// Stops one thread of a process, until this is dropped.
struct StoppedThread {
    stopped: Option<mpsc::Sender<()>>,
    tracer: Option<thread::JoinHandle<()>>,
}

impl StoppedThread {
    /// The thread of that name.
    fn new(process: &Process, name: &str) -> Self {
        let tasks = format!("/proc/{}/task", process.pid());
        let task = fs::read_dir(tasks).unwrap().find_map(|task| {
            let task = task.unwrap();
            let comm = fs::read_to_string(task.path().join("comm")).unwrap();
            (comm.trim() == name).then(|| task.file_name().into_string().unwrap())
        });
        let thread = Pid::from_raw(task.expect("the thread").parse().unwrap());
        let (stopped, drop) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        // Only the thread that began to trace may go on with it.
        let tracer = thread::spawn(move || {
            ptrace::seize(thread, ptrace::Options::empty()).expect("to trace a child");
            ptrace::interrupt(thread).unwrap();
            waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
            begin.send(()).unwrap();
            let _ = drop.recv();
            ptrace::detach(thread, None).unwrap();
        });
        begun.recv().unwrap();
        Self {
            stopped: Some(stopped),
            tracer: Some(tracer),
        }
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        self.stopped.take();
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.join();
        }
    }
}

#[tokio::test]
async fn connections_are_spread_over_the_workers() {
    let tools = Process::demo_tools().await;
    let process = Process::serve_demo("workers = 2", "", tools.address).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(process.client().await);
    }
    for client in &clients {
        echo(client).await;
    }
    assert_eq!(spread(&process).await, [4.0, 4.0]);
}

/// From the start; and as many callers as there are workers need no others.
#[tokio::test]
async fn each_worker_has_its_own_connection_to_the_tools_unless_they_are_too_few() {
    for (keys, connections) in [("", 3), ("max_connections_per_address = 2", 2)] {
        let service = Service::gathering(6).await;
        let process = Process::serve(&format!(
            "[server]\nlisten = '127.0.0.1:0'\nworkers = 3\n\
             [services.tools]\nendpoint = 'http://{}'\n{keys}\n\
             [tools.tool]\nservice = 'tools'\ntimeout = '5m'\n",
            service.listen().await
        ))
        .await;
        let connected = async {
            let open = "fanfare_tool_service_connections";
            let labels = &[("fanfare_tool_service", "tools")];
            while Page::of_process(&process).await.value(open, labels) < f64::from(connections) {}
        };
        timeout(PATIENCE, connected).await.expect("connections");
        let mut calls = JoinSet::new();
        for _ in 0..6 {
            let client = process.client().await;
            calls.spawn(async move { result(&client, tool("")).await });
        }
        for result in calls.join_all().await {
            assert_eq!((seen(&result), result.attempts), (answered(), 1));
        }
        assert_eq!(service.dials(), connections as usize);
    }
}

#[tokio::test]
async fn a_worker_that_hangs_takes_only_its_own_callers_with_it() {
    let tools = Process::demo_tools().await;
    let keys = "workers = 2\ndrain_timeout = \"1s\"";
    let mut process = Process::serve_demo(keys, "", tools.address).await;
    let one = process.client().await;
    echo(&one).await;
    let name = match spread(&process).await {
        [1.0, 0.0] => "worker-0",
        _ => "worker-1",
    };
    let other = process.client().await;
    echo(&other).await;
    assert_eq!(spread(&process).await, [1.0, 1.0]);

    let stopped = StoppedThread::new(&process, name);
    let waiting = one.clone();
    let held = tokio::spawn(async move { echo(&waiting).await });
    let stuck = |line: &_| message(line).starts_with("a worker is stuck");
    process.log().wait_for("a stuck worker", stuck).await;
    let health = of_admin(&process, "/healthz").await;
    assert!(health.starts_with("HTTP/1.1 503"), "{health}");
    assert!(health.contains(&name.replace('-', " ")), "{health}");

    // The other one goes on, and gets all that comes.
    for _ in 0..4 {
        echo(&other).await;
        echo(&process.client().await).await;
    }
    assert!(!held.is_finished());

    drop(stopped);
    held.await.unwrap();
    let well = |line: &_| message(line).starts_with("a worker was stuck");
    process.log().wait_for("a worker that is well", well).await;
    let health = of_admin(&process, "/healthz").await;
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    echo(&one).await;

    // Nor does it keep the process from ending.
    let stopped = StoppedThread::new(&process, name);
    process.signal(Signal::SIGTERM);
    let done = |line: &_| message(line) == "done";
    process.log().wait_for("the end", done).await;
    drop(stopped);
    assert_eq!(process.exit_code().await, Some(0));
}

/// A freed place goes to the call that has waited longest, whichever worker it is on.
#[tokio::test]
async fn calls_of_all_workers_wait_in_one_queue() {
    let tools = Process::demo_tools().await;
    let toml = fanfare::demo::config_toml(tools.address);
    let toml = toml.replace("[tools.sleep]\n", "[tools.sleep]\nmax_concurrency = 1\n");
    assert!(toml.contains("max_concurrency"));
    let server = "[server]\nlisten = \"127.0.0.1:0\"\nworkers = 2\n";
    let process = Process::serve(&format!("{server}{toml}")).await;
    let clients = two(&process).await;
    let mut running = Vec::new();
    for waiting in 0..6 {
        let client = clients[waiting % 2].clone();
        let sleep = call(client, "sleep", json!({"seconds": 0.3}));
        running.push(tokio::spawn(sleep));
        // The next one comes when this one waits.
        let is_there = |page: &Page| {
            let of = |name| page.value(name, &[("gen_ai_tool_name", "sleep")]);
            of("fanfare_tool_active_calls") + of("fanfare_tool_queue_length") > waiting as f64
        };
        while !is_there(&Page::of_process(&process).await) && !running[waiting].is_finished() {}
    }
    let mut ends = Vec::new();
    for call in running {
        let end = call.await.unwrap().end_time.expect("a time");
        ends.push((end.seconds, end.nanos));
    }
    assert!(ends.is_sorted(), "{ends:?}");
}

#[tokio::test]
async fn failures_on_all_workers_open_one_breaker() {
    let tools = Process::demo_tools().await;
    let toml = fanfare::demo::config_toml(tools.address);
    let (server, breaker) = (
        "[server]\nlisten = \"127.0.0.1:0\"\nworkers = 2\n",
        "[tools.fail.breaker]\nfailures = 6\nopen_time = \"1m\"\nmax_open_time = \"1m\"\n",
    );
    let process = Process::serve(&format!("{server}{toml}{breaker}")).await;
    let clients = two(&process).await;
    let mut reasons = Vec::new();
    for turn in 0..8 {
        let fail = json!({"code": 14, "message": "no"});
        let result = call(clients[turn % 2].clone(), "fail", fail).await;
        reasons.push(error_info(error(&result)).reason);
    }
    let open = reasons.iter().position(|reason| reason == "CIRCUIT_OPEN");
    assert_eq!(open, Some(6), "{reasons:?}");
}
