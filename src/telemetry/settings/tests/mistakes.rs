//! What is refused, and that no message shows a secret.

use proptest::prelude::*;

use super::{super::Settings, good, mistaken, read};

#[test]
fn what_can_not_be_used_is_a_mistake() {
    let bad = "
        OTEL_SDK_DISABLED=yes
        OTEL_PROPAGATORS=b3
        OTEL_PROPAGATORS=tracecontext,none
        OTEL_PROPAGATORS=tracecontext,,baggage
        OTEL_TRACES_EXPORTER=console
        OTEL_TRACES_EXPORTER=otlp,none
        OTEL_METRICS_EXPORTER=prometheus,console
        OTEL_LOGS_EXPORTER=otlp
        OTEL_TRACES_SAMPLER=jaeger_remote
        OTEL_TRACES_SAMPLER_ARG=0.5
        OTEL_BSP_MAX_QUEUE_SIZE=0
        OTEL_BSP_MAX_QUEUE_SIZE=+1
        OTEL_BSP_MAX_QUEUE_SIZE=99999999999999999999
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE=2049
        OTEL_BSP_SCHEDULE_DELAY=5s
        OTEL_BSP_EXPORT_TIMEOUT=-1
        OTEL_METRIC_EXPORT_INTERVAL=0
        OTEL_METRIC_EXPORT_TIMEOUT=86400001
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=always
        OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf
        OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=http/json
        OTEL_EXPORTER_OTLP_TRACES_INSECURE=1
        OTEL_EXPORTER_OTLP_TRACES_TIMEOUT=1.5
        OTEL_EXPORTER_OTLP_TRACES_COMPRESSION=zstd
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=ftp://a
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://:1
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://a:
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://a:0
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://a:65536
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://a:4318/v1/traces
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://a b
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://user:secret@a
        OTEL_EXPORTER_OTLP_TRACES_HEADERS=secret
        OTEL_EXPORTER_OTLP_TRACES_HEADERS==secret
        OTEL_EXPORTER_OTLP_TRACES_HEADERS=a secret=b
        OTEL_EXPORTER_OTLP_TRACES_HEADERS=a=secret%
        OTEL_EXPORTER_OTLP_TRACES_HEADERS=a=secret%2x
        OTEL_EXPORTER_OTLP_TRACES_HEADERS=a=secret%0A
        OTEL_EXPORTER_OTLP_TRACES_HEADERS=a=secret%ff%fe
        OTEL_EXPORTER_OTLP_TRACES_HEADERS=a=1,grpc-timeout=secret
        OTEL_EXPORTER_OTLP_TRACES_HEADERS=Content-Type=secret
        OTEL_EXPORTER_OTLP_TRACES_HEADERS=a=\u{fffd}secret
        OTEL_RESOURCE_ATTRIBUTES=a
        OTEL_RESOURCE_ATTRIBUTES==a
        OTEL_RESOURCE_ATTRIBUTES=a=b,c=%zz
        OTEL_RESOURCE_ATTRIBUTES=a=%ff
        OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=event_only";
    for line in bad.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (variable, _) = line.split_once('=').unwrap();
        // The first of equal names counts.
        let environment = format!(
            "{line}\nOTEL_TRACES_EXPORTER=otlp\nOTEL_METRICS_EXPORTER=otlp\n\
             OTEL_SDK_DISABLED=false"
        );
        assert_eq!(mistaken(&environment), variable, "{line}");
        let text = read(&environment).unwrap_err().to_string();
        assert!(text.starts_with(&format!("{variable}: ")), "{text}");
        assert!(!text.contains("secret") && !text.contains('\n'), "{text}");
    }
}

#[test]
fn a_ratio_is_between_nothing_and_all() {
    for ratio in ["-0.1", "1.1", "NaN", "inf", "half"] {
        let environment = format!(
            "OTEL_TRACES_EXPORTER=otlp\nOTEL_TRACES_SAMPLER=traceidratio\n\
             OTEL_TRACES_SAMPLER_ARG={ratio}"
        );
        assert_eq!(mistaken(&environment), "OTEL_TRACES_SAMPLER_ARG", "{ratio}");
    }
}

#[test]
fn all_mistakes_come_at_once_and_each_once() {
    let error = read(
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://a
         OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf
         OTEL_EXPORTER_OTLP_TIMEOUT=long
         OTEL_BSP_MAX_QUEUE_SIZE=many
         OTEL_LOGS_EXPORTER=otlp",
    )
    .unwrap_err();
    let variables: Vec<_> = error.mistakes().iter().map(|m| &*m.variable).collect();
    let expected = [
        "OTEL_LOGS_EXPORTER",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "OTEL_BSP_MAX_QUEUE_SIZE",
    ];
    assert_eq!(variables, expected);
    let text = error.to_string();
    assert_eq!(text.lines().count(), 4);
    for shown in ["4317", "\"http/protobuf\"", "\"many\"", "\"otlp\""] {
        assert!(text.contains(shown), "{text}");
    }
}

#[test]
fn secrets_are_not_shown_by_debug_either() {
    let settings = good(
        "OTEL_EXPORTER_OTLP_ENDPOINT=https://a
         OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20secret
         OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=TLS/client.pem
         OTEL_EXPORTER_OTLP_CLIENT_KEY=TLS/client.key",
    );
    let shown = format!("{settings:?}");
    assert!(!shown.contains("secret"), "{shown}");
    // The key, as a list of bytes.
    assert!(!shown.contains("45, 45, 45"), "{shown}");
}

const VARIABLES: [&str; 28] = [
    "OTEL_SDK_DISABLED",
    "OTEL_PROPAGATORS",
    "OTEL_TRACES_EXPORTER",
    "OTEL_METRICS_EXPORTER",
    "OTEL_LOGS_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_METRIC_EXPORT_INTERVAL",
    "OTEL_METRIC_EXPORT_TIMEOUT",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_INSECURE",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SERVICE_NAME",
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
];

proptest! {
    #[test]
    fn no_environment_panics(
        values in prop::collection::vec(
            prop_oneof![
                Just(String::new()),
                r"\PC{0,20}",
                "(otlp|none|true|grpc|gzip|https?://[a-z:@/%]{0,8}|[0-9.]{0,22}|[a-z%0-9=,]{0,20})",
            ],
            VARIABLES.len(),
        ),
    ) {
        let lookup = |name: &str| {
            let index = VARIABLES.iter().position(|known| *known == name)?;
            Some(values[index].clone())
        };
        if let Err(error) = Settings::read(lookup) {
            prop_assert!(!error.mistakes().is_empty());
            prop_assert_eq!(error.to_string().lines().count(), error.mistakes().len());
        }
    }
}
