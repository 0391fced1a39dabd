use tokio::{task::JoinHandle, time::timeout};

use crate::support::{
    answered, call,
    late_service::{END_STREAM, FORGOTTEN_BY_DEFAULT, LateService},
    ms,
    pipes::Client,
    process::PATIENCE,
    request, results, seen,
};

/// Somebody's call, which waits for its answer, on the first stream.
async fn waiting(service: &LateService, client: &Client) -> (JoinHandle<()>, u32) {
    let client = client.clone();
    let call = tokio::spawn(async move {
        let results = results(&client, vec![call("", "tool")]).await;
        assert_eq!(seen(&results[0]), answered(), "{results:?}");
        assert_eq!(results[0].attempts, 1);
    });
    (call, service.calls(1).await[0])
}

async fn is_answered(service: &LateService, (call, stream): (JoinHandle<()>, u32)) {
    service.answer(stream);
    let answered = timeout(PATIENCE, call).await.expect("an answer");
    answered.expect("the right one");
}

/// Calls so often and gives up once all of them have arrived.
async fn given_up(service: &LateService, client: &Client, count: usize) -> Vec<u32> {
    let before = service.calls(0).await.len();
    let mut rpc = client.clone();
    let batch = tokio::spawn(async move {
        let _ = rpc
            .execute_tools(request(vec![call("", "tool"); count]))
            .await;
    });
    let streams = service.calls(before + count).await.split_off(before);
    batch.abort();
    let _ = batch.await;
    streams
}

/// A service was frozen, or did not notice that its callers were gone.
#[tokio::test]
async fn late_answers_to_cancelled_calls_harm_nobody() {
    let service = LateService::start();
    let client = service.client().await;
    let other = waiting(&service, &client).await;
    let cancelled = given_up(&service, &client, 1200).await;
    // As long as it takes until h2 would have forgotten them.
    tokio::time::sleep(FORGOTTEN_BY_DEFAULT).await;

    cancelled
        .into_iter()
        .for_each(|stream| service.answer(stream));

    is_answered(&service, other).await;
}

#[tokio::test]
async fn answers_that_break_http_harm_nobody_however_many_there_are() {
    let service = LateService::start();
    let client = service.client().await;
    let other = waiting(&service, &client).await;
    let batch = tokio::spawn({
        let client = client.clone();
        async move { results(&client, vec![call("", "tool"); 1200]).await }
    });
    for stream in service.calls(1201).await.split_off(1) {
        service.headers(stream, END_STREAM, &[("content-length", "5")]);
    }
    assert_eq!(batch.await.expect("results").len(), 1200);

    is_answered(&service, other).await;
}

#[tokio::test]
async fn empty_frames_harm_nobody_however_many_there_are() {
    let service = LateService::start();
    let client = service.client().await;
    let other = waiting(&service, &client).await;
    service.headers(other.1, 0, &[("content-type", "application/grpc")]);
    for _ in 0..1000 {
        service.data(other.1, &[]);
    }
    service.data(
        other.1,
        &crate::support::hostile::message(Default::default()),
    );
    service.trailers(other.1, &[("grpc-status", "0")]);
    let answered = timeout(PATIENCE, other.0).await.expect("an answer");
    answered.expect("the right one");
}

/// What comes for calls that nobody waits for is dropped: it takes neither the
/// connection's window nor h2's budget for small frames from the others.
#[tokio::test]
async fn what_comes_for_cancelled_calls_takes_nothing_from_the_others() {
    let service = LateService::start();
    let client = service.client().await;
    let other = waiting(&service, &client).await;
    // 96 MiB, of a window of 64; within the window of each stream.
    for _ in 0..6 {
        for stream in given_up(&service, &client, 16).await {
            service.headers(stream, 0, &[("content-type", "application/grpc")]);
            for _ in 0..64 {
                service.data(stream, &[0; 16 << 10]);
            }
            for _ in 0..1000 {
                service.data(stream, &[0]);
            }
        }
        tokio::time::sleep(ms(10)).await;
    }
    is_answered(&service, other).await;
}
