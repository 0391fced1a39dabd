//! Reads the standard `OTEL_*` environment variables, which are all the settings that
//! telemetry has. The SDK reads some of them by itself, ignores others, and falls back to
//! defaults without a word; so each is read here, and its value given to the SDK.
//!
//! An empty variable counts as unset. Values that are unknown or out of range are ignored
//! and listed in [`Settings::ignored`]. Only what can't be done at all, such as trusting a
//! certificate that can't be read, is a mistake; all mistakes are reported at once. Variables
//! of what is switched off are not read. Names such as `otlp` or `true` may be in any case.

mod otlp;
mod resource;
#[cfg(test)]
mod tests;
mod variables;

use std::time::Duration;

use opentelemetry_sdk::{metrics::Temporality, trace::Sampler};

pub use self::otlp::{Otlp, Protocol, Tls};
use self::{
    otlp::Signal,
    variables::{Variables, boolean, count, milliseconds, one_of, timeout},
};
use crate::mistakes::{Mistake, Mistakes};

/// The settings of telemetry.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `OTEL_PROPAGATORS`: which context is passed on from callers to tools.
    pub propagators: Propagators,
    /// Where spans are sent; `None`: nowhere.
    pub traces: Option<Traces>,
    /// Where metrics are served, and sent.
    pub metrics: Metrics,
    /// How many bytes of the arguments and of the result of a tool call its span has
    /// (`OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT`, or `OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT`;
    /// 4096 by default). `None`: the span has neither, for they may be confidential. That is
    /// the default; see `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`.
    pub capture_content: Option<usize>,
    /// The resource of every signal: `service.name`, `service.version`,
    /// `service.instance.id`, and the attributes of `OTEL_RESOURCE_ATTRIBUTES`.
    pub resource: Vec<(String, String)>,
    /// The variables that are ignored, and why.
    pub ignored: Vec<Mistake>,
}

/// Which context is passed on from callers to tools, even with `OTEL_SDK_DISABLED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagators {
    /// W3C `traceparent` and `tracestate`.
    pub trace_context: bool,
    /// W3C `baggage`.
    pub baggage: bool,
}

/// Which spans are sent, and how.
#[derive(Clone, Debug)]
pub struct Traces {
    /// The collector.
    pub otlp: Otlp,
    /// `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`. By default, callers decide about
    /// their traces, and every trace that begins here is sampled.
    pub sampler: Sampler,
    /// `OTEL_BSP_MAX_QUEUE_SIZE`: how many spans may wait; more are dropped. Default 2048.
    pub queue_size: usize,
    /// `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`: how many are sent at once, at most `queue_size`.
    /// Default 512.
    pub batch_size: usize,
    /// `OTEL_BSP_SCHEDULE_DELAY`: how long a span waits for a batch to fill. Default 5 s.
    pub schedule_delay: Duration,
}

/// Where metrics are served, and sent.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Whether `/metrics` is served.
    pub prometheus: bool,
    /// How metrics are sent to a collector; `None`: they are not.
    pub otlp: Option<OtlpMetrics>,
}

/// How metrics are sent to a collector.
#[derive(Clone, Debug)]
pub struct OtlpMetrics {
    /// The collector.
    pub otlp: Otlp,
    /// `OTEL_METRIC_EXPORT_INTERVAL`. Default 60 s.
    pub interval: Duration,
    /// `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`. Default cumulative.
    pub temporality: Temporality,
}

const DEFAULT_EXPORT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_CONTENT_BYTES: usize = 4096;

impl Settings {
    /// Reads the environment of the process.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn from_env() -> Result<Self, Mistakes> {
        Self::read(|name| Some(std::env::var_os(name)?.to_string_lossy().into_owned()))
    }

    /// Reads the variables from `lookup`, which gives text that is not UTF-8 with
    /// replacement characters.
    ///
    /// # Errors
    /// Every mistake in them.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Mistakes> {
        let mut variables = Variables::new(&lookup);
        let disabled = variables
            .read(&["OTEL_SDK_DISABLED"], boolean)
            .unwrap_or_default();
        // Log lines go to standard output only.
        variables.read_list(&["OTEL_LOGS_EXPORTER"], &[]);
        let propagators = propagators(&mut variables);
        let (traces, metrics) = if disabled {
            let metrics = Metrics {
                prometheus: false,
                otlp: None,
            };
            (None, metrics)
        } else {
            (traces(&mut variables), metrics(&mut variables))
        };
        let capture_content = capture_content(&mut variables);
        let resource = resource::read(&mut variables);
        variables.finish(|ignored| Self {
            propagators,
            traces,
            metrics,
            capture_content,
            resource,
            ignored,
        })
    }
}

fn propagators(variables: &mut Variables<'_>) -> Propagators {
    let names = variables.read_list(&["OTEL_PROPAGATORS"], &["tracecontext", "baggage"]);
    let has = |name| names.as_ref().is_none_or(|names| names.contains(&name));
    Propagators {
        trace_context: has("tracecontext"),
        baggage: has("baggage"),
    }
}

fn traces(variables: &mut Variables<'_>) -> Option<Traces> {
    let on = match variables.read_list(&["OTEL_TRACES_EXPORTER"], &["otlp"]) {
        Some(exporters) => exporters.contains(&"otlp"),
        None => otlp::has_endpoint(variables, Signal::Traces),
    };
    if !on {
        return None;
    }
    let mut otlp = otlp::read(variables, Signal::Traces);
    let export_timeout = variables.read(&["OTEL_BSP_EXPORT_TIMEOUT"], timeout);
    otlp.timeout = otlp
        .timeout
        .min(export_timeout.unwrap_or(DEFAULT_EXPORT_TIMEOUT));

    let queue_size = variables
        .read(&["OTEL_BSP_MAX_QUEUE_SIZE"], count(1))
        .unwrap_or(2048);
    let batch_size = variables.read(&["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"], |text| {
        let size = count(1)(text)?;
        if size > queue_size {
            return Err(format!(
                "at most the OTEL_BSP_MAX_QUEUE_SIZE of {queue_size}"
            ));
        }
        Ok(size)
    });
    Some(Traces {
        otlp,
        sampler: sampler(variables),
        queue_size,
        batch_size: batch_size.unwrap_or_else(|| queue_size.min(512)),
        schedule_delay: variables
            .read(&["OTEL_BSP_SCHEDULE_DELAY"], milliseconds)
            .unwrap_or(Duration::from_secs(5)),
    })
}

fn sampler(variables: &mut Variables<'_>) -> Sampler {
    const NAMES: [&str; 6] = [
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ];
    let name = variables
        .read(&["OTEL_TRACES_SAMPLER"], one_of(&NAMES))
        .unwrap_or("parentbased_always_on");
    let takes_a_ratio = name.ends_with("traceidratio");
    let ratio = variables.read(&["OTEL_TRACES_SAMPLER_ARG"], |text| {
        if !takes_a_ratio {
            // Whoever sets 0.1 wants a tenth of all traces, and would get all of them.
            return Err(format!(
                "none, for the sampler {name} (OTEL_TRACES_SAMPLER) has no argument"
            ));
        }
        let ratio = text
            .parse()
            .ok()
            .filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.ok_or_else(|| "a number from 0 to 1".to_owned())
    });
    let root = match name {
        "always_off" | "parentbased_always_off" => Sampler::AlwaysOff,
        _ if takes_a_ratio => Sampler::TraceIdRatioBased(ratio.unwrap_or(1.0)),
        _ => Sampler::AlwaysOn,
    };
    if name.starts_with("parentbased_") {
        Sampler::ParentBased(Box::new(root))
    } else {
        root
    }
}

fn metrics(variables: &mut Variables<'_>) -> Metrics {
    let exporters = variables.read_list(&["OTEL_METRICS_EXPORTER"], &["otlp", "prometheus"]);
    let (prometheus, otlp) = match exporters {
        Some(exporters) => (
            exporters.contains(&"prometheus"),
            exporters.contains(&"otlp"),
        ),
        None => (true, otlp::has_endpoint(variables, Signal::Metrics)),
    };
    Metrics {
        prometheus,
        otlp: otlp.then(|| otlp_metrics(variables)),
    }
}

fn otlp_metrics(variables: &mut Variables<'_>) -> OtlpMetrics {
    let mut otlp = otlp::read(variables, Signal::Metrics);
    let export_timeout = variables.read(&["OTEL_METRIC_EXPORT_TIMEOUT"], timeout);
    otlp.timeout = otlp
        .timeout
        .min(export_timeout.unwrap_or(DEFAULT_EXPORT_TIMEOUT));
    let temporality = variables.read(
        &["OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"],
        one_of(&["cumulative", "delta", "lowmemory"]),
    );
    OtlpMetrics {
        otlp,
        interval: variables
            .read(&["OTEL_METRIC_EXPORT_INTERVAL"], milliseconds)
            .unwrap_or(Duration::from_secs(60)),
        temporality: match temporality {
            Some("delta") => Temporality::Delta,
            Some("lowmemory") => Temporality::LowMemory,
            _ => Temporality::Cumulative,
        },
    }
}

fn capture_content(variables: &mut Variables<'_>) -> Option<usize> {
    const VARIABLE: &str = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";
    // The values that OpenTelemetry's Python instrumentations know. Here, content is put
    // into spans, never into events.
    let captured = variables.read(&[VARIABLE], |text| {
        match text.to_ascii_lowercase().as_str() {
            "true" | "span_only" | "span_and_event" => Ok(true),
            "false" | "no_content" => Ok(false),
            _ => Err("true, false, span_only, span_and_event or no_content".to_owned()),
        }
    });
    if captured != Some(true) {
        return None;
    }
    let limits = [
        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    ];
    let limit = variables.read(&limits, count(0));
    Some(limit.unwrap_or(DEFAULT_CONTENT_BYTES))
}
