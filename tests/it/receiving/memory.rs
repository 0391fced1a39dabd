use futures_util::future::join_all;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::*;
use crate::support::{SECOND, by_hand::claims, ms};

#[tokio::test(start_paused = true)]
async fn what_is_claimed_takes_nothing() {
    let setup = Setup::of(&with_budget(32 * MIB)).await;
    let client = setup.connect().await;
    let start = Instant::now();
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let (response, mut body) = client.begin(post(EXECUTE), false).await.unwrap();
        body.send_data(claims(4 << 20), false).unwrap();
        waiting.push((response, body));
    }
    assert_serves(&client, good()).await;

    let ends = waiting.into_iter().map(|(response, _body)| async move {
        let answer = Answer::read(response).await.unwrap();
        (answer.code(), start.elapsed())
    });
    let timeout = config().server.receive_timeout;
    let expected = (Code::DeadlineExceeded, timeout);
    assert_eq!(join_all(ends).await, vec![expected; 100]);
}

/// A request that goes on to arrive.
struct Waiting {
    answer: JoinHandle<Answer>,
    _body: h2::SendStream<Bytes>,
}

impl Waiting {
    async fn begin(client: &RawClient, request: http::Request<()>, beginning: Bytes) -> Self {
        let (response, mut body) = client.begin(request, false).await.unwrap();
        if !beginning.is_empty() {
            body.send_data(beginning, false).unwrap();
        }
        Self {
            answer: tokio::spawn(async { Answer::read(response).await.unwrap() }),
            _body: body,
        }
    }

    fn waits(&self) -> bool {
        !self.answer.is_finished()
    }

    async fn expect_overloaded(self) {
        assert_overloaded(&self.answer.await.unwrap().status());
    }
}

/// Begins requests of 1 MiB until the last one is refused. Those before wait, or did.
async fn fill(client: &RawClient) -> Vec<Waiting> {
    let mut most = claims(2 << 20).to_vec();
    most.resize(MIB, 0);
    let most = Bytes::from(most);
    let mut begun = Vec::new();
    while begun.len() < 1000 {
        let next = Waiting::begin(client, post(EXECUTE), most.clone()).await;
        sleep(SECOND).await;
        if !next.waits() {
            next.expect_overloaded().await;
            return begun;
        }
        begun.push(next);
    }
    panic!("there is no bound");
}

/// How many of these have given way: the first ones.
async fn gave_way(mut begun: Vec<Waiting>) -> (usize, Vec<Waiting>) {
    let count = begun.iter().take_while(|waiting| !waiting.waits()).count();
    let waiting = begun.split_off(count);
    assert!(waiting.iter().all(Waiting::waits), "not the oldest");
    for gone in begun {
        gone.expect_overloaded().await;
    }
    (count, waiting)
}

#[tokio::test(start_paused = true)]
async fn requests_that_do_not_become_complete_get_half_of_the_budget_at_most() {
    let mut config = with_budget(64 * MIB);
    config.server.receive_timeout = 1000 * SECOND;
    let setup = Setup::of(&config).await;
    let mut clients = Vec::new();
    let mut begun = Vec::new();
    for _ in 0..6 {
        let client = setup.connect().await;
        let of_this = fill(&client).await;
        // The most of it is that of two of the largest requests.
        assert!((6..=8).contains(&of_this.len()), "{}", of_this.len());
        begun.extend(of_this);
        clients.push(client);
    }
    let (_, waiting) = gave_way(begun).await;
    assert!((20..=32).contains(&waiting.len()), "{}", waiting.len());

    // What is complete has the other half, on any connection.
    let large = framed(&request(vec![pb::ToolCall {
        arguments: Some(vec![7; 50_000].into()),
        ..call("", "tool")
    }]));
    for client in &clients {
        assert_serves(client, large.clone()).await;
    }
    // So has what comes in pieces: the oldest make room for it.
    let client = setup.connect().await;
    let answer = ask_in_parts(&client, EXECUTE, &[&large[..10], &large[10..]], true).await;
    assert_eq!(answer.code(), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn headers_of_requests_that_wait_count() {
    let mut config = with_budget(16 * MIB);
    config.server.receive_timeout = 1000 * SECOND;
    let setup = Setup::of(&config).await;
    let pipe = PipeConnect(Arc::clone(&setup.server)).connect().await;
    let mut builder = h2::client::Builder::new();
    builder.initial_max_send_streams(10_000);
    let client = RawClient::over(pipe.unwrap(), &builder).await;
    let mut begun = Vec::new();
    for _ in 0..600 {
        let long = post_with(EXECUTE, "x-long", vec![b'x'; 15_000]);
        begun.push(Waiting::begin(&client, long, Bytes::new()).await);
        sleep(ms(10)).await;
    }
    // 8 MiB of them, with 15 KB of headers each and what a stream takes: that is the
    // connection's share, where those that come later are refused.
    let refused = begun.iter().position(|one| !one.waits()).expect("a bound");
    assert!((200..320).contains(&refused), "{refused}");
    for one in begun.split_off(refused) {
        one.expect_overloaded().await;
    }
}
