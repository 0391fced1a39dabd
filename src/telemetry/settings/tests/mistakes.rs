//! What is ignored, what is refused, and that no message shows a secret.

use proptest::prelude::*;

use super::{good, ignored, mistaken, read};
use crate::telemetry::settings::Settings;

/// Asks for everything.
const ON: &str = "OTEL_TRACES_EXPORTER=otlp\nOTEL_METRICS_EXPORTER=otlp\nOTEL_SDK_DISABLED=false";

#[test]
fn what_is_unknown_or_out_of_range_is_ignored() {
    let bad = "
        OTEL_SDK_DISABLED=yes
        OTEL_SDK_DISABLED=1
        OTEL_PROPAGATORS=b3
        OTEL_PROPAGATORS=b3,b3multi
        OTEL_PROPAGATORS=tracecontext,none
        OTEL_TRACES_EXPORTER=console
        OTEL_TRACES_EXPORTER=otlp,none
        OTEL_METRICS_EXPORTER=prometheus,console
        OTEL_LOGS_EXPORTER=otlp
        OTEL_LOGS_EXPORTER=none,otlp
        OTEL_TRACES_SAMPLER=jaeger_remote
        OTEL_TRACES_SAMPLER_ARG=0.5
        OTEL_BSP_MAX_QUEUE_SIZE=0
        OTEL_BSP_MAX_QUEUE_SIZE=+1
        OTEL_BSP_MAX_QUEUE_SIZE=99999999999999999999
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE=2049
        OTEL_BSP_SCHEDULE_DELAY=5s
        OTEL_BSP_SCHEDULE_DELAY=0
        OTEL_BSP_EXPORT_TIMEOUT=-1
        OTEL_METRIC_EXPORT_INTERVAL=0
        OTEL_METRIC_EXPORT_TIMEOUT=86400001
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=always
        OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=http/json
        OTEL_EXPORTER_OTLP_TRACES_INSECURE=1
        OTEL_EXPORTER_OTLP_TRACES_TIMEOUT=1.5
        OTEL_EXPORTER_OTLP_TRACES_COMPRESSION=zstd
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://a:4318/v1/traces
        OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE=nowhere
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
        OTEL_RESOURCE_ATTRIBUTES=a=\u{fffd}
        OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=event_only";
    for line in bad.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (variable, _) = line.split_once('=').unwrap();
        // The first of equal names counts.
        let environment = format!("{line}\n{ON}");
        let mut variables: Vec<_> = ignored(&environment)
            .split(' ')
            .map(str::to_owned)
            .collect();
        variables.dedup();
        assert_eq!(variables, [variable], "{line}");
        let settings = good(&environment);
        for ignored in &settings.ignored {
            let text = ignored.to_string();
            assert!(text.starts_with(&format!("{variable}: ")), "{text}");
            assert!(!text.contains("secret") && !text.contains('\n'), "{text}");
        }
        // As if it were not there: what else was asked is done.
        if !line.contains("_HEADERS=") && !line.contains("_EXPORTER=") && !line.contains(',') {
            let without = good(&environment.replace(line, ""));
            let mut shown = [&settings, &without].map(|settings| format!("{settings:?}"));
            for text in &mut shown {
                text.truncate(text.find("resource: ").unwrap());
            }
            if !variable.ends_with("ENDPOINT") {
                assert_eq!(shown[0], shown[1], "{line}");
            }
        }
    }
}

#[test]
fn of_a_list_the_rest_is_used() {
    let environment = "OTEL_TRACES_EXPORTER=console,otlp
         OTEL_METRICS_EXPORTER=logging,prometheus,zipkin
         OTEL_EXPORTER_OTLP_HEADERS=a=1,content-type=x,b,c=3";
    let settings = good(environment);
    let headers = settings.traces.unwrap().otlp.headers;
    assert_eq!(
        (headers.len(), &headers["a"], &headers["c"]),
        (2, &"1".parse().unwrap(), &"3".parse().unwrap())
    );
    assert!(settings.metrics.prometheus && settings.metrics.otlp.is_none());
    let all = "OTEL_TRACES_EXPORTER OTEL_EXPORTER_OTLP_HEADERS OTEL_EXPORTER_OTLP_HEADERS \
               OTEL_METRICS_EXPORTER OTEL_METRICS_EXPORTER";
    assert_eq!(ignored(environment), all);
    // Nothing is no element.
    let environment = "OTEL_PROPAGATORS=tracecontext,\nOTEL_METRICS_EXPORTER=,otlp, ,";
    assert_eq!(ignored(environment), "");
}

#[test]
fn the_variable_for_all_counts_where_that_of_a_signal_is_ignored() {
    let settings = good(
        "OTEL_TRACES_EXPORTER=otlp
         OTEL_EXPORTER_OTLP_TRACES_TIMEOUT=soon
         OTEL_EXPORTER_OTLP_TIMEOUT=7",
    );
    assert_eq!(settings.traces.unwrap().otlp.timeout.as_millis(), 7);
}

#[test]
fn what_can_not_be_done_is_refused() {
    let bad = "
        ENDPOINT=ftp://a
        ENDPOINT=http://
        ENDPOINT=http://:1
        ENDPOINT=http://a:
        ENDPOINT=http://a:0
        ENDPOINT=http://a:65536
        ENDPOINT=http://a b
        ENDPOINT=http://user:secret@a";
    for line in bad.lines().map(str::trim).filter(|line| !line.is_empty()) {
        for protocol in ["grpc", "http/protobuf"] {
            let variable = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
            let environment = format!(
                "OTEL_EXPORTER_OTLP_TRACES_{line}\nOTEL_EXPORTER_OTLP_PROTOCOL={protocol}\n{ON}"
            );
            assert_eq!(mistaken(&environment), variable, "{line}");
            let text = read(&environment).unwrap_err().to_string();
            assert!(text.starts_with(&format!("{variable}: ")), "{text}");
            assert!(!text.contains("secret") && !text.contains('\n'), "{text}");
        }
    }
}

#[test]
fn a_ratio_is_between_nothing_and_all() {
    for ratio in ["-0.1", "1.1", "NaN", "inf", "half"] {
        let environment = format!(
            "OTEL_TRACES_EXPORTER=otlp\nOTEL_TRACES_SAMPLER=traceidratio\n\
             OTEL_TRACES_SAMPLER_ARG={ratio}"
        );
        assert_eq!(ignored(&environment), "OTEL_TRACES_SAMPLER_ARG", "{ratio}");
    }
}

#[test]
fn everything_is_told_at_once_and_once() {
    let environment = "OTEL_EXPORTER_OTLP_ENDPOINT=https://a
         OTEL_EXPORTER_OTLP_PROTOCOL=http/json
         OTEL_EXPORTER_OTLP_TIMEOUT=long
         OTEL_BSP_MAX_QUEUE_SIZE=many
         OTEL_LOGS_EXPORTER=otlp";
    let settings = good(environment);
    let told: Vec<_> = settings.ignored.iter().map(ToString::to_string).collect();
    let variables: Vec<_> = told
        .iter()
        .map(|text| text.split(':').next().unwrap())
        .collect();
    let expected = [
        "OTEL_LOGS_EXPORTER",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "OTEL_BSP_MAX_QUEUE_SIZE",
    ];
    assert_eq!(variables, expected);
    for shown in ["http/protobuf", "\"http/json\"", "\"many\"", "\"otlp\""] {
        assert!(told.iter().any(|text| text.contains(shown)), "{told:?}");
    }

    let refused = format!(
        "{environment}\nOTEL_EXPORTER_OTLP_CERTIFICATE=nowhere\n\
         OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=ftp://a"
    );
    let error = read(&refused).unwrap_err();
    assert_eq!(error.to_string().lines().count(), 2);
    let all = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT OTEL_EXPORTER_OTLP_CERTIFICATE";
    assert_eq!(mistaken(&refused), all);
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
