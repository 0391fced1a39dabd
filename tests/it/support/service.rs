//! A tool service that does what a test says, behind in-memory pipes or on a real
//! socket: it can be killed and started again, and remembers what it was asked.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare::{
    catalog::Catalog,
    config::Config,
    net::{Connect, Io},
    pb::{
        CallToolRequest, CallToolResponse, ListToolsRequest, ListToolsResponse,
        tool_service_server::ToolService,
    },
    server::Server,
};
use futures_util::future::BoxFuture;
use tokio::{
    net::TcpListener,
    sync::{Barrier, watch},
    task::AbortHandle,
    time::{Instant, timeout},
};
use tonic::{Code, Request, Response, Status};

use super::{
    pipes::{self, Client},
    process::PATIENCE,
};

const PIPE_BYTES: usize = 64 << 10;

type Behaviour = dyn Fn(CallToolRequest) -> BoxFuture<'static, Result<(), Status>> + Send + Sync;

/// The service. Clones are the same.
#[derive(Clone)]
pub struct Service {
    server: Arc<Server>,
    memory: Arc<Memory>,
    down: Arc<AtomicBool>,
    dials: Arc<AtomicUsize>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
}

#[derive(Default)]
struct Memory {
    met: Mutex<Vec<Met>>,
    dropped: AtomicUsize,
    running: watch::Sender<usize>,
    most: AtomicUsize,
}

/// An attempt that the service met.
#[derive(Clone, Debug, PartialEq)]
pub struct Met {
    pub id: String,
    pub attempt: u32,
    pub at: Instant,
}

struct Tools {
    memory: Arc<Memory>,
    behaviour: Box<Behaviour>,
}

impl Service {
    /// A service whose tools answer with nothing after what `behaviour` does.
    pub async fn start<F, Fut>(behaviour: F) -> Self
    where
        F: Fn(CallToolRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let memory = Arc::new(Memory::default());
        let tools = Tools {
            memory: Arc::clone(&memory),
            behaviour: Box::new(move |call| Box::pin(behaviour(call))),
        };
        // However few connections there are, no call waits for a stream; and however
        // busy the machine is, none is given up.
        let mut config = Config::default();
        config.server.max_streams_per_connection = 100_000;
        config.server.keepalive_interval = Duration::from_secs(3600);
        config.limits.max_request_timeout = Duration::from_secs(24 * 3600);
        Self {
            server: Arc::new(Server::tools(&config, tools).await),
            memory,
            down: Arc::default(),
            dials: Arc::default(),
            connections: Arc::default(),
        }
    }

    /// A service that answers none of so many calls before it has them all.
    pub async fn gathering(count: usize) -> Self {
        let all = Arc::new(Barrier::new(count));
        Self::start(move |_| {
            let all = Arc::clone(&all);
            async move {
                all.wait().await;
                Ok(())
            }
        })
        .await
    }

    /// A client of Fanfare with this configuration, whose service is this one. It is
    /// to be called `tools`.
    pub async fn client(&self, toml: &str) -> Client {
        let toml = format!("{toml}\n[services.tools]\nendpoint = \"http://tools\"\n");
        self.client_of(&Config::parse(&toml).expect("a configuration"))
            .await
    }

    /// The same for a whole configuration.
    pub async fn client_of(&self, config: &Config) -> Client {
        let catalog = Catalog::with_connect(config, |_| Arc::new(self.clone()));
        pipes::client(config, catalog).await
    }

    /// Serves on a port of its own too, as long as the test runs.
    pub async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let this = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                this.dials.fetch_add(1, Ordering::SeqCst);
                stream.set_nodelay(true).expect("an open socket");
                if !this.down.load(Ordering::SeqCst) {
                    this.serve(stream);
                }
            }
        });
        address
    }

    /// Waits until it works on so many attempts, as long as there is progress.
    pub async fn works_on(&self, count: usize) {
        let mut running = self.memory.running.subscribe();
        while *running.borrow_and_update() != count {
            let change = timeout(PATIENCE, running.changed()).await;
            change
                .unwrap_or_else(|_| panic!("{} attempts run, not {count}", self.running()))
                .expect("the service");
        }
    }

    /// Serves one connection.
    pub fn serve(&self, io: impl Io + 'static) {
        let connection = tokio::spawn(self.server.serve_connection(io));
        let handle = connection.abort_handle();
        self.connections.lock().expect("them").push(handle);
    }

    /// Breaks its connections and takes no others.
    pub fn kill(&self) {
        self.down.store(true, Ordering::SeqCst);
        for connection in self.connections.lock().expect("them").drain(..) {
            connection.abort();
        }
    }

    /// Takes connections again.
    pub fn start_again(&self) {
        self.down.store(false, Ordering::SeqCst);
    }

    /// What it was asked, in order.
    pub fn met(&self) -> Vec<Met> {
        self.memory.met.lock().expect("them").clone()
    }

    /// The numbers of the attempts at the call of that id.
    pub fn attempts(&self, id: &str) -> Vec<u32> {
        let met = self.met().into_iter();
        met.filter(|met| met.id == id)
            .map(|met| met.attempt)
            .collect()
    }

    /// How many attempts it was asked to stop.
    pub fn cancelled(&self) -> usize {
        self.memory.dropped.load(Ordering::SeqCst)
    }

    /// How many attempts it works on.
    pub fn running(&self) -> usize {
        *self.memory.running.borrow()
    }

    /// On how many it has worked at a time.
    pub fn most(&self) -> usize {
        self.memory.most.load(Ordering::SeqCst)
    }

    /// How often somebody wanted a connection.
    pub fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }
}

/// The tool's own UNAVAILABLE, with what it says about trying again.
pub fn unavailable(pushback: Option<&'static str>) -> Status {
    let mut status = Status::new(Code::Unavailable, "not now");
    if let Some(pushback) = pushback {
        let value = pushback.parse().expect("a value");
        status
            .metadata_mut()
            .insert("grpc-retry-pushback-ms", value);
    }
    status
}

impl Connect for Service {
    fn connect(&self) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) });
        }
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        self.serve(theirs);
        Box::pin(async move { Ok(Box::new(ours) as Box<dyn Io>) })
    }
}

#[tonic::async_trait]
impl ToolService for Tools {
    async fn call_tool(
        &self,
        request: Request<CallToolRequest>,
    ) -> Result<Response<CallToolResponse>, Status> {
        let request = request.into_inner();
        self.memory.met.lock().expect("them").push(Met {
            id: request.id.clone(),
            attempt: request.attempt,
            at: Instant::now(),
        });
        self.memory.running.send_modify(|running| {
            *running += 1;
            self.memory.most.fetch_max(*running, Ordering::SeqCst);
        });
        let mut running = Running(&self.memory, true);
        let result = (self.behaviour)(request).await;
        running.1 = false;
        result.map(|()| Response::new(CallToolResponse::default()))
    }

    async fn list_tools(
        &self,
        _: Request<ListToolsRequest>,
    ) -> Result<Response<ListToolsResponse>, Status> {
        Err(Status::unimplemented("it describes nothing"))
    }
}

/// An attempt that is being worked on. Notes whether it was dropped.
struct Running<'a>(&'a Memory, bool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(self.1.into(), Ordering::SeqCst);
        self.0.running.send_modify(|running| *running -= 1);
    }
}
