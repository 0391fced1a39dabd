use std::{
    future::{pending, ready},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use fanfare::pb;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::{Code, Status};

use crate::support::{
    SECOND, Seen, answered, call, failed, length, lost, ms,
    process::Process,
    result, results, seen,
    service::{Service, unavailable},
};

const TOOLS: &str = "
    [tools.twice]
    service = 'tools'
    idempotent = true
    breaker.failures = 1000000
    [tools.once]
    service = 'tools'
    breaker.failures = 1000000
";

fn unavailable_itself() -> Seen {
    failed(Code::Unavailable, "TOOL_FAILED", "done")
}

/// Fails the attempts at a call up to this one.
async fn failing_until(last: u32) -> Service {
    Service::start(move |call| {
        let fails = call.attempt <= last;
        ready(if fails {
            Err(unavailable(None))
        } else {
            Ok(())
        })
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_tool_that_is_unavailable_is_asked_again_after_growing_pauses() {
    let service = failing_until(2).await;
    let client = service.client(TOOLS).await;

    let result = result(&client, call("a", "twice")).await;

    assert_eq!((seen(&result), result.attempts), (answered(), 3));
    let met = service.met();
    assert_eq!(service.attempts("a"), [1, 2, 3]);
    // Give or take a fifth.
    let pauses = [met[1].at - met[0].at, met[2].at - met[1].at];
    assert!((ms(40)..ms(61)).contains(&pauses[0]), "{pauses:?}");
    assert!((ms(80)..ms(121)).contains(&pauses[1]), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_attempts_than_allowed_and_the_last_failure_is_told() {
    let service = failing_until(9).await;
    for (max_attempts, expected) in [(1, 1), (2, 2), (5, 5)] {
        let toml = format!("{TOOLS}\n[tools.twice.retry]\nmax_attempts = {max_attempts}");
        let client = service.client(&toml).await;
        let result = result(&client, call("", "twice")).await;
        assert_eq!(seen(&result), unavailable_itself());
        assert_eq!(result.attempts, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_listed_codes_are_tried_again() {
    let service = Service::start(|call| {
        let code = [Code::Internal, Code::Aborted][usize::from(call.name == "aborts")];
        ready(Err(Status::new(code, "no")))
    })
    .await;
    let tools = "
        [tools.aborts]
        service = 'tools'
        idempotent = true
        retry.codes = ['ABORTED']
        [tools.breaks]
        service = 'tools'
        idempotent = true
        retry.codes = ['ABORTED']
    ";
    let client = service.client(tools).await;
    let calls = vec![call("", "aborts"), call("", "breaks")];
    let results = results(&client, calls).await;
    assert_eq!((results[0].attempts, results[1].attempts), (3, 1));
    assert_eq!(
        seen(&results[0]),
        failed(Code::Aborted, "TOOL_FAILED", "done")
    );
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_is_not_idempotent_runs_at_most_once_whatever_it_does() {
    let service = Service::start(|call| async move {
        match call.id.as_str() {
            "unavailable" => Err(unavailable(None)),
            "pushback" => Err(unavailable(Some("1"))),
            "panic" => panic!("as the test wants it"),
            _ => pending().await,
        }
    })
    .await;
    let client = service.client(TOOLS).await;
    let calls = ["unavailable", "pushback", "panic", "lost"].map(|id| call(id, "once"));
    let batch = tokio::spawn({
        let client = client.clone();
        async move { results(&client, calls.into()).await }
    });
    sleep(ms(100)).await;
    service.kill();
    sleep(ms(100)).await;
    service.start_again();

    let results = batch.await.unwrap();

    for result in &results {
        assert_eq!(result.attempts, 1, "{}", result.id);
        assert_eq!(service.attempts(&result.id), [1]);
    }
    assert_eq!(seen(&results[0]), unavailable_itself());
    assert_eq!(seen(&results[3]), lost("maybe"));
}

#[tokio::test(start_paused = true)]
async fn a_tool_says_itself_when_it_wants_to_be_asked_again() {
    for (pushback, attempts) in [("-1", 1), ("soon", 1), ("500", 2), ("0", 2)] {
        let service = Service::start(move |call| {
            let first = call.attempt == 1;
            ready(if first {
                Err(unavailable(Some(pushback)))
            } else {
                Ok(())
            })
        })
        .await;
        let client = service.client(TOOLS).await;

        let result = result(&client, call("", "twice")).await;

        assert_eq!(result.attempts, attempts, "{pushback}");
        if let ([first, second], Ok(wait)) = (&service.met()[..], pushback.parse()) {
            let waited = second.at - first.at;
            assert!((ms(wait)..ms(wait + 3)).contains(&waited), "{waited:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_would_come_after_the_deadline_is_not_waited_for() {
    let service = Service::start(|_| ready(Err(unavailable(Some("500"))))).await;
    let client = service.client(TOOLS).await;
    let impatient = pb::ToolCall {
        timeout: Some(ms(400).try_into().unwrap()),
        ..call("", "twice")
    };

    let result = result(&client, impatient).await;

    // Its answer is told when it comes.
    assert_eq!((seen(&result), result.attempts), (unavailable_itself(), 1));
    assert!(length(result.duration) < ms(10));
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_fails_always_gets_hardly_more_than_its_calls() {
    let service = failing_until(9).await;
    let client = service.client(TOOLS).await;
    let mut attempts = 0;
    for _ in 0..10 {
        let batch = results(&client, vec![call("", "twice"); 100]).await;
        attempts += batch.iter().map(|result| result.attempts).sum::<u32>();
    }
    assert_eq!(service.met().len(), attempts as usize);
    assert!(attempts <= 1010, "{attempts} for 1000 calls");
}

/// A hundred calls a second for half a minute, in which the service is down in one
/// way or another.
#[tokio::test(start_paused = true)]
async fn a_service_that_is_down_gets_hardly_more_attempts_than_calls_and_is_found_again() {
    for down in ["fails", "hangs", "is dead"] {
        let up = Arc::new(AtomicBool::new(false));
        let service = Service::start({
            let up = Arc::clone(&up);
            move |_| {
                let up = up.load(Ordering::SeqCst);
                async move {
                    match down {
                        "fails" if !up => Err(unavailable(None)),
                        "hangs" if !up => pending().await,
                        _ => Ok(()),
                    }
                }
            }
        })
        .await;
        let client = service.client(&format!("{TOOLS}timeout = '1s'")).await;
        if down == "is dead" {
            service.kill();
        }
        let mut calls = JoinSet::new();
        for _ in 0..3000 {
            let client = client.clone();
            calls.spawn(async move { result(&client, call("", "twice")).await.attempts });
            sleep(ms(10)).await;
        }
        let attempts: u32 = calls.join_all().await.into_iter().sum();
        assert_eq!(attempts as usize, service.met().len());
        assert!(attempts <= 3600, "{down}: {attempts} attempts");
        assert!(service.dials() <= 180, "{down}: {} dials", service.dials());

        up.store(true, Ordering::SeqCst);
        service.start_again();
        let start = Instant::now();
        while seen(&result(&client, call("", "twice")).await) != answered() {
            sleep(ms(10)).await;
        }
        assert!(start.elapsed() < SECOND, "{down}: {:?}", start.elapsed());
    }
}

/// Two hundred calls are in flight when the service dies; it is back a second later.
#[tokio::test(start_paused = true)]
async fn calls_of_an_idempotent_tool_survive_a_restart() {
    let service = Service::start(|_| async {
        sleep(SECOND).await;
        Ok(())
    })
    .await;
    let client = service.client(TOOLS).await;
    let calls = (0..200).map(|index| call(&format!("c{index}"), "twice"));
    let batch = tokio::spawn({
        let (client, calls) = (client.clone(), calls.collect());
        async move { results(&client, calls).await }
    });
    sleep(ms(500)).await;
    assert_eq!(service.running(), 200);
    service.kill();
    sleep(SECOND).await;
    service.start_again();

    for result in batch.await.unwrap() {
        assert_eq!(
            (seen(&result), result.attempts),
            (answered(), 2),
            "{}",
            result.id
        );
        assert_eq!(service.attempts(&result.id), [1, 2]);
        // Half a second lost, one down, at most one until it was noticed.
        assert!(length(result.duration) < 4 * SECOND);
    }
    assert!(service.dials() < 20, "{}", service.dials());
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_service_does_not_come_back_may_have_run() {
    let service = Service::start(|_| pending()).await;
    let client = service.client(TOOLS).await;
    let lost_call = tokio::spawn({
        let client = client.clone();
        async move { result(&client, call("a", "twice")).await }
    });
    sleep(ms(100)).await;
    service.kill();
    let killed = Instant::now();

    let result = lost_call.await.unwrap();

    assert_eq!((seen(&result), result.attempts), (lost("maybe"), 1));
    assert!((SECOND..4 * SECOND).contains(&killed.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_sent_is_tried_again_for_any_tool() {
    let service = failing_until(0).await;
    let client = service.client(TOOLS).await;
    service.kill();
    let start = Instant::now();
    let later = tokio::spawn({
        let service = service.clone();
        async move {
            sleep(ms(300)).await;
            service.start_again();
        }
    });

    let first = result(&client, call("a", "once")).await;

    later.await.unwrap();
    assert_eq!((seen(&first), first.attempts), (answered(), 1));
    assert!((ms(300)..SECOND).contains(&start.elapsed()));

    service.kill();
    let start = Instant::now();
    let second = result(&client, call("b", "once")).await;
    assert_eq!((seen(&second), second.attempts), (lost("not_started"), 0));
    assert!(start.elapsed() <= SECOND);
    assert_eq!(service.attempts("b"), [0; 0]);
}

/// With the real binary, on real sockets.
#[tokio::test]
async fn pushback_and_the_budget_hold_on_the_wire() {
    let service = Service::start(|call| {
        let pushback = match (call.id.as_str(), call.attempt) {
            ("never", _) => Some("-1"),
            ("later", 1) => Some("500"),
            ("later", _) => return ready(Ok(())),
            _ => None,
        };
        ready(Err(unavailable(pushback)))
    })
    .await;
    let toml = format!(
        "[server]\nlisten = '127.0.0.1:0'\n[services.tools]\nendpoint = 'http://{}'\n{TOOLS}",
        service.listen().await
    );
    let fanfare = Process::serve(&toml).await;
    let client = fanfare.client().await;

    let never = result(&client, call("never", "twice")).await;
    assert_eq!((seen(&never), never.attempts), (unavailable_itself(), 1));
    let later = result(&client, call("later", "twice")).await;
    assert_eq!((seen(&later), later.attempts), (answered(), 2));
    let met = service.met();
    let waited = met[2].at - met[1].at;
    assert!(waited >= ms(499), "{waited:?}");

    for _ in 0..10 {
        for result in results(&client, vec![call("", "twice"); 100]).await {
            assert_eq!(seen(&result), unavailable_itself());
        }
    }
    let attempts = service.attempts("").len();
    assert!(
        (1000..=1010).contains(&attempts),
        "{attempts} for 1000 calls"
    );
}
