//! The formats of lines, and what happens to lines when the output is stuck.

use std::{io, sync::Mutex, sync::mpsc, time::Duration};

use opentelemetry::{
    Context,
    context::FutureExt as _,
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState},
};
use serde_json::{Value, json};

use super::{escape::steers, *};

/// Within the span of that id, of a trace that is not recorded.
fn within(span: u8) -> Context {
    let (trace, span) = ([0xab; 16], [span; 8]);
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from_bytes(trace),
        SpanId::from_bytes(span),
        TraceFlags::NOT_SAMPLED,
        false,
        TraceState::NONE,
    ))
}

#[derive(Default)]
struct Sink(Mutex<Vec<u8>>);

impl io::Write for &Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `log` logs, in this format.
fn logged(format: Format, log: impl FnOnce()) -> String {
    use tracing_subscriber::layer::SubscriberExt as _;
    let sink = Arc::new(Sink::default());
    let layer = tracing_subscriber::fmt::layer()
        .event_format(format)
        .with_writer(Arc::clone(&sink));
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, log);
    let bytes = sink.0.lock().unwrap();
    String::from_utf8(bytes.clone()).unwrap()
}

/// The lines that `log` logs, as objects.
pub(crate) fn json_lines(log: impl FnOnce()) -> Vec<Value> {
    let lines = logged(Format::Json, log);
    let lines = lines.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("JSON lines")
}

/// The one line that `log` logs, as an object, without its time.
#[track_caller]
fn object(log: impl FnOnce()) -> Value {
    let line = logged(Format::Json, log);
    assert_eq!(line.matches('\n').count(), 1, "{line}");
    let mut object: Value = serde_json::from_str(&line).expect(&line);
    let time = object.as_object_mut().unwrap().remove("timestamp");
    let time = time.unwrap().as_str().unwrap().to_owned();
    assert_eq!(time.len(), "2026-11-22T23:59:59.123456Z".len());
    assert!(humantime::parse_rfc3339(&time).is_ok(), "{time}");
    object
}

#[test]
fn fields_are_flat_and_keep_their_types() {
    let line = object(|| {
        let error = io::Error::other("broken");
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::warn!(
            target: "there",
            int = -1, big = u64::MAX, float = 1.5, none = f64::NAN, yes = true, text = "a\"b",
            debug = ?Some(1), display = %"x", r#type = "t", dotted.name = 1, error,
            "said {}", "so"
        );
    });
    let expected = json!({
        "level": "WARN", "target": "there", "message": "said so", "int": -1, "big": u64::MAX,
        "float": 1.5, "none": "NaN", "yes": true, "text": "a\"b", "debug": "Some(1)",
        "display": "x", "type": "t", "dotted.name": 1, "error": "broken",
    });
    assert_eq!(line, expected);
}

#[test]
fn a_line_begins_with_what_all_lines_have() {
    let line = logged(Format::Json, || tracing::info!(a = 1, "b"));
    let keys = [
        "{\"timestamp\":",
        "\"level\":",
        "\"target\":",
        "\"message\":",
        "\"a\":",
    ];
    let places = keys.map(|key| line.find(key).expect(key));
    assert!(places.is_sorted(), "{line}");
}

#[test]
fn nothing_forges_a_line() {
    let evil = "é\n{\"level\":\"INFO\"}\r\u{1b}[2J\u{0}\u{7f}\u{9b}\u{9b}2J\u{202e}\\";
    let log = || tracing::info!(evil, level = "x", timestamp = 1, span_id = 1, "{evil}");
    let line = logged(Format::Json, log);
    let steering = line.trim_end_matches('\n').chars().filter(|&c| steers(c));
    assert_eq!(steering.count(), 0, "{line:?}");
    let line = object(log);
    assert_eq!(line["message"], evil);
    assert_eq!(line["evil"], evil);
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["field.level"], "x");
    assert_eq!(line["field.timestamp"], 1);
    assert_eq!(line["field.span_id"], 1);

    let line = logged(Format::Human(Human { color: false }), || {
        tracing::info!(evil, "{evil}");
    });
    let steering = line.trim_end_matches('\n').chars().filter(|&c| steers(c));
    assert_eq!(steering.count(), 0, "{line:?}");
}

#[tokio::test]
async fn lines_name_the_span_that_runs() {
    let lines = async {
        tokio::task::yield_now().await;
        let line = object(|| tracing::info!("inside"));
        assert_eq!(line["trace_id"], "ab".repeat(16));
        assert_eq!(line["span_id"], "01".repeat(8));
        assert_eq!(line["trace_flags"], "00");
        // Unless they are about another.
        let other = within(2).attach();
        let line = object(|| tracing::info!("inside"));
        assert_eq!(line["span_id"], "02".repeat(8));
        drop(other);

        let line = logged(Format::Human(Human { color: false }), || {
            tracing::info!("inside")
        });
        assert!(
            line.ends_with(&format!(" trace_id={}\n", "ab".repeat(16))),
            "{line}"
        );
    };
    lines.with_context(within(1)).await;
    assert_eq!(object(|| tracing::info!("outside")).get("trace_id"), None);
}

#[test]
fn people_read_a_line_from_left_to_right() {
    let log = || tracing::warn!(target: "there", count = 3, name = "a b", "said so");
    let line = logged(Format::Human(Human { color: false }), log);
    let (_, line) = line.split_once(' ').unwrap();
    assert_eq!(line, " WARN there: said so count=3 name=a b\n");

    let line = logged(Format::Human(Human { color: true }), log);
    assert!(line.contains("\x1b[33m WARN\x1b[0m"), "{line:?}");
}

/// An output that takes bytes only when it is told to.
struct Stuck(mpsc::Receiver<()>, mpsc::Sender<Vec<u8>>);

impl io::Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.recv().map_err(io::Error::other)?;
        self.1.send(bytes.to_owned()).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stuck_output_holds_nobody_up_and_loses_lines_beyond_a_bound() {
    use std::io::Write as _;
    let (go, wait) = mpsc::channel();
    let (written, taken) = mpsc::channel();
    let queue = Arc::new(Queue::default());
    queue.start(Stuck(wait, written), || {}).unwrap();
    let line = [b'x'; 1 << 10];
    let count = 3 << 10;
    for _ in 0..count {
        (&*queue).write_all(&line).unwrap();
    }
    queue.flush(Duration::from_millis(10));
    assert!(taken.try_recv().is_err());

    // Two writes; with a subscriber, a line about the rest would follow.
    go.send(()).unwrap();
    go.send(()).unwrap();
    queue.flush(Duration::from_secs(30));
    let bytes: usize = taken.try_iter().map(|bytes| bytes.len()).sum();
    assert!(((1 << 20)..=(2 << 20)).contains(&bytes), "{bytes}");

    (&*queue).write_all(b"again").unwrap();
    go.send(()).unwrap();
    queue.flush(Duration::from_secs(30));
    assert_eq!(taken.try_recv().unwrap(), b"again");
}

#[test]
fn an_unreadable_directive_is_named() {
    for good in [
        "info",
        "warn,fanfare=debug",
        "fanfare::net=off",
        "h2=trace,",
    ] {
        assert!(filter::wanted(good).is_ok(), "{good}");
    }
    for (bad, named) in [
        ("info,fanfare=loud", "\"fanfare=loud\""),
        ("a=b=c", "\"a=b=c\""),
        ("fanfare[", "\"fanfare[\""),
    ] {
        let error = filter::wanted(bad).unwrap_err();
        assert!(
            error.contains("RUST_LOG") && error.contains(named),
            "{error}"
        );
    }
}

#[test]
fn durations_have_three_digits_and_no_exponent() {
    let cases = [
        (5.676e-6, "0.00000568"),
        (894.776_000_000_000_1, "895"),
        (0.3, "0.3"),
        (12_345.6, "12300"),
        (1e-9, "0.000000001"),
        (0.0, "0"),
        (-1.2345, "-1.23"),
    ];
    for (seconds, expected) in cases {
        let line = logged(Format::Json, || tracing::info!(seconds, "x"));
        let expected = format!("\"seconds\":{expected}}}");
        assert!(line.trim_end().ends_with(&expected), "{line}");
        assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");
    }
}
