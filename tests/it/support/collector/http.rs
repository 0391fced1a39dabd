//! The same collector over HTTP/1.1, as strict as OTLP is about requests.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use fanfare::transport::gzip::inflate;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::{
    metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
};
use prost::Message;
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
};
use tonic::{Code, Status};

use super::{Inbox, Pem, rejecting};

/// Serves as long as the runtime lives.
pub(super) async fn serve(listener: TcpListener, inbox: Arc<Inbox>, tls: Option<Pem>) {
    let tls = tls.map(|pem| TlsAcceptor::from(Arc::new(server_config(pem))));
    while let Ok((stream, _)) = listener.accept().await {
        let (inbox, tls) = (Arc::clone(&inbox), tls.clone());
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| answer(&inbox, request));
            let http = http1::Builder::new();
            // Clients may go whenever they like.
            let _ = match tls {
                None => http.serve_connection(TokioIo::new(stream), service).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await,
                    Err(_) => Ok(()),
                },
            };
        });
    }
}

fn server_config(pem: Pem) -> ServerConfig {
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
    let mut roots = RootCertStore::empty();
    roots.add(certificate(pem.authority)).expect("an authority");
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).expect("PEM");
    ServerConfig::builder()
        .with_client_cert_verifier(verifier.expect("a verifier"))
        .with_single_cert(vec![certificate(pem.certificate)], key)
        .expect("a certificate")
}

async fn answer(
    inbox: &Inbox,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    let (status, body) = match export(inbox, request).await {
        Ok(answer) => (StatusCode::OK, answer),
        Err(status) => (status, Vec::new()),
    };
    *response.status_mut() = status;
    *response.body_mut() = Full::from(body);
    Ok(response)
}

async fn export(inbox: &Inbox, request: Request<Incoming>) -> Result<Vec<u8>, StatusCode> {
    let (head, body) = request.into_parts();
    let header = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap());
    if head.method != "POST" || header("host").is_none() {
        return Err(StatusCode::BAD_REQUEST);
    }
    if header("content-type") != Some("application/x-protobuf") {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let bad = |_| StatusCode::BAD_REQUEST;
    let body = body.collect().await.map_err(bad)?.to_bytes();
    let body = match header("content-encoding") {
        Some("gzip") => inflate(&body, 64 << 20).map_err(|_| StatusCode::BAD_REQUEST)?,
        _ => body,
    };
    let headers = head.headers.clone();
    match head.uri.path() {
        "/v1/traces" => {
            let message: ExportTraceServiceRequest = decoded(&body)?;
            let taken = inbox.take(|received| received.add_traces(headers, message));
            let rejected = taken.await.map_err(|status| refusal(&status))?;
            let answer: ExportTraceServiceResponse = rejecting(rejected);
            Ok(answer.encode_to_vec())
        }
        "/v1/metrics" => {
            let message: ExportMetricsServiceRequest = decoded(&body)?;
            let taken = inbox.take(|received| received.add_metrics(headers, message));
            taken.await.map_err(|status| refusal(&status))?;
            Ok(ExportMetricsServiceResponse::default().encode_to_vec())
        }
        _ => Err(StatusCode::NOT_FOUND),
    }
}

fn decoded<T: Message + Default>(body: &[u8]) -> Result<T, StatusCode> {
    T::decode(body).map_err(|_| StatusCode::BAD_REQUEST)
}

fn refusal(status: &Status) -> StatusCode {
    match status.code() {
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    }
}
