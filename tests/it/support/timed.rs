//! A tool service over in-memory pipes that plays a script at an exact time: bare
//! HTTP/2 under a paused clock.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fanfare::{
    config::Config,
    registry::Registry,
    tool::{Connect, Io},
};
use futures_util::future::BoxFuture;
use h2::server::{self, SendResponse};
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
    calls: Arc<AtomicUsize>,
    dials: Arc<AtomicUsize>,
}

impl Timed {
    pub fn new(script: Script, after: Duration) -> Self {
        Self {
            script,
            after,
            calls: Arc::default(),
            dials: Arc::default(),
        }
    }

    /// A client of a server with the tool `tool` at this service, with these keys of
    /// the tool.
    pub async fn client(&self, tool: &str) -> Client {
        let toml = format!(
            "[services.timed]\nendpoint = \"http://timed\"\n\
             [tools.tool]\nservice = \"timed\"\n{tool}\n"
        );
        let config = Config::parse(&toml).expect("a configuration");
        let registry = Registry::with_connect(&config, |_| Arc::new(self.clone()));
        pipes::client(&config, registry).await
    }

    /// How many calls have come.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// How often somebody wanted a connection.
    pub fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }

    async fn serve(self, io: DuplexStream) {
        let mut connection = server::handshake(io).await.expect("a client");
        let mut calls = JoinSet::new();
        loop {
            tokio::select! {
                call = connection.accept() => {
                    let Some(Ok((_, respond))) = call else { return };
                    self.calls.fetch_add(1, Ordering::SeqCst);
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
