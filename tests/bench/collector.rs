//! The collector of the bench: takes all telemetry that comes, as one that is far
//! away and fast would.

use opentelemetry_proto::tonic::collector::{
    metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use tonic::{Request, Response, Status};

use crate::{Result, tool};

struct Sink;

type Answer<T> = std::result::Result<Response<T>, Status>;

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Answer<ExportTraceServiceResponse> {
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Sink {
    async fn export(
        &self,
        _: Request<ExportMetricsServiceRequest>,
    ) -> Answer<ExportMetricsServiceResponse> {
        Ok(Response::new(Default::default()))
    }
}

/// Serves until it is killed.
pub(crate) async fn run() -> Result<()> {
    let incoming = tool::listen().await?;
    tool::server()
        .add_service(TraceServiceServer::new(Sink).max_decoding_message_size(usize::MAX))
        .add_service(MetricsServiceServer::new(Sink).max_decoding_message_size(usize::MAX))
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}
