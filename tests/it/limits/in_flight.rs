use fanfare::net::Connect as _;

use super::*;
use crate::support::{
    ledger,
    pipes::PipeConnect,
    raw::{Answer, STREAM, loopback},
};

fn at_most(calls: usize) -> Config {
    let mut config = config();
    config.limits.max_in_flight_calls = calls;
    config
}

/// Waits until so many calls are inside of a tool.
async fn runs(running: &Running, count: usize) {
    let reached = async {
        while running.count() != count {
            sleep(ms(1)).await;
        }
    };
    tokio::time::timeout(SECOND, reached)
        .await
        .unwrap_or_else(|_| panic!("{} calls run, not {count}", running.count()));
}

fn assert_shed(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted);
    let retry = status.get_details_retry_info().expect("RetryInfo");
    assert!(retry.retry_delay.expect("a delay") > ms(0));
}

/// The operator is told of the bound, and not as often as callers meet it.
#[tokio::test]
async fn what_is_shed_is_a_warning() {
    let tools = Process::demo_tools().await;
    let limits = "max_calls_per_request = 2\nmax_in_flight_calls = 2";
    let server = Process::serve_demo("", limits, tools.address).await;
    let mut client = server.client().await;
    for _ in 0..100 {
        let calls = request(vec![call("", "hang"), call("", "hang")]);
        let mut client = client.clone();
        tokio::spawn(async move { client.execute_tools(calls).await });
    }
    ledger::started(&tools, 2).await;
    assert_shed(
        &client
            .execute_tools(request(vec![call("", "echo")]))
            .await
            .unwrap_err(),
    );
    let warned = |line: &serde_json::Value| {
        line["bound"] == "limits.max_in_flight_calls" && line["level"] == "WARN"
    };
    server.log().wait_for("a warning", warned).await;
    let count = server.log().all(warned).len();
    assert!(count < 60, "{count}");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_taken_on_whole_or_not_at_all() {
    let catalog = catalog([("slow", Scripted::answers_after(SECOND))]);
    let mut client = pipes::client(&at_most(10), catalog).await;
    let calls = |count| request(vec![call("", "slow"); count]);
    let mut other = client.clone();
    let eight = tokio::spawn(async move { other.execute_tools(calls(8)).await });
    sleep(ms(10)).await;

    let start = Instant::now();
    assert_shed(&client.execute_tools(calls(3)).await.unwrap_err());
    let stream = client.stream_execute_tools(calls(3)).await;
    assert_shed(&stream.unwrap_err());
    assert_eq!(start.elapsed(), ms(0));
    // There is room for two, and a refusal takes none of it.
    client.execute_tools(calls(2)).await.unwrap();

    eight.await.unwrap().unwrap();
    client.execute_tools(calls(10)).await.unwrap();
    assert_shed(&client.execute_tools(calls(11)).await.unwrap_err());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_streamed_makes_room_while_its_siblings_run() {
    let catalog = catalog([
        ("slow", Scripted::answers_after(10 * SECOND)),
        ("fast", Scripted::answers_after(SECOND)),
    ]);
    let mut client = pipes::client(&at_most(2), catalog).await;
    let mut other = client.clone();
    let both = || request(vec![call("", "slow"), call("", "fast")]);
    let one = || request(vec![call("", "fast")]);
    let stream = client.stream_execute_tools(both()).await.unwrap();
    sleep(ms(990)).await;
    assert_shed(&client.execute_tools(one()).await.unwrap_err());
    sleep(ms(20)).await;

    client.execute_tools(one()).await.unwrap();

    let mut stream = stream.into_inner();
    while stream.message().await.unwrap().is_some() {}
    // Where all results are answered at once, none is handed on before.
    let unary = tokio::spawn(async move { other.execute_tools(both()).await });
    sleep(5 * SECOND).await;
    assert_shed(&client.execute_tools(one()).await.unwrap_err());
    unary.await.unwrap().unwrap();
    client.execute_tools(one()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_cancelled_make_room() {
    let running = Running::default();
    let catalog = catalog([("hangs", Scripted::hangs(&running))]);
    let mut client = pipes::client(&at_most(10), catalog).await;
    let five = || request(vec![call("", "hangs"); 5]);
    let mut other = client.clone();
    let unary = tokio::spawn(async move { other.execute_tools(five()).await });
    let stream = client.stream_execute_tools(five()).await.unwrap();
    runs(&running, 10).await;
    assert_shed(&client.stream_execute_tools(five()).await.unwrap_err());

    unary.abort();
    drop(stream);
    runs(&running, 0).await;

    let again = client.stream_execute_tools(five()).await.unwrap();
    client.stream_execute_tools(five()).await.unwrap();
    drop(again);
}

#[tokio::test(start_paused = true)]
async fn of_200_slow_streams_100_are_taken_on() {
    let running = Running::default();
    let catalog = catalog([("hangs", Scripted::hangs(&running))]);
    let client = pipes::client(&at_most(100), catalog).await;
    let streams = (0..200).map(|_| {
        let mut client = client.clone();
        async move {
            let one = request(vec![call("", "hangs")]);
            client.stream_execute_tools(one).await
        }
    });

    let streams = join_all(streams).await;

    let (open, shed): (Vec<_>, Vec<_>) = streams.into_iter().partition(Result::is_ok);
    assert_eq!((open.len(), shed.len()), (100, 100));
    shed.iter()
        .for_each(|r| assert_shed(r.as_ref().unwrap_err()));
    runs(&running, 100).await;

    drop(open);
    runs(&running, 0).await;
}

#[tokio::test]
async fn the_bound_is_the_servers_not_the_connections() {
    let running = Running::default();
    let catalog = catalog([("hangs", Scripted::hangs(&running))]);
    let address = loopback(&at_most(100), catalog).await;
    let clients = join_all((0..50).map(|_| RawClient::connect(address))).await;
    let body = framed(&request(vec![call("", "hangs")]));

    let mut responses = Vec::new();
    for _ in 0..20 {
        for client in &clients {
            responses.push(client.send(post(STREAM), body.clone()).await.unwrap());
        }
    }
    // The headers of a stream that was taken on come at once, alone.
    let mut taken_on = Vec::new();
    let mut shed = 0;
    for response in responses {
        let response = response.await.unwrap();
        match Status::from_header_map(response.headers()) {
            None => taken_on.push(response),
            Some(status) => {
                assert_shed(&status);
                shed += 1;
            }
        }
    }

    assert_eq!((taken_on.len(), shed), (100, 900));
    assert!(running.count() <= 100);
}

#[tokio::test(start_paused = true)]
async fn completions_that_were_not_read_count_as_in_flight() {
    const BIG: usize = 100_000;
    let catalog = catalog([
        ("big", Scripted::answers_with(BIG)),
        ("small", Scripted::answers_with(1)),
    ]);
    let server = Arc::new(Server::orchestrator(&at_most(10), catalog).await);
    // A stream that is not read must not use up the window of its connection.
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(1 << 20);
    let pipe = PipeConnect(Arc::clone(&server)).connect().await.unwrap();
    let client = RawClient::over(pipe, &builder).await;
    let body = |name, count| framed(&request(vec![call("", name); count]));
    let shed = async |count| {
        let answer = client.ask(post(EXECUTE), body("small", count)).await;
        let status = answer.unwrap().status();
        if status.code() != Code::Ok {
            assert_shed(&status);
        }
        status.code() != Code::Ok
    };

    // The caller lets 64 KiB come, so the transport takes one completion or two;
    // the others wait, although their tools are done.
    let stream = client.send(post(STREAM), body("big", 10)).await.unwrap();
    sleep(SECOND).await;
    assert!(shed(4).await);

    let answer = Answer::read(stream).await.unwrap();
    assert_eq!(answer.code(), Code::Ok);
    assert!(!shed(10).await);
}
