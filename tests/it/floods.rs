use std::{fs, io::Write as _, path::PathBuf};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::future::{join_all, join3};
use serde_json::json;
use tokio::{net::TcpStream, sync::oneshot};
use tonic::Code;

use crate::support::{
    Seen,
    by_hand::{ByHand, claims},
    call_with, error,
    pipes::Client,
    process::Process,
    raw::{EXECUTE, RawClient, framed_bytes, post, post_with},
    request, seen,
};

const GRPC: &str = "application/grpc";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const LIMITS: &str = "max_buffered_bytes = '256MiB'";
/// Of the pod in `deploy/`.
const MEMORY: u64 = 512 << 20;
/// Each with as many streams as it may have.
const CONNECTIONS: usize = 6;
const STREAMS: usize = 1000;

/// A memory limit for one process, where this machine lets us set one. Otherwise what
/// the process had at most is all that is looked at.
struct Cage(Option<PathBuf>);

impl Cage {
    fn around(process: &Process) -> Self {
        let place = |root: &str| PathBuf::from(format!("{root}/fanfare-{}", process.pid()));
        let versions = [
            (place("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
            (place("/sys/fs/cgroup"), "memory.max"),
        ];
        for (path, limit) in versions {
            let set = |file: &str, value: String| fs::write(path.join(file), value).is_ok();
            let is_group = fs::create_dir(&path).is_ok() && path.join(limit).exists();
            if is_group
                && set(limit, MEMORY.to_string())
                && set("cgroup.procs", process.pid().to_string())
            {
                return Self(Some(path));
            }
            let _ = fs::remove_dir(&path);
        }
        Self(None)
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Once the process has been reaped; until then it is in the way of nobody.
            let _ = fs::remove_dir(path);
        }
    }
}

/// The most that the process has had in memory.
fn peak(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap() << 10
}

async fn by_hand(server: &Process) -> ByHand {
    let socket = TcpStream::connect(server.address).await.unwrap();
    ByHand::over(Box::new(socket)).await
}

/// Requests that never become complete, with that as their beginning.
async fn never_complete(server: &Process, beginning: &[u8]) -> Vec<ByHand> {
    let connections = (0..CONNECTIONS).map(|_| async {
        let mut client = by_hand(server).await;
        for _ in 0..STREAMS {
            let stream = client.open(EXECUTE, GRPC, &[]).await;
            client.data(stream, beginning, false).await;
        }
        client.ping().await;
        client
    });
    join_all(connections).await
}

/// Streams without an end.
async fn long_lived(server: &Process) -> Vec<ByHand> {
    let connections = (0..CONNECTIONS).map(|_| async {
        let mut client = by_hand(server).await;
        for index in 0..STREAMS {
            let (path, body) = match index % 2 {
                0 => (WATCH, framed_bytes(&[])),
                _ => (REFLECTION, framed_bytes(b"\x3a\x00")),
            };
            let stream = client.open(path, GRPC, &[]).await;
            client.data(stream, &body, false).await;
        }
        client.ping().await;
        client
    });
    join_all(connections).await
}

/// Requests that are small until somebody decodes them.
async fn amplified(server: &Process) {
    let empty_calls = framed_bytes(&b"\x0a\x00".repeat(2 << 20));
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![0; 1 << 20]).unwrap();
    let mut bomb = framed_bytes(&encoder.finish().unwrap().repeat(1000)).to_vec();
    bomb[0] = 1;
    let bomb = Bytes::from(bomb);
    let connections = (0..CONNECTIONS).map(|_| async {
        let client = RawClient::connect(server.address).await;
        for _ in 0..4 {
            let zipped = post_with(EXECUTE, "grpc-encoding", "gzip");
            let answers = join_all([
                client.ask(post(EXECUTE), empty_calls.clone()),
                client.ask(zipped, bomb.clone()),
            ])
            .await;
            for answer in answers {
                // Or there is no room for it.
                let code = answer.unwrap().code();
                let refused = [Code::InvalidArgument, Code::ResourceExhausted];
                assert!(refused.contains(&code), "{code:?}");
            }
        }
    });
    join_all(connections).await;
}

/// Large requests of which half comes.
async fn half(server: &Process) -> Vec<RawClient> {
    let mut half = claims(4 << 20).to_vec();
    half.resize(1 << 20, 0);
    let half = Bytes::from(half);
    let connections = (0..CONNECTIONS).map(|_| async {
        let client = RawClient::connect(server.address).await;
        for _ in 0..64 {
            let (_, mut body) = client.begin(post(EXECUTE), false).await.unwrap();
            body.send_data(half.clone(), false).unwrap();
            // It goes on as long as its connection.
            tokio::spawn(async move {
                let _ = std::future::poll_fn(|context| body.poll_reset(context)).await;
            });
        }
        client
    });
    join_all(connections).await
}

/// Makes requests, small and large, until it is told to stop.
async fn honest(mut client: Client, mut stop: oneshot::Receiver<()>) {
    let mut served = 0;
    // The signal can be received but once.
    while served < 10 || stop.try_recv().is_err() {
        one(&mut client, served).await;
        served += 1;
    }
}

/// The request of that number, which must be served.
async fn one(client: &mut Client, number: usize) {
    let arguments = match number % 4 {
        0 => json!({"text": "x".repeat(300_000)}),
        _ => json!({"text": number}),
    };
    let calls = vec![call_with("", "echo", arguments.clone()); 2];
    let response = client.execute_tools(request(calls)).await;
    let results = response.expect("to be taken on").into_inner().results;
    for result in results {
        let is_answered = seen(&result) == Seen::Ok(arguments.clone());
        assert!(is_answered, "{:?}", error(&result));
    }
}

#[tokio::test]
async fn nobody_fills_the_memory_before_a_request_is_admitted() {
    let tools = Process::demo_tools().await;
    let server = Process::serve_demo("", LIMITS, tools.address).await;
    let _cage = Cage::around(&server);
    let (done, stop) = oneshot::channel();
    let mut client = server.client().await;
    // On a busy machine, a server that is not optimized takes more than a second to
    // connect to its tools when it is attacked.
    one(&mut client, 0).await;
    let honest = tokio::spawn(honest(client, stop));

    let claimed = claims(4 << 20);
    let held = join3(
        join3(
            never_complete(&server, &claimed),
            never_complete(&server, &[]),
            long_lived(&server),
        ),
        half(&server),
        amplified(&server),
    )
    .await;

    done.send(()).expect("the honest caller to go on");
    honest.await.expect("every request to be served");
    let peak = peak(&server);
    assert!(peak < MEMORY, "{} MiB", peak >> 20);
    let call = call_with("", "echo", json!({}));
    let after = server
        .client()
        .await
        .execute_tools(request(vec![call]))
        .await;
    assert_eq!(after.expect("an answer").get_ref().results.len(), 1);
    drop(held);
}
