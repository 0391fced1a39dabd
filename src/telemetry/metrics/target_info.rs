//! `target_info`: the resource as a metric for Prometheus. That of `opentelemetry-prometheus`
//! keeps colons and leading digits in label names; Prometheus then refuses the whole page.

use std::collections::BTreeMap;

use opentelemetry_sdk::Resource;
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// The resource as a metric: 1, with the attributes as labels
/// (<https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/#resource-attributes-1>).
pub(super) fn family(resource: &Resource) -> MetricFamily {
    let mut attributes: Vec<_> = resource.iter().collect();
    attributes.sort_by_key(|(key, _)| key.as_str());
    let mut labels = BTreeMap::<String, String>::new();
    for (key, value) in attributes {
        // Prometheus stops reading at a NUL.
        let value = value.as_str().replace('\0', "\u{fffd}");
        labels
            .entry(label_name(key.as_str()))
            .and_modify(|values| *values = format!("{values};{value}"))
            .or_insert(value);
    }
    let labels = labels.into_iter().map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name(name);
        label.set_value(value);
        label
    });
    let mut one = Gauge::default();
    one.set_value(1.0);
    let mut metric = Metric::from_label(labels.collect());
    metric.set_gauge(one);
    let mut family = MetricFamily::default();
    family.set_name("target_info".to_owned());
    family.set_help("Target metadata".to_owned());
    family.set_field_type(MetricType::GAUGE);
    family.set_metric(vec![metric]);
    family
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`: a run of other characters becomes one `_`, and a name that
/// begins with a digit gets the prefix that Prometheus itself adds to what OTLP brings.
fn label_name(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    if key.starts_with(|first: char| first.is_ascii_digit()) {
        name.push_str("key_");
    }
    for character in key.chars() {
        if character.is_ascii_alphanumeric() {
            name.push(character);
        } else if !name.ends_with('_') {
            name.push('_');
        }
    }
    name
}
