//! A tool service over in-memory pipes that plays a script at an exact time: bare
//! HTTP/2 under a paused clock.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fanfare::{
    catalog::Catalog,
    config::Config,
    net::{Connect, Io},
};
use futures_util::future::BoxFuture;
use h2::server::{self, SendResponse};
use http::HeaderMap;
use tokio::{
    io::DuplexStream,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    hostile::{Script, Step},
    pipes::{self, Client},
};

/// The service: it does that with each call, so long after the call came.
#[derive(Clone)]
pub struct Timed {
    script: Script,
    after: Duration,
    max_header_list: Option<u32>,
    heads: Arc<Mutex<Vec<HeaderMap>>>,
    dials: Arc<AtomicUsize>,
}

impl Timed {
    pub fn new(script: Script, after: Duration) -> Self {
        Self {
            script,
            after,
            max_header_list: None,
            heads: Arc::default(),
            dials: Arc::default(),
        }
    }

    /// The same, announcing that it takes header lists of so many bytes. It refuses
    /// larger ones with 431, and over four times that it closes the connection.
    pub fn announcing(self, max_header_list: u32) -> Self {
        Self {
            max_header_list: Some(max_header_list),
            ..self
        }
    }

    /// A client of a server with the tool `tool` at this service, with these keys of
    /// the tool.
    pub async fn client(&self, tool: &str) -> Client {
        let (config, catalog) = self.catalog(tool);
        pipes::client(&config, catalog).await
    }

    /// The same, before there is a server.
    pub fn catalog(&self, tool: &str) -> (Config, Catalog) {
        let toml = format!(
            "[services.timed]\nendpoint = \"http://timed\"\n\
             [tools.tool]\nservice = \"timed\"\n{tool}\n"
        );
        let config = Config::parse(&toml).expect("a configuration");
        let catalog = Catalog::with_connect(&config, |_| Arc::new(self.clone()));
        (config, catalog)
    }

    /// How many calls have come.
    pub fn calls(&self) -> usize {
        self.heads().len()
    }

    /// The headers of the calls that have come.
    pub fn heads(&self) -> Vec<HeaderMap> {
        self.heads.lock().expect("them").clone()
    }

    /// How often somebody wanted a connection.
    pub fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }

    async fn serve(self, io: DuplexStream) {
        let mut builder = server::Builder::new();
        if let Some(max) = self.max_header_list {
            builder.max_header_list_size(max);
        }
        let mut connection = builder.handshake(io).await.expect("a client");
        let mut calls = JoinSet::new();
        loop {
            tokio::select! {
                call = connection.accept() => {
                    let Some(Ok((request, respond))) = call else { return };
                    let head = request.headers().clone();
                    self.heads.lock().expect("them").push(head);
                    calls.spawn(self.clone().play(respond, Instant::now()));
                }
                // A script that ends the connection is over.
                Some(ends) = calls.join_next() => if ends.expect("a script") { return },
            }
        }
    }

    async fn play(self, mut respond: SendResponse<Bytes>, came: Instant) -> bool {
        sleep_until(came + self.after).await;
        let mut body: Option<h2::SendStream<Bytes>> = None;
        for step in self.script {
            let sent = match step {
                Step::Head(head) => respond
                    .send_response(head, false)
                    .map(|stream| body = Some(stream)),
                Step::TrailersOnly(head) => respond.send_response(head, true).map(drop),
                Step::Data(data) => body.as_mut().expect("a head before").send_data(data, false),
                Step::Trailers(trailers) => body
                    .as_mut()
                    .expect("a head before")
                    .send_trailers(trailers),
                Step::EndStream => body
                    .as_mut()
                    .expect("a head before")
                    .send_data(Bytes::new(), true),
                Step::Reset(reason) => {
                    // A reset would overtake what is not yet sent.
                    tokio::time::sleep(Duration::from_nanos(1)).await;
                    match &mut body {
                        Some(body) => body.send_reset(reason),
                        None => respond.send_reset(reason),
                    }
                    Ok(())
                }
                Step::Cut => return true,
                other => panic!("no time for {other:?}"),
            };
            sent.expect("an open stream");
        }
        // Dropping the stream would reset it.
        std::future::pending().await
    }
}

impl Connect for Timed {
    fn connect(&self) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(self.clone().serve(theirs));
        Box::pin(async move { Ok(Box::new(ours) as Box<dyn Io>) })
    }
}
