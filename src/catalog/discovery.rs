//! Asks services which tools they have, beside the traffic, and puts catalogues in force.
//!
//! Each source has a task of its own on the main thread: it asks at the start, every
//! `refresh_interval`, and soon after the service did not know a tool. A service that is
//! away, or answers with nonsense, is asked again after growing pauses; what it told last
//! stays until then. A catalogue is published only if something changed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Catalog,
    builder::Builder,
    snapshot::{Publisher, Snapshot, Snapshots},
    source::{Source, TIME_LIMIT, Told, Unmatched, status::Status},
};
use crate::{
    config::{self, Config, Limits},
    net::{Connect, Internet, Network, OneAddress},
};

/// How long after it was asked a service is asked again at the earliest.
const LEAST_INTERVAL: Duration = Duration::from_secs(10);
/// The first pause after a failure; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How many things that are wrong with descriptors have a line of their own in the log.
const MOST_NOTES: usize = 10;
/// The longest, unless the refresh interval is shorter.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Keeps the catalogue of a configuration up to date.
#[derive(Debug)]
pub struct Discovery {
    publishing: Arc<Publishing>,
    snapshots: Snapshots,
}

/// Makes catalogues and puts them in force, one at a time.
#[derive(Debug)]
struct Publishing {
    // std's Mutex: never held across an await, and by tasks that may take a moment.
    builder: Mutex<Builder>,
    publisher: Publisher,
    limits: Limits,
}

/// A service that is asked.
struct Watched {
    name: String,
    refresh: Duration,
    source: Arc<Source>,
    status: Arc<Status>,
    /// Since when it can't be asked, and why, as the log was told.
    failing: Option<String>,
    /// What is to be exposed and is not there, as the log was told.
    unmatched: Option<Unmatched>,
}

impl Discovery {
    /// Of the services of `config`, reached over TCP. Nobody is asked before it runs.
    pub fn new(config: &Config) -> Self {
        Self::with_network(config, |service| Arc::new(Internet::of(service)))
    }

    /// The same, each service reached by what `connect` makes, whatever its endpoints are.
    pub fn with_connect(
        config: &Config,
        connect: impl Fn(&config::Service) -> Arc<dyn Connect>,
    ) -> Self {
        Self::with_network(config, |service| Arc::new(OneAddress(connect(service))))
    }

    /// The same, each service reached through what `network` makes.
    pub fn with_network(
        config: &Config,
        network: impl Fn(&config::Service) -> Arc<dyn Network>,
    ) -> Self {
        let mut builder = Builder::new(config, network);
        let limits = config.limits.clone();
        let publisher = Publisher::new(Snapshot {
            catalog: builder.catalog(),
            limits: limits.clone(),
        });
        Self {
            snapshots: publisher.snapshots(),
            publishing: Arc::new(Publishing {
                builder: Mutex::new(builder),
                publisher,
                limits,
            }),
        }
    }

    /// What is in force, from now on.
    pub fn snapshots(&self) -> Snapshots {
        self.snapshots.clone()
    }

    /// The catalogue in force now.
    pub fn catalog(&self) -> Catalog {
        self.snapshots.current().catalog.clone()
    }

    /// Asks the services, and does not end. Dropping it ends all that it does.
    pub async fn run(self) {
        let sources = self.publishing.lock().sources();
        let mut tasks = JoinSet::new();
        for (name, config, source, status) in sources {
            let watched = Watched {
                name,
                refresh: config.refresh_interval,
                source: Arc::new(source),
                status,
                failing: None,
                unmatched: None,
            };
            tasks.spawn(watched.follow(Arc::clone(&self.publishing)));
        }
        while tasks.join_next().await.is_some() {}
        std::future::pending().await
    }
}

impl Watched {
    async fn follow(mut self, publishing: Arc<Publishing>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let asked = Instant::now();
            // What is asked now answers those who wanted it to be asked before.
            let _ = self.status.stale.notified().now_or_never();
            let wait = match self.ask().await {
                Ok(told) => {
                    self.works();
                    self.compare(&told);
                    self.publish(&publishing, told).await;
                    pause = FIRST_PAUSE;
                    self.refresh.mul_f64(0.9 + 0.2 * fastrand::f64())
                }
                Err(reason) => {
                    self.fails(reason);
                    let wait = pause.mul_f64(0.8 + 0.4 * fastrand::f64());
                    pause = (2 * pause).min(LONGEST_PAUSE.min(self.refresh.max(FIRST_PAUSE)));
                    wait
                }
            };
            tokio::select! {
                () = sleep_until(Instant::now() + wait) => {}
                () = self.status.stale.notified() => sleep_until(asked + LEAST_INTERVAL).await,
            }
        }
    }

    async fn ask(&self) -> Result<Told, String> {
        match timeout(TIME_LIMIT, self.source.ask()).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {TIME_LIMIT:?}")),
        }
    }

    fn works(&mut self) {
        self.status.succeeded();
        if self.failing.take().is_some() {
            let service = self.name.as_str();
            tracing::info!(service, "can be asked for its tools again");
        }
    }

    /// Tells the log if what is to be exposed is not there, once until that changes.
    fn compare(&mut self, told: &Told) {
        if self.unmatched == told.unmatched {
            return;
        }
        self.unmatched.clone_from(&told.unmatched);
        let service = self.name.as_str();
        match &self.unmatched {
            Some(unmatched) => tracing::warn!(service, "{unmatched}"),
            None => tracing::info!(service, "it has all that is to be exposed"),
        }
    }

    /// Tells the log what is new about it.
    fn fails(&mut self, reason: String) {
        self.status.failed();
        if self.failing.as_ref() != Some(&reason) {
            let service = self.name.as_str();
            tracing::warn!(service, reason, "can't ask for its tools");
            self.failing = Some(reason);
        }
    }

    /// Large catalogues take a moment, in which others go on.
    async fn publish(&self, publishing: &Arc<Publishing>, told: Told) {
        let (publishing, name) = (Arc::clone(publishing), self.name.clone());
        let status = Arc::clone(&self.status);
        let published = spawn_blocking(move || publishing.publish(&name, told, &status));
        if let Err(error) = published.await {
            let service = self.name.as_str();
            tracing::error!(service, %error, "a catalogue could not be made");
        }
    }
}

impl Publishing {
    fn lock(&self) -> std::sync::MutexGuard<'_, Builder> {
        self.builder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, service: &str, told: Told, status: &Status) {
        let mut builder = self.lock();
        let notes = told.notes.clone();
        if !builder.take(service, told) {
            return;
        }
        for note in notes.iter().take(MOST_NOTES) {
            tracing::warn!(service, "in its descriptors: {note}");
        }
        let catalog = builder.catalog();
        status.changed();
        let (tools, left_out) = (status.tools(), status.left_out());
        tracing::info!(service, tools, left_out, "its tools have changed");
        let limits = self.limits.clone();
        self.publisher.replace(Snapshot { limits, catalog });
    }
}
