//! A tool service that describes its tools, as a test says: also other ones from one
//! moment to the next.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use fanfare::{
    config::Config,
    json,
    net::{Connect, Io},
    pb::{self, tool_service_server::ToolService},
    server::Server,
};
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::{net::TcpListener, sync::watch};
use tonic::{Request, Response, Status};

use super::pipes::PipeConnect;

/// The service. Clones are the same.
#[derive(Clone)]
pub struct Described(Arc<Inner>);

struct Inner {
    says: Mutex<Result<Vec<pb::Tool>, Status>>,
    asked: watch::Sender<usize>,
    dials: AtomicUsize,
    down: Mutex<bool>,
    hangs: Mutex<bool>,
    fails: Mutex<bool>,
}

/// A tool of that name about which no more is said.
pub fn tool(name: &str) -> pb::Tool {
    pb::Tool {
        name: name.to_owned(),
        description: format!("does {name}"),
        ..pb::Tool::default()
    }
}

impl Described {
    pub fn new(tools: &[&str]) -> Self {
        let tools = tools.iter().map(|name| tool(name)).collect();
        Self(Arc::new(Inner {
            says: Mutex::new(Ok(tools)),
            asked: watch::Sender::new(0),
            dials: AtomicUsize::new(0),
            down: Mutex::new(false),
            hangs: Mutex::new(false),
            fails: Mutex::new(false),
        }))
    }

    /// From now on it says this. Calls of what it does not list are UNIMPLEMENTED.
    pub fn say(&self, says: Result<Vec<pb::Tool>, Status>) {
        *self.0.says.lock().expect("it") = says;
    }

    /// From now on it has these tools.
    pub fn have(&self, names: &[&str]) {
        self.say(Ok(names.iter().map(|name| tool(name)).collect()));
    }

    /// Whether nobody gets a connection.
    pub fn be_down(&self, down: bool) {
        *self.0.down.lock().expect("it") = down;
    }

    /// Whether it never says which tools it has.
    pub fn hang(&self, hang: bool) {
        *self.0.hangs.lock().expect("it") = hang;
    }

    /// Whether its tools are UNAVAILABLE.
    pub fn fail(&self, fail: bool) {
        *self.0.fails.lock().expect("it") = fail;
    }

    /// How often it was asked which tools it has.
    pub fn asked(&self) -> usize {
        *self.0.asked.borrow()
    }

    /// Waits until it was asked so often.
    pub async fn asked_times(&self, times: usize) {
        let mut asked = self.0.asked.subscribe();
        asked.wait_for(|asked| *asked >= times).await.expect("it");
    }

    pub fn dials(&self) -> usize {
        self.0.dials.load(Ordering::SeqCst)
    }

    /// The way to it through pipes.
    pub async fn pipes(&self) -> Arc<Pipes> {
        Arc::new(Pipes {
            service: self.clone(),
            pipes: PipeConnect(Arc::new(
                Server::tools(&Config::default(), self.clone()).await,
            )),
        })
    }

    /// Serves on a port as long as the test runs.
    pub async fn listen(&self) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = Server::tools(&Config::default(), self.clone()).await;
        tokio::spawn(server.run(listener, std::future::pending()));
        address
    }
}

/// See [`Described::pipes`].
pub struct Pipes {
    service: Described,
    pipes: PipeConnect,
}

impl Connect for Pipes {
    fn connect(&self) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        self.service.0.dials.fetch_add(1, Ordering::SeqCst);
        if *self.service.0.down.lock().expect("it") {
            return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) });
        }
        self.pipes.connect()
    }
}

#[tonic::async_trait]
impl ToolService for Described {
    async fn call_tool(
        &self,
        request: Request<pb::CallToolRequest>,
    ) -> Result<Response<pb::CallToolResponse>, Status> {
        let name = request.into_inner().name;
        if *self.0.fails.lock().expect("it") {
            return Err(Status::unavailable("not now"));
        }
        let says = self.0.says.lock().expect("it").clone();
        if !says.is_ok_and(|tools| tools.iter().any(|tool| tool.name == name)) {
            return Err(Status::unimplemented(format!("no tool {name}")));
        }
        Ok(Response::new(pb::CallToolResponse {
            observation: Some(json::encode_value(&json!({ "called": name }))),
        }))
    }

    async fn list_tools(
        &self,
        _: Request<pb::ListToolsRequest>,
    ) -> Result<Response<pb::ListToolsResponse>, Status> {
        let says = self.0.says.lock().expect("it").clone();
        self.0.asked.send_modify(|asked| *asked += 1);
        if *self.0.hangs.lock().expect("it") {
            std::future::pending::<()>().await;
        }
        let tools = says?;
        Ok(Response::new(pb::ListToolsResponse {
            tools,
            ..pb::ListToolsResponse::default()
        }))
    }
}
