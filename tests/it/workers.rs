//! The workers of the real binary: they share the connections, and one whose thread hangs
//! takes only its own with it.

use std::{fs, sync::mpsc, thread};

use fanfare::pb::orchestrator_service_client::OrchestratorServiceClient;
use nix::{
    sys::{
        ptrace,
        signal::Signal,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use serde_json::json;
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::support::{
    call_with,
    page::{Page, of_admin},
    process::{PATIENCE, Process, message},
    request,
};

type Client = OrchestratorServiceClient<Channel>;

const CONNECTIONS: &str = "fanfare_worker_connections";

/// How many connections each of two workers has.
async fn spread(process: &Process) -> [f64; 2] {
    let page = Page::of_process(process).await;
    let of = |worker| page.value(CONNECTIONS, &[("fanfare_worker_index", worker)]);
    [of("0"), of("1")]
}

async fn call(client: &mut Client) -> Result<(), tonic::Status> {
    let echo = call_with("", "echo", json!({"a": 1}));
    let answer = client
        .execute_tools(request(vec![echo]))
        .await?
        .into_inner();
    assert_eq!(answer.results.len(), 1);
    Ok(())
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
    for client in &mut clients {
        call(client).await.unwrap();
    }
    assert_eq!(spread(&process).await, [4.0, 4.0]);
}

/// Neither a restart of the tools nor a hanging thread costs those who are elsewhere.
#[tokio::test]
async fn a_worker_that_hangs_takes_only_its_own_callers_with_it() {
    let tools = Process::demo_tools().await;
    let keys = "workers = 2\ndrain_timeout = \"1s\"";
    let mut process = Process::serve_demo(keys, "", tools.address).await;
    let mut one = process.client().await;
    call(&mut one).await.unwrap();
    let is_first = spread(&process).await == [1.0, 0.0];
    let mut other = process.client().await;
    call(&mut other).await.unwrap();
    assert_eq!(spread(&process).await, [1.0, 1.0]);

    let name = if is_first { "worker-0" } else { "worker-1" };
    let stopped = StoppedThread::new(&process, name);
    let mut waiting = one.clone();
    let held = tokio::spawn(async move { call(&mut waiting).await });
    let stuck = |line: &_| message(line).starts_with("a worker is stuck");
    process.log().wait_for("a stuck worker", stuck).await;
    let health = of_admin(&process, "/healthz").await;
    assert!(health.starts_with("HTTP/1.1 503"), "{health}");
    assert!(health.contains("worker"), "{health}");

    // The other one goes on, and gets all that comes.
    for _ in 0..4 {
        call(&mut other).await.unwrap();
        let mut new = process.client().await;
        call(&mut new).await.unwrap();
    }
    assert!(!held.is_finished());

    drop(stopped);
    timeout(PATIENCE, held).await.unwrap().unwrap().unwrap();
    let well = |line: &_| message(line).starts_with("a worker was stuck");
    process.log().wait_for("a worker that is well", well).await;
    let health = of_admin(&process, "/healthz").await;
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    call(&mut one).await.unwrap();

    // Nor does it keep the process from ending.
    let stopped = StoppedThread::new(&process, name);
    process.signal(Signal::SIGTERM);
    process
        .log()
        .wait_for("the end", |line| message(line) == "done")
        .await;
    drop(stopped);
    assert_eq!(process.exit_code().await, Some(0));
}
