//! `target_info`: who we are, on the page for Prometheus. The exporter's own keeps
//! colons and leading digits in labels, for which Prometheus refuses the page.

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
        // Prometheus reads the text format up to a NUL.
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

/// `[a-zA-Z_][a-zA-Z0-9_]*`: any other characters are one `_`, and names that begin
/// with a digit get the prefix that Prometheus gives them when they are pushed by OTLP.
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
