//! How calls end early, through both.

use std::{
    io,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use fanfare::{
    config::Config,
    net::{Connect, Io},
    server::{self, Readiness, Server},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::{Notify, oneshot},
    time::{Instant, timeout},
};
use tonic::Code;

use super::{behind as behind_it, in_front_of};
use crate::support::{
    SECOND, Seen, call, config, error, failed, ms,
    pipes::{self, Client, PipeConnect},
    process::PATIENCE,
    request, result, seen,
    tools::{Running, Scripted, catalog},
};

const TOOLS: &str = "tools.hangs = { service = 'other' }\ntools.tool = { service = 'other' }\n";

/// Pipes to a server that is made later.
#[derive(Default)]
pub struct Later(OnceLock<Weak<Server>>);

impl Later {
    pub fn is(&self, server: &Arc<Server>) {
        self.0.set(Arc::downgrade(server)).unwrap();
    }
}

impl Connect for Later {
    fn connect(&self) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let server = self.0.get().and_then(Weak::upgrade);
        PipeConnect(server.expect("a server")).connect()
    }
}

/// Waits until `running` is at `count`.
async fn settles_at(running: &Running, count: usize) {
    let settled = async {
        while running.count() != count {
            tokio::time::sleep(ms(1)).await;
        }
    };
    let settled = timeout(PATIENCE, settled).await;
    settled.unwrap_or_else(|_| panic!("{} calls run, not {count}", running.count()));
}

#[tokio::test(start_paused = true)]
async fn both_keep_to_the_caller_s_deadline() {
    let running = Running::default();
    let tools = catalog([("hangs", Scripted::hangs(&running))]);
    let behind = Arc::new(Server::orchestrator(&config(), tools).await);
    let mut front = in_front_of(&behind, TOOLS).await;
    let mut request = tonic::Request::new(request(vec![call("", "hangs")]));
    request.set_timeout(10 * SECOND);
    let start = Instant::now();
    let answer = front.execute_tools(request).await.unwrap().into_inner();
    // Each keeps its time to answer.
    assert_eq!(start.elapsed(), 10 * SECOND - ms(100));
    let expected = failed(Code::DeadlineExceeded, "TOOL_FAILED", "done");
    assert_eq!(seen(&answer.results[0]), expected);
    let info = behind_it(&answer.results[0]);
    assert_eq!(info.reason, "DEADLINE_EXCEEDED");
    assert_eq!(info.metadata["limit"], "request");
    assert_eq!(info.metadata["effect"], "maybe");
    assert_eq!(running.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_behind_is_told() {
    let running = Running::default();
    let hangs = Scripted::hangs(&running).timeout(SECOND);
    let tools = catalog([("hangs", hangs)]);
    let inner = Arc::new(Server::orchestrator(&config(), tools).await);
    let front = in_front_of(&inner, TOOLS).await;
    let start = Instant::now();
    let result = result(&front, call("", "hangs")).await;
    assert_eq!(start.elapsed(), SECOND);
    let expected = failed(Code::DeadlineExceeded, "TOOL_FAILED", "done");
    assert_eq!(seen(&result), expected);
    let info = behind_it(&result);
    assert_eq!(info.reason, "DEADLINE_EXCEEDED");
    assert_eq!(info.metadata["limit"], "tool");
    assert_eq!(info.metadata["effect"], "maybe");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_ends_the_call_behind() {
    let running = Running::default();
    let tools = catalog([("hangs", Scripted::hangs(&running))]);
    let inner = Arc::new(Server::orchestrator(&config(), tools).await);
    let mut front = in_front_of(&inner, TOOLS).await;
    let mut rpc = front
        .execute_tools(request(vec![call("", "hangs")]))
        .boxed();
    assert!((&mut rpc).now_or_never().is_none());
    tokio::select! {
        _ = &mut rpc => panic!("a hanging tool answered"),
        () = settles_at(&running, 1) => {}
    }
    drop(rpc);
    settles_at(&running, 0).await;
}

/// A Fanfare on a port, and one in front of it.
struct OnPort {
    front: Client,
    stop: oneshot::Sender<()>,
    readiness: Box<dyn Fn() -> Readiness>,
    ended: tokio::task::JoinHandle<()>,
}

async fn on_port(drain_timeout: Duration, tools: fanfare::catalog::Catalog) -> OnPort {
    let mut config = config();
    config.server.drain_timeout = drain_timeout;
    config.server.drain_delay = Duration::ZERO;
    let server = Server::orchestrator(&config, tools).await;
    let readiness = Box::new(server.readiness());
    let listener: TcpListener = server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(server.run(listener, stopped.map(drop)));
    let toml = format!("services.other.endpoint = 'http://{address}'\n{TOOLS}");
    let config = Config::parse(&toml).unwrap();
    let front = pipes::client(&config, fanfare::catalog::Catalog::new(&config)).await;
    OnPort {
        front,
        stop,
        readiness,
        ended,
    }
}

#[tokio::test]
async fn what_runs_when_it_drains_is_answered() {
    let (running, go_on) = (Running::default(), Arc::new(Notify::new()));
    let (inside, wait) = (running.clone(), Arc::clone(&go_on));
    let tool = Scripted::new(move |_| {
        let (inside, wait) = (inside.enter(), Arc::clone(&wait));
        async move {
            let _inside = inside;
            wait.notified().await;
            Ok(fanfare::json::encode_value(&json!("done")))
        }
    });
    let it = on_port(PATIENCE, catalog([("tool", tool)])).await;
    let front = it.front.clone();
    let call = tokio::spawn(async move { result(&front, call("", "tool")).await });
    settles_at(&running, 1).await;
    it.stop.send(()).unwrap();
    while (it.readiness)() != Readiness::Draining {
        tokio::time::sleep(ms(1)).await;
    }
    go_on.notify_one();
    let result = timeout(PATIENCE, call).await.unwrap().unwrap();
    assert_eq!(seen(&result), Seen::Ok(json!("done")));
    timeout(PATIENCE, it.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_outlasts_the_drain_says_so() {
    let running = Running::default();
    let it = on_port(ms(10), catalog([("hangs", Scripted::hangs(&running))])).await;
    let front = it.front.clone();
    let call = tokio::spawn(async move { result(&front, call("", "hangs")).await });
    settles_at(&running, 1).await;
    it.stop.send(()).unwrap();
    let result = timeout(PATIENCE, call).await.unwrap().unwrap();
    assert_eq!(error(&result).code, Code::Cancelled as i32);
    assert_eq!(behind_it(&result).reason, "CANCELLED");
    assert_eq!(running.count(), 0);
    timeout(PATIENCE, it.ended).await.unwrap().unwrap();
}
