//! `OTEL_EXPORTER_OTLP_*`: how to reach a collector. The variables of one signal
//! (`OTEL_EXPORTER_OTLP_TRACES_*`, `OTEL_EXPORTER_OTLP_METRICS_*`) win over those
//! for all. Certificates are read and checked here.

use std::{error::Error, fmt, fs::File, io::Read as _, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Uri, uri::Scheme};
use opentelemetry_otlp::Compression;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::{
    reader::{Reader, boolean, milliseconds, one_of, shown},
    resource::pairs,
};

const DEFAULT_ENDPOINT: &str = "http://localhost:4317";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// A bundle of all public authorities takes a fifth of it.
const MAX_PEM_BYTES: u64 = 1 << 20;
/// Headers that HTTP/2 and gRPC set, or forbid.
const RESERVED_HEADERS: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// How to reach a collector with OTLP over gRPC.
#[derive(Clone, Debug)]
pub struct Otlp {
    /// `ENDPOINT`: `http` or `https`, a host, and a port unless it is the
    /// scheme's own. Without a scheme it is `https`, or `http` if `INSECURE` is
    /// true. Default `http://localhost:4317`.
    pub endpoint: Uri,
    /// `HEADERS`: sent with every export. Their values are never shown.
    pub headers: HeaderMap,
    /// `TIMEOUT`: how long one export may take, with its retries. Default 10 s.
    pub timeout: Duration,
    /// `COMPRESSION`: `None`, the default, or gzip.
    pub compression: Option<Compression>,
    /// How to verify the collector; `None` exactly if the endpoint is `http`.
    pub tls: Option<Tls>,
}

/// Whom to trust (`CERTIFICATE`; by default the public authorities), and who we
/// are (`CLIENT_CERTIFICATE` and `CLIENT_KEY`; by default nobody).
#[derive(Clone)]
pub struct Tls(pub(in crate::telemetry) ClientTlsConfig);

/// tonic's would show the key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Signal {
    Traces,
    Metrics,
}

/// A variable for one signal, and the one for all.
struct Names([String; 2]);

impl Signal {
    fn names(self, key: &str) -> Names {
        let signal = match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
        };
        Names([
            format!("OTEL_EXPORTER_OTLP_{signal}_{key}"),
            format!("OTEL_EXPORTER_OTLP_{key}"),
        ])
    }
}

impl Names {
    fn get(&self) -> [&str; 2] {
        self.0.each_ref().map(String::as_str)
    }
}

pub(super) fn has_endpoint(reader: &Reader<'_>, signal: Signal) -> bool {
    let names = signal.names("ENDPOINT");
    reader.first(&names.get()).is_some()
}

pub(super) fn read(reader: &mut Reader<'_>, signal: Signal) -> Otlp {
    reader.read(&signal.names("PROTOCOL").get(), |text| {
        if text.eq_ignore_ascii_case("grpc") {
            return Ok(());
        }
        Err("grpc (only OTLP over gRPC is spoken, to which collectors listen on port 4317)".into())
    });
    let endpoint = read_endpoint(reader, signal);
    let headers = reader.read_secret(&signal.names("HEADERS").get(), headers);
    let timeout = reader.read(&signal.names("TIMEOUT").get(), milliseconds);
    let compression = reader.read(
        &signal.names("COMPRESSION").get(),
        one_of(&["gzip", "none"]),
    );
    Otlp {
        tls: endpoint
            .as_ref()
            .and_then(|endpoint| tls(reader, signal, endpoint)),
        endpoint: endpoint.unwrap_or_default(),
        headers: headers.unwrap_or_default(),
        timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
        compression: (compression == Some("gzip")).then_some(Compression::Gzip),
    }
}

/// `None` if it is mistaken.
fn read_endpoint(reader: &mut Reader<'_>, signal: Signal) -> Option<Uri> {
    let insecure = reader.read(&signal.names("INSECURE").get(), boolean);
    if !has_endpoint(reader, signal) {
        return Some(Uri::from_static(DEFAULT_ENDPOINT));
    }
    reader.read_secret(&signal.names("ENDPOINT").get(), |text| {
        endpoint(text, insecure.unwrap_or_default())
    })
}

fn endpoint(text: &str, insecure: bool) -> Result<Uri, String> {
    if text.contains('@') {
        // Not shown: it may be a password.
        return Err("must not contain a user: use OTEL_EXPORTER_OTLP_HEADERS".to_owned());
    }
    let scheme = match (text.contains("://"), insecure) {
        (true, _) => "",
        (false, true) => "http://",
        (false, false) => "https://",
    };
    let uri = format!("{scheme}{text}").parse().ok();
    uri.filter(is_plain).ok_or_else(|| {
        format!(
            "expected http://host:port or https://host:port, got {}",
            shown(text)
        )
    })
}

/// A scheme, a host and a port only: gRPC has paths of its own.
fn is_plain(uri: &Uri) -> bool {
    let known = uri.scheme() == Some(&Scheme::HTTP) || uri.scheme() == Some(&Scheme::HTTPS);
    let host = uri.host().unwrap_or_default();
    let port = match uri.authority().map(|authority| authority.as_str()) {
        Some(authority) => authority.strip_prefix(host).unwrap_or("?"),
        None => "?",
    };
    let port_is_good = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    known && !host.is_empty() && port_is_good && matches!(path, "" | "/")
}

/// `key=value,key=value`, percent-encoded. Nothing of it gets into a message but
/// names that are names.
fn headers(text: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for pair in pairs(text) {
        let (number, name, value) = pair.map_err(|number| {
            format!("entry {number} is not key=value with percent-encoding (not shown)")
        })?;
        let Ok(name) = HeaderName::try_from(&name) else {
            return Err(format!("entry {number} has no proper name (not shown)"));
        };
        if RESERVED_HEADERS.contains(&name.as_str()) || name.as_str().starts_with("grpc-") {
            return Err(format!("{name} is not for callers to set"));
        }
        let Ok(mut value) = HeaderValue::try_from(&value) else {
            return Err(format!(
                "the value of {name} has forbidden characters (not shown)"
            ));
        };
        value.set_sensitive(true);
        headers
            .try_append(name, value)
            .map_err(|_| "too many headers".to_owned())?;
    }
    Ok(headers)
}

fn tls(reader: &mut Reader<'_>, signal: Signal, endpoint: &Uri) -> Option<Tls> {
    let variables = ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"];
    let names = variables.map(|key| signal.names(key));
    let [authority, certificate, key] = names.each_ref().map(Names::get);
    if endpoint.scheme() != Some(&Scheme::HTTPS) {
        for names in [authority, certificate, key] {
            // Somebody thinks that the connection is safe.
            if let Some((name, _)) = reader.first(&names) {
                let problem = format!("is of no use: the endpoint {endpoint} is not https");
                reader.note(name, problem);
            }
        }
        return None;
    }
    let trusting = reader.read(&authority, |path| {
        let authority = Certificate::from_pem(certificates(path)?);
        checked(ClientTlsConfig::new().ca_certificate(authority), endpoint)
    });
    let config = trusting.unwrap_or_else(|| ClientTlsConfig::new().with_webpki_roots());
    let config = match identity(reader, &certificate, &key, endpoint) {
        Some(identity) => config.identity(identity),
        None => config,
    };
    Some(Tls(config))
}

/// The client's certificate and its key: both or none.
fn identity(
    reader: &mut Reader<'_>,
    certificate: &[&str],
    key: &[&str],
    endpoint: &Uri,
) -> Option<Identity> {
    for (one, other) in [(certificate, key), (key, certificate)] {
        if let (Some((name, _)), None) = (reader.first(one), reader.first(other)) {
            reader.note(name, format!("needs {} as well", other[1]));
            return None;
        }
    }
    let certificate = reader.read(certificate, certificates);
    reader.read(key, |path| {
        let key = file(path)?;
        let Some(certificate) = certificate else {
            return Ok(None);
        };
        let identity = Identity::from_pem(certificate, key);
        checked(ClientTlsConfig::new().identity(identity.clone()), endpoint)?;
        Ok(Some(identity))
    })?
}

/// What would go wrong at the first export goes wrong here.
fn checked(config: ClientTlsConfig, endpoint: &Uri) -> Result<ClientTlsConfig, String> {
    match Endpoint::from(endpoint.clone()).tls_config(config.clone()) {
        Ok(_) => Ok(config),
        Err(error) => {
            let mut cause: &dyn Error = &error;
            while let Some(source) = cause.source() {
                cause = source;
            }
            Err(format!("usable PEM ({cause})"))
        }
    }
}

/// A file with a certificate: tonic takes one without for an empty list.
fn certificates(path: &str) -> Result<Vec<u8>, String> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let pem = file(path)?;
    if pem.windows(BEGIN.len()).any(|window| window == BEGIN) {
        Ok(pem)
    } else {
        Err("a file with a certificate in PEM".to_owned())
    }
}

fn file(path: &str) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_PEM_BYTES).read_to_end(&mut content))
        .map(|_| content)
        .map_err(|error| format!("a readable file ({error})"))
}
