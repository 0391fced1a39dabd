//! The way out: exporters that speak OTLP over gRPC, and the resource that they
//! name. Nothing here connects: a collector that is not there, or never answers,
//! costs only what it would have got.
//!
//! The channel and the headers are made here, for opentelemetry-otlp's builders
//! trust no certificate, bound no connecting, and read the environment once more.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, WithExportConfig as _, WithTonicConfig,
};
use opentelemetry_sdk::{Resource, resource::TelemetryResourceDetector};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::CompressionEncoding,
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};

use super::settings::{Otlp, OtlpMetrics};

const USER_AGENT: &str = concat!("fanfare/", env!("CARGO_PKG_VERSION"));
/// Enough for a few lost packets; a lost SYN would otherwise be repeated for two
/// minutes.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client of the collector.
pub(super) fn client(otlp: &Otlp) -> Result<Grpc<Channel>, ExporterBuildError> {
    let client = Grpc::new(channel(otlp)?);
    Ok(match otlp.compression {
        Some(_) => client.send_compressed(CompressionEncoding::Gzip),
        None => client,
    })
}

/// What is sent along with every request.
pub(super) fn metadata(otlp: &Otlp) -> MetadataMap {
    MetadataMap::from_headers(otlp.headers.clone())
}

/// The exporter of metrics.
///
/// # Errors
/// The builder's; not for any [`Otlp`] that the environment gives.
///
/// # Panics
/// Outside of a Tokio runtime, which the connection lives on.
pub fn metric_exporter(metrics: &OtlpMetrics) -> Result<MetricExporter, ExporterBuildError> {
    let otlp = &metrics.otlp;
    let builder = MetricExporter::builder()
        .with_temporality(metrics.temporality)
        .with_tonic();
    configured(builder.with_timeout(otlp.timeout), otlp)?.build()
}

/// Who we are: `attributes`, and the SDK.
pub fn resource(attributes: &[(String, String)]) -> Resource {
    let attributes = attributes.iter().cloned();
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(attributes.map(|(key, value)| KeyValue::new(key, value)))
        .build()
}

fn configured<B: WithTonicConfig>(builder: B, otlp: &Otlp) -> Result<B, ExporterBuildError> {
    let headers = metadata(otlp);
    // It comes last, and so replaces what the builder read by itself.
    let set_headers = move |mut request: Request<()>| -> Result<_, Status> {
        *request.metadata_mut() = headers.clone();
        Ok(request)
    };
    let builder = builder
        .with_channel(channel(otlp)?)
        .with_interceptor(set_headers);
    Ok(match otlp.compression {
        Some(compression) => builder.with_compression(compression),
        // No way to say so: the builder reads the same variables as we did.
        None => builder,
    })
}

fn channel(otlp: &Otlp) -> Result<Channel, ExporterBuildError> {
    let refused = |error| ExporterBuildError::InvalidConfiguration(format!("{error:?}"));
    let connect_timeout = otlp.timeout.min(MAX_CONNECT_TIMEOUT);
    let mut endpoint = Endpoint::from(otlp.endpoint.clone())
        .user_agent(USER_AGENT)
        .map_err(refused)?
        .connect_timeout(connect_timeout)
        .timeout(otlp.timeout)
        // A collector whose machine vanished would else be sent to for minutes.
        // At most twice in one export: gRPC servers close a connection on the
        // third ping without an answer in between (gRFC A8).
        .http2_keep_alive_interval(otlp.timeout / 2)
        .keep_alive_timeout(otlp.timeout / 2);
    if let Some(tls) = &otlp.tls {
        let tls = tls.0.clone().timeout(connect_timeout);
        endpoint = endpoint.tls_config(tls).map_err(refused)?;
    }
    Ok(endpoint.connect_lazy())
}
