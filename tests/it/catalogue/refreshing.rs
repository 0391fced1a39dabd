//! When services are asked again, and what becomes of their tools meanwhile.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::{Code, Status};

use super::{called, names, reached, start, start_unasked, unknown};
use crate::support::{SECOND, described::Described, failed, ms};

const EXPOSE: &str = "services.a.expose = ['*']\n";
const MINUTE: Duration = Duration::from_secs(60);

/// When it is asked for the next time, from now on.
async fn next(service: &Described) -> Duration {
    let start = Instant::now();
    service.asked_times(service.asked() + 1).await;
    // It is published.
    sleep(ms(1)).await;
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_service_is_asked_every_refresh_interval() {
    let service = Described::new(&["kept", "removed"]);
    let settings = format!("{EXPOSE}services.a.refresh_interval = '1m'");
    let (client, snapshots) = start(&service, &settings).await;
    assert_eq!(names(&client).await, ["kept", "removed"]);

    service.have(&["added", "kept"]);
    let interval = next(&service).await;
    assert!(
        interval >= MINUTE * 9 / 10 && interval <= MINUTE * 11 / 10 + SECOND,
        "{interval:?}"
    );
    assert_eq!(names(&client).await, ["added", "kept"]);
    assert_eq!(called(&client, "added").await, reached("added"));
    assert_eq!(called(&client, "removed").await, unknown());

    // What says the same, in whatever order, is the same catalogue.
    let before = snapshots.current();
    service.have(&["kept", "added"]);
    next(&service).await;
    assert!(Arc::ptr_eq(&before, &snapshots.current()));
    service.have(&["kept"]);
    next(&service).await;
    assert!(!Arc::ptr_eq(&before, &snapshots.current()));
}

#[tokio::test(start_paused = true)]
async fn what_a_service_told_last_stays_while_it_can_t_be_asked() {
    let service = Described::new(&["search"]);
    let settings = format!("{EXPOSE}services.a.refresh_interval = '10s'");
    let (client, snapshots) = start(&service, &settings).await;
    let before = snapshots.current();
    for status in [
        Status::internal("no"),
        Status::unimplemented("what?"),
        Status::unavailable(""),
    ] {
        service.say(Err(status));
        next(&service).await;
        assert_eq!(names(&client).await, ["search"]);
    }
    service.be_down(true);
    let dials = service.dials();
    sleep(MINUTE).await;
    assert!(service.dials() > dials + 3);
    assert_eq!(names(&client).await, ["search"]);
    assert!(Arc::ptr_eq(&before, &snapshots.current()));

    service.have(&["found"]);
    service.be_down(false);
    next(&service).await;
    assert_eq!(names(&client).await, ["found"]);
}

/// The pauses grow, and are over with the first answer.
#[tokio::test(start_paused = true)]
async fn a_service_that_is_away_is_asked_again_after_growing_pauses() {
    let service = Described::new(&["search"]);
    service.say(Err(Status::internal("no")));
    let (client, _) = start_unasked(&service, EXPOSE).await;
    service.asked_times(1).await;
    let mut pauses = Vec::new();
    for _ in 0..9 {
        pauses.push(next(&service).await);
    }
    for (pause, seconds) in pauses.iter().zip([1, 2, 4, 8, 16, 32, 60, 60, 60]) {
        let (least, most) = (SECOND * seconds * 8 / 10, SECOND * seconds * 12 / 10);
        assert!((least..=most + ms(20)).contains(pause), "{pauses:?}");
    }
    assert!(names(&client).await.is_empty());

    service.have(&["search"]);
    next(&service).await;
    assert_eq!(names(&client).await, ["search"]);
    // Then it is as if nothing had been.
    service.say(Err(Status::internal("no")));
    next(&service).await;
    assert!(next(&service).await < SECOND * 13 / 10);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_know_its_tool_is_asked_soon_and_once() {
    let service = Described::new(&["old"]);
    let (client, _) = start(&service, EXPOSE).await;
    let asked = Instant::now();
    service.have(&["new"]);
    let gone = failed(Code::Unimplemented, "TOOL_FAILED", "done");
    for _ in 0..5 {
        assert_eq!(called(&client, "old").await, gone);
    }
    assert_eq!(service.asked(), 1);
    sleep_until(asked + 9 * SECOND).await;
    assert_eq!(service.asked(), 1);
    sleep_until(asked + 11 * SECOND).await;
    assert_eq!(service.asked(), 2);
    assert_eq!(names(&client).await, ["new"]);
    assert_eq!(called(&client, "new").await, reached("new"));
    // Nobody asks again for it.
    sleep(MINUTE).await;
    assert_eq!(service.asked(), 2);

    // Long after it was asked, at once.
    service.have(&["newer"]);
    called(&client, "new").await;
    sleep(ms(10)).await;
    assert_eq!(service.asked(), 3);
    assert_eq!(names(&client).await, ["newer"]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_says_nothing_is_given_ten_seconds() {
    let service = Described::new(&["search"]);
    let settings = format!("{EXPOSE}services.a.refresh_interval = '1m'");
    let (client, _) = start(&service, &settings).await;
    service.hang(true);
    next(&service).await;
    let hung = Instant::now();
    let again = timeout(MINUTE, next(&service)).await.unwrap();
    assert!(again >= 10 * SECOND && again <= 12 * SECOND, "{again:?}");
    assert!(hung.elapsed() < MINUTE);
    assert_eq!(names(&client).await, ["search"]);
    service.hang(false);
}

/// A breaker that is open stays open, and what a tool has in flight is counted, although
/// the tool is another one now.
#[tokio::test(start_paused = true)]
async fn a_tool_that_changes_keeps_its_breaker() {
    let service = Described::new(&["search"]);
    let settings = format!(
        "{EXPOSE}services.a.refresh_interval = '1m'\n\
         services.a.breaker = {{ failures = 1, open_time = '1h', max_open_time = '1h' }}"
    );
    let (client, snapshots) = start(&service, &settings).await;
    service.fail(true);
    let failure = called(&client, "search").await;
    assert_eq!(failure, failed(Code::Unavailable, "TOOL_FAILED", "done"));
    let open = failed(Code::Unavailable, "CIRCUIT_OPEN", "not_started");
    assert_eq!(called(&client, "search").await, open);

    service.fail(false);
    let before = snapshots.current();
    let mut tool = crate::support::described::tool("search");
    tool.title = "another".to_owned();
    service.say(Ok(vec![tool]));
    next(&service).await;
    assert!(!Arc::ptr_eq(&before, &snapshots.current()));
    assert_eq!(called(&client, "search").await, open);
}
