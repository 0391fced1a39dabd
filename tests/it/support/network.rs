//! What lies between a server and its tools: in-memory pipes that are counted, and
//! a resolver that answers what a test says.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare::{
    catalog::Catalog,
    config::Config,
    demo::tools::DemoTools,
    net::{Connect, Internet, Io, Network},
    server::Server,
};
use futures_util::future::BoxFuture;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    hooked::{Hook, Hooked},
    pipes::{self, Client, PipeConnect},
    process::PATIENCE,
};

/// Pipes to the demo tools.
pub struct Pipes {
    tools: Arc<Server>,
    dialed: AtomicUsize,
    open: Arc<AtomicUsize>,
    slow: Mutex<Duration>,
}

impl Pipes {
    /// To demo tools that are served as `server` says: `[server]` keys.
    pub async fn new(server: &str) -> Arc<Self> {
        let config = Config::parse(&format!("[server]\n{server}")).expect("a configuration");
        Arc::new(Self {
            tools: Arc::new(Server::tools(&config, DemoTools::default()).await),
            dialed: AtomicUsize::new(0),
            open: Arc::default(),
            slow: Mutex::default(),
        })
    }

    /// A client of a server whose tools are at the other end; with these keys of
    /// the service, and some `[limits]`.
    pub async fn client(self: &Arc<Self>, service: &str, limits: &str) -> Client {
        let toml = format!(
            "[limits]\n{limits}\n{}",
            demo_service("http://tools", service)
        );
        let config = Config::parse(&toml).expect("a configuration");
        let catalog = Catalog::with_connect(&config, |_| Arc::clone(self) as _);
        pipes::client(&config, catalog).await
    }

    /// How long a dial takes from now on.
    pub fn dials_take(&self, time: Duration) {
        *self.slow.lock().expect("the time") = time;
    }

    /// How many were opened so far.
    pub fn dialed(&self) -> usize {
        self.dialed.load(Ordering::SeqCst)
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl Connect for Pipes {
    fn connect(&self) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        self.dialed.fetch_add(1, Ordering::SeqCst);
        let time = *self.slow.lock().expect("the time");
        let pipe = PipeConnect(Arc::clone(&self.tools)).connect();
        let open = Arc::clone(&self.open);
        Box::pin(async move {
            sleep(time).await;
            let io = pipe.await?;
            open.fetch_add(1, Ordering::SeqCst);
            let hook = Counted(open);
            Ok(Box::new(Hooked { io, hook }) as Box<dyn Io>)
        })
    }
}

/// The demo tools at `endpoint` (or, in brackets, endpoints), as TOML.
pub fn demo_service(endpoint: &str, keys: &str) -> String {
    let endpoint = if endpoint.starts_with('[') {
        format!("endpoints = {endpoint}")
    } else {
        format!("endpoint = '{endpoint}'")
    };
    // What connections do is what is looked at: no call waits for a better one.
    let mut toml = format!("[services.demo]\n{endpoint}\n{keys}\n");
    for tool in fanfare::demo::TOOLS {
        let patience = "retry.connect_patience = '0s'";
        toml.push_str(&format!(
            "[tools.{}]\nservice = 'demo'\n{patience}\n",
            tool.0
        ));
    }
    toml
}

/// Counts a pipe that is open.
struct Counted(Arc<AtomicUsize>);

impl Hook<Box<dyn Io>> for Counted {
    fn is_dropped(&mut self, _: &mut Box<dyn Io>) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A resolver that says what it is told to, and TCP.
pub struct Names {
    answers: Mutex<BTreeMap<String, Answer>>,
    asked: watch::Sender<usize>,
}

#[derive(Clone, Debug)]
pub enum Answer {
    Addresses(Vec<SocketAddr>),
    Failure,
    /// No answer, for ever.
    Silence,
}

impl Names {
    pub fn new<const N: usize>(answers: [(&str, Answer); N]) -> Arc<Self> {
        let answers = answers.map(|(name, answer)| (name.to_owned(), answer));
        Arc::new(Self {
            answers: Mutex::new(answers.into()),
            asked: watch::Sender::new(0),
        })
    }

    /// A client of a server whose service `demo` has these endpoints and keys.
    pub async fn client(self: &Arc<Self>, endpoints: &str, keys: &str) -> Client {
        let config = Config::parse(&demo_service(endpoints, keys)).expect("a configuration");
        let catalog = Catalog::with_network(&config, |_| Arc::clone(self) as _);
        pipes::client(&config, catalog).await
    }

    /// Changes an answer.
    pub fn answer(&self, name: &str, answer: Answer) {
        let name = name.to_owned();
        self.answers.lock().expect("them").insert(name, answer);
    }

    /// Changes an answer, and waits until it was given and taken in.
    pub async fn now(&self, name: &str, answer: Answer) {
        let answered = *self.asked.borrow();
        self.answer(name, answer);
        // The one that was being given, the new one, and another after that was
        // taken in.
        self.asked(answered + 3).await;
    }

    /// Waits until that many questions were asked.
    pub async fn asked(&self, count: usize) {
        let mut asked = self.asked.subscribe();
        let asked = asked.wait_for(|asked| *asked >= count);
        timeout(PATIENCE, asked)
            .await
            .expect("questions")
            .expect("the resolver");
    }
}

impl Network for Names {
    fn resolve(&self, host: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let answer = self.answers.lock().expect("them").get(host).cloned();
        self.asked.send_modify(|asked| *asked += 1);
        Box::pin(async move {
            match answer {
                Some(Answer::Addresses(addresses)) => Ok(addresses),
                Some(Answer::Silence) => std::future::pending().await,
                Some(Answer::Failure) | None => Err(io::Error::other("SERVFAIL")),
            }
        })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        Internet::default().connect(address)
    }
}
