//! The end of the process, as everything that serves sees it: first nothing new
//! is taken on, later what is left is cut short.

use futures_util::future::BoxFuture;
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Refusing,
    Cut,
}

/// Watches the drain. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<Phase>);

/// Controls the drain. If it is dropped, everything that watches is cut short.
#[derive(Debug)]
pub struct DrainController(watch::Sender<Phase>);

/// A drain that has not begun.
pub fn drain() -> (DrainController, Drain) {
    let (sender, receiver) = watch::channel(Phase::Serving);
    (DrainController(sender), Drain(receiver))
}

impl DrainController {
    /// From here on nothing new is taken on.
    pub fn refuse(&self) {
        self.0.send_replace(Phase::Refusing);
    }

    /// From here on what still runs is cut short.
    pub fn abort(&self) {
        self.0.send_replace(Phase::Cut);
    }
}

impl Drain {
    /// Whether new requests are to be refused.
    pub fn is_refusing(&self) -> bool {
        *self.0.borrow() >= Phase::Refusing
    }

    /// Completes when new requests are to be refused.
    pub fn refusing(&self) -> BoxFuture<'static, ()> {
        self.reached(Phase::Refusing)
    }

    /// Completes when what still runs is to be cut short.
    pub fn aborted(&self) -> BoxFuture<'static, ()> {
        self.reached(Phase::Cut)
    }

    fn reached(&self, phase: Phase) -> BoxFuture<'static, ()> {
        let mut receiver = self.0.clone();
        Box::pin(async move {
            // An error means that the controller is gone: the end as well.
            let _ = receiver.wait_for(|&now| now >= phase).await;
        })
    }
}
