//! Addresses where nobody speaks: refused, dropped, silent, reset. They live as
//! long as what stands for them, or as the test's runtime.

use std::net::SocketAddr;

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

use super::ms;

/// A server's SETTINGS, with which HTTP/2 begins.
pub const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A port that is refused until a process listens on it, and that no other
/// socket is given meanwhile.
pub struct Reserved {
    pub address: SocketAddr,
    _socket: TcpSocket,
}

pub fn reserved() -> Reserved {
    let socket = TcpSocket::new_v4().expect("a socket");
    // A later listener sets it too, and then both may be bound.
    socket.set_reuseaddr(true).expect("an option");
    let any = "127.0.0.1:0".parse().expect("an address");
    socket.bind(any).expect("a port");
    Reserved {
        address: socket.local_addr().expect("an address"),
        _socket: socket,
    }
}

/// An address whose SYNs are dropped, as behind a firewall.
pub struct BlackHole {
    pub address: SocketAddr,
    _listener: TcpListener,
    _backlog: Vec<TcpStream>,
}

pub async fn black_hole() -> BlackHole {
    let socket = TcpSocket::new_v4().expect("a socket");
    let any = "127.0.0.1:0".parse().expect("an address");
    socket.bind(any).expect("a port");
    let listener = socket.listen(0).expect("to listen");
    let address = listener.local_addr().expect("an address");
    // Linux drops SYNs when nobody accepts and the backlog is full.
    let mut backlog = Vec::new();
    while let Ok(stream) = timeout(ms(200), TcpStream::connect(address)).await {
        backlog.push(stream.expect("a connection"));
        assert!(backlog.len() < 10, "the backlog has no end");
    }
    BlackHole {
        address,
        _listener: listener,
        _backlog: backlog,
    }
}

/// Accepts connections, says `greeting` and then nothing.
pub async fn silent(greeting: &'static [u8]) -> SocketAddr {
    let (listener, address) = listening().await;
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            // The peer may have gone again.
            let _ = stream.write_all(greeting).await;
            held.push(stream);
        }
    });
    address
}

/// Accepts connections and resets them.
pub async fn resetting() -> SocketAddr {
    let (listener, address) = listening().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_zero_linger().expect("an option");
        }
    });
    address
}

async fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}
