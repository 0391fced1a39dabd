//! A bad line between Fanfare and a tool service: bytes take their time, or stop.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

/// Forwards connections to `target`. Lives as long as the test's runtime.
pub struct Relay {
    pub address: SocketAddr,
    stalled: watch::Sender<bool>,
    connections: Arc<AtomicUsize>,
}

impl Relay {
    /// What goes through is as much later as `delay` says, in each direction.
    pub async fn to(target: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (stalled, flow) = watch::channel(false);
        let relay = Self {
            address: listener.local_addr().expect("an address"),
            stalled,
            connections: Arc::default(),
        };
        let count = Arc::clone(&relay.connections);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let Ok(far) = TcpStream::connect(target).await else {
                    continue;
                };
                for stream in [&near, &far] {
                    stream.set_nodelay(true).expect("an open socket");
                }
                let ((near_in, near_out), (far_in, far_out)) =
                    (near.into_split(), far.into_split());
                forward(near_in, far_out, delay, flow.clone());
                forward(far_in, near_out, delay, flow.clone());
            }
        });
        relay
    }

    /// Whether nothing goes through, in either direction.
    pub fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn forward(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    delay: Duration,
    mut stalled: watch::Receiver<bool>,
) {
    let (line, mut end) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + delay;
            if line.send((due, buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((due, bytes)) = end.recv().await {
            sleep_until(due).await;
            let flows = stalled.wait_for(|stalled| !stalled).await.is_ok();
            if !flows || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
}
