//! Tables: the environment, one `NAME=value` a line, and what becomes of it.

mod mistakes;
mod otlp;

use super::*;

const TLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/tls");

fn read(environment: &str) -> Result<Settings, Mistakes> {
    let lines = environment.lines().map(str::trim);
    let variables: Vec<_> = lines.filter_map(|line| line.split_once('=')).collect();
    Settings::read(|name| {
        let set = variables.iter().find(|(known, _)| *known == name);
        set.map(|(_, value)| value.replace("TLS/", &format!("{TLS}/")))
    })
}

#[track_caller]
fn good(environment: &str) -> Settings {
    read(environment).unwrap_or_else(|error| panic!("{environment}: {error}"))
}

/// The variables that are mistaken.
#[track_caller]
fn mistaken(environment: &str) -> String {
    let error = read(environment).expect_err(environment);
    let variables = error.mistakes().iter().map(|mistake| &*mistake.key);
    variables.collect::<Vec<_>>().join(" ")
}

/// The variables of which something is ignored, of settings that are good.
#[track_caller]
fn ignored(environment: &str) -> String {
    let settings = good(environment);
    let variables = settings.ignored.iter().map(|ignored| &*ignored.key);
    variables.collect::<Vec<_>>().join(" ")
}

fn attribute<'a>(settings: &'a Settings, name: &str) -> Option<&'a str> {
    let attribute = settings.resource.iter().find(|(key, _)| key == name);
    attribute.map(|(_, value)| value.as_str())
}

#[test]
fn nothing_set_means_a_metrics_page_and_no_collector() {
    for environment in ["", "OTEL_TRACES_EXPORTER=\nOTEL_EXPORTER_OTLP_ENDPOINT= "] {
        let settings = good(environment);
        assert!(settings.propagators.trace_context && settings.propagators.baggage);
        assert!(settings.traces.is_none());
        assert!(settings.metrics.prometheus);
        assert!(settings.metrics.otlp.is_none());
        assert_eq!(settings.capture_content, None);
        assert_eq!(attribute(&settings, "service.name"), Some("fanfare"));
    }
}

#[test]
fn an_endpoint_or_a_name_switches_exporters_on() {
    // The environment; whether spans are sent, the page is served, metrics sent.
    let cases = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT=http://a:1", true, true, true),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://a",
            true,
            true,
            false,
        ),
        (
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://a",
            false,
            true,
            true,
        ),
        ("OTEL_TRACES_EXPORTER=otlp", true, true, false),
        ("OTEL_TRACES_EXPORTER=OTLP", true, true, false),
        ("OTEL_METRICS_EXPORTER=otlp", false, false, true),
        ("OTEL_METRICS_EXPORTER=none", false, false, false),
        ("OTEL_METRICS_EXPORTER=prometheus, otlp", false, true, true),
        ("OTEL_LOGS_EXPORTER=none", false, true, false),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT=http://a\nOTEL_TRACES_EXPORTER=none\n\
             OTEL_METRICS_EXPORTER=prometheus",
            false,
            true,
            false,
        ),
        (
            "OTEL_SDK_DISABLED=True\nOTEL_EXPORTER_OTLP_ENDPOINT=nonsense://",
            false,
            false,
            false,
        ),
    ];
    for (environment, traces, page, metrics) in cases {
        let settings = good(environment);
        assert_eq!(settings.traces.is_some(), traces, "{environment}");
        assert_eq!(settings.metrics.prometheus, page, "{environment}");
        assert_eq!(settings.metrics.otlp.is_some(), metrics, "{environment}");
    }
}

#[test]
fn propagators_stay_when_the_sdk_is_off() {
    let cases = [
        ("", true, true),
        ("tracecontext", true, false),
        ("baggage", false, true),
        ("baggage,TraceContext,baggage", true, true),
        ("tracecontext,", true, false),
        (",,baggage,", false, true),
        (",", true, true),
        ("b3,tracecontext", true, false),
        ("b3", true, true),
        ("none,none", false, false),
        ("none,baggage", false, true),
        ("none", false, false),
    ];
    for (names, trace_context, baggage) in cases {
        let settings = good(&format!("OTEL_PROPAGATORS={names}\nOTEL_SDK_DISABLED=true"));
        let expected = Propagators {
            trace_context,
            baggage,
        };
        assert_eq!(settings.propagators, expected, "{names}");
    }
}

#[test]
fn samplers_are_those_of_the_specification() {
    let cases = [
        ("", "", "ParentBased(AlwaysOn)"),
        ("always_on", "", "AlwaysOn"),
        ("always_off", "", "AlwaysOff"),
        ("traceidratio", "0.25", "TraceIdRatioBased(0.25)"),
        ("traceidratio", "", "TraceIdRatioBased(1.0)"),
        ("ParentBased_Always_On", "", "ParentBased(AlwaysOn)"),
        ("parentbased_always_off", "", "ParentBased(AlwaysOff)"),
        (
            "parentbased_traceidratio",
            "1e-3",
            "ParentBased(TraceIdRatioBased(0.001))",
        ),
    ];
    for (sampler, argument, expected) in cases {
        let settings = good(&format!(
            "OTEL_TRACES_EXPORTER=otlp\nOTEL_TRACES_SAMPLER={sampler}\n\
             OTEL_TRACES_SAMPLER_ARG={argument}"
        ));
        let sampler = settings.traces.expect("traces").sampler;
        assert_eq!(format!("{sampler:?}"), expected);
    }
}

#[test]
fn batches_are_sized_as_asked() {
    let traces = good("OTEL_TRACES_EXPORTER=otlp").traces.unwrap();
    assert_eq!((traces.queue_size, traces.batch_size), (2048, 512));
    assert_eq!(traces.schedule_delay.as_millis(), 5000);
    assert_eq!(traces.otlp.timeout.as_millis(), 10_000);

    let traces = good(
        "OTEL_TRACES_EXPORTER=otlp\nOTEL_BSP_MAX_QUEUE_SIZE=100\nOTEL_BSP_SCHEDULE_DELAY=20\n\
         OTEL_BSP_EXPORT_TIMEOUT=30",
    );
    let traces = traces.traces.unwrap();
    assert_eq!((traces.queue_size, traces.batch_size), (100, 100));
    assert_eq!(traces.schedule_delay.as_millis(), 20);
    assert_eq!(traces.otlp.timeout.as_millis(), 30);
}

#[test]
fn metrics_are_sent_as_asked() {
    let metrics = good("OTEL_METRICS_EXPORTER=otlp").metrics.otlp.unwrap();
    assert_eq!(metrics.interval.as_secs(), 60);
    assert_eq!(metrics.temporality, Temporality::Cumulative);

    for (name, expected) in [
        ("Delta", Temporality::Delta),
        ("lowmemory", Temporality::LowMemory),
        ("cumulative", Temporality::Cumulative),
    ] {
        let settings = good(&format!(
            "OTEL_METRICS_EXPORTER=otlp\nOTEL_METRIC_EXPORT_INTERVAL=100\n\
             OTEL_METRIC_EXPORT_TIMEOUT=50\n\
             OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE={name}"
        ));
        let metrics = settings.metrics.otlp.unwrap();
        assert_eq!(metrics.interval.as_millis(), 100);
        assert_eq!(metrics.otlp.timeout.as_millis(), 50);
        assert_eq!(metrics.temporality, expected);
    }
}

#[test]
fn the_variables_of_a_signal_win() {
    let settings = good(
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://all:1
         OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://spans:2
         OTEL_EXPORTER_OTLP_HEADERS=a=1, b=x%2C%20y ,c=d=e,
         OTEL_EXPORTER_OTLP_METRICS_HEADERS=only=this
         OTEL_EXPORTER_OTLP_TIMEOUT=7
         OTEL_EXPORTER_OTLP_TRACES_TIMEOUT=8
         OTEL_EXPORTER_OTLP_COMPRESSION=gzip
         OTEL_EXPORTER_OTLP_TRACES_COMPRESSION=none
         OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf
         OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc
         OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=GRPC",
    );
    let spans = settings.traces.unwrap().otlp;
    assert_eq!(spans.endpoint, "http://spans:2");
    assert_eq!(spans.headers["a"], "1");
    assert_eq!(spans.headers["b"], "x, y");
    assert_eq!(spans.headers["c"], "d=e");
    assert_eq!(spans.timeout.as_millis(), 8);
    assert!(!spans.gzip);

    let metrics = settings.metrics.otlp.unwrap().otlp;
    assert_eq!(metrics.endpoint, "http://all:1");
    assert_eq!(metrics.headers.len(), 1);
    assert_eq!(metrics.headers["only"], "this");
    assert_eq!(metrics.timeout.as_millis(), 7);
    assert!(metrics.gzip);
}

#[test]
fn content_is_captured_only_on_demand() {
    const SWITCH: &str = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";
    let cases = [
        ("true", "", Some(4096)),
        (
            "SPAN_ONLY",
            "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT=10",
            Some(10),
        ),
        (
            "span_and_event",
            "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT=10\nOTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT=0",
            Some(0),
        ),
        ("false", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT=10", None),
        ("NO_CONTENT", "", None),
    ];
    for (switch, limits, expected) in cases {
        let settings = good(&format!("{SWITCH}={switch}\n{limits}"));
        assert_eq!(settings.capture_content, expected, "{switch} {limits}");
    }
}

#[test]
fn the_resource_says_who_we_are() {
    let settings = good(
        "OTEL_RESOURCE_ATTRIBUTES=service.name=other, a=b%20c ,d=%E2%82%AC=,a=last,,k8s.pod.uid=u
         OTEL_SERVICE_NAME=mine",
    );
    assert_eq!(attribute(&settings, "service.name"), Some("mine"));
    assert_eq!(attribute(&settings, "a"), Some("last"));
    assert_eq!(attribute(&settings, "d"), Some("\u{20ac}="));
    assert_eq!(attribute(&settings, "service.instance.id"), Some("u"));
    let version = attribute(&settings, "service.version");
    assert_eq!(version, Some(env!("CARGO_PKG_VERSION")));

    let settings = good(
        "OTEL_RESOURCE_ATTRIBUTES=service.instance.id=i,k8s.pod.uid=u,service.version=v,\
         service.name=other",
    );
    assert_eq!(attribute(&settings, "service.instance.id"), Some("i"));
    assert_eq!(attribute(&settings, "service.version"), Some("v"));
    assert_eq!(attribute(&settings, "service.name"), Some("other"));
}

#[test]
fn an_instance_has_a_random_uuid() {
    let id = || {
        attribute(&good(""), "service.instance.id")
            .unwrap()
            .to_owned()
    };
    let (one, other) = (id(), id());
    assert_ne!(one, other);
    for id in [one, other] {
        let lengths: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
        assert_eq!(&id[14..15], "4", "{id}");
        assert!("89ab".contains(&id[19..20]), "{id}");
    }
}
