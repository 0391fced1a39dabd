//! `OTEL_EXPORTER_OTLP_*`: how to reach a collector. Variables of one signal
//! (`OTEL_EXPORTER_OTLP_TRACES_*`, `OTEL_EXPORTER_OTLP_METRICS_*`) win over those of all
//! signals. Certificates are read and checked here.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Uri, uri::Scheme};
use tokio_rustls::rustls::{ClientConfig, pki_types::CertificateDer};

use super::{
    resource::pairs,
    variables::{Variables, boolean, one_of, shown, timeout},
};
use crate::transport::{endpoint::parse_url, tls};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers that HTTP and gRPC set by themselves, or forbid.
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

/// How to reach a collector with OTLP.
#[derive(Clone, Debug)]
pub struct Otlp {
    /// `PROTOCOL`. Default gRPC.
    pub protocol: Protocol,
    /// `ENDPOINT`: `http` or `https`, a host, and a port unless it is the scheme's default;
    /// for HTTP also the path. Without a scheme it is `https`, or `http` if `INSECURE` is
    /// true. Default `http://localhost:4317`; for HTTP, port 4318.
    pub endpoint: Uri,
    /// `HEADERS`: sent with every export. Their values are never shown.
    pub headers: HeaderMap,
    /// `TIMEOUT`: how long one export may take, including retries. Default 10 s.
    pub timeout: Duration,
    /// `COMPRESSION`: whether exports are compressed with gzip. Default: no.
    pub gzip: bool,
    /// Certificates; `None` if the endpoint is `http`.
    pub tls: Option<Tls>,
}

/// The protocol that carries OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `grpc`
    Grpc,
    /// `http/protobuf`
    Http,
}

/// Whom to trust (`CERTIFICATE`; by default the public authorities), and the certificate to
/// show (`CLIENT_CERTIFICATE` and `CLIENT_KEY`; by default none).
#[derive(Clone)]
pub struct Tls(pub(in crate::telemetry) Arc<ClientConfig>);

/// That of rustls shows a lot.
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

/// The variable of one signal, and that of all signals.
struct Names([String; 2]);

impl Signal {
    /// The path that takes it over HTTP.
    fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }

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

pub(super) fn has_endpoint(variables: &Variables<'_>, signal: Signal) -> bool {
    let names = signal.names("ENDPOINT");
    variables.first(&names.get()).is_some()
}

pub(super) fn read(variables: &mut Variables<'_>, signal: Signal) -> Otlp {
    let protocol = variables.read(
        &signal.names("PROTOCOL").get(),
        one_of(&["grpc", "http/protobuf"]),
    );
    let protocol = match protocol {
        Some("http/protobuf") => Protocol::Http,
        _ => Protocol::Grpc,
    };
    let endpoint = read_endpoint(variables, signal, protocol);
    let headers = read_headers(variables, signal);
    let timeout = variables.read(&signal.names("TIMEOUT").get(), timeout);
    let compression = variables.read(
        &signal.names("COMPRESSION").get(),
        one_of(&["gzip", "none"]),
    );
    Otlp {
        protocol,
        tls: endpoint
            .as_ref()
            .and_then(|endpoint| tls(variables, signal, protocol, endpoint)),
        endpoint: endpoint.unwrap_or_default(),
        headers,
        timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
        gzip: compression == Some("gzip"),
    }
}

/// `None` if there is a mistake in it.
fn read_endpoint(variables: &mut Variables<'_>, signal: Signal, protocol: Protocol) -> Option<Uri> {
    let insecure = variables.read(&signal.names("INSECURE").get(), boolean);
    let names = signal.names("ENDPOINT");
    let names = names.get();
    let Some((name, _)) = variables.first(&names) else {
        let default = match (protocol, signal) {
            (Protocol::Grpc, _) => "http://localhost:4317",
            (Protocol::Http, Signal::Traces) => "http://localhost:4318/v1/traces",
            (Protocol::Http, Signal::Metrics) => "http://localhost:4318/v1/metrics",
        };
        return Some(Uri::from_static(default));
    };
    let endpoint =
        variables.demand_secret(&[name], |text| endpoint(text, insecure.unwrap_or_default()))?;
    let path = endpoint.path().trim_end_matches('/').to_owned();
    let query = endpoint.query().map(|query| format!("?{query}"));
    let query = query.unwrap_or_default();
    let path = match protocol {
        Protocol::Grpc => {
            if !path.is_empty() || !query.is_empty() {
                let problem = format!("gRPC has paths of its own, not {:?}", path + &query);
                variables.ignore(name, problem);
            }
            "/".to_owned()
        }
        // To the endpoint of one signal, nothing is added.
        Protocol::Http if name == names[0] => return Some(endpoint),
        Protocol::Http => format!("{path}{}{query}", signal.path()),
    };
    let mut parts = endpoint.into_parts();
    parts.path_and_query = path.parse().ok();
    Uri::from_parts(parts).ok()
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
    parse_url(&format!("{scheme}{text}")).ok_or_else(|| {
        format!(
            "expected http://host:port or https://host:port, got {}",
            shown(text)
        )
    })
}

/// `key=value,key=value`, percent-encoded. What can't be a header is ignored. Messages show
/// nothing of it but valid names.
fn read_headers(variables: &mut Variables<'_>, signal: Signal) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let names = signal.names("HEADERS");
    let Some((variable, text)) = variables.first(&names.get()) else {
        return headers;
    };
    for pair in pairs(&text) {
        let header = pair
            .map_err(|number| {
                format!("entry {number} is not key=value with percent-encoding (not shown)")
            })
            .and_then(|(number, name, value)| header(number, &name, &value));
        let added = header.and_then(|(name, value)| {
            let added = headers.try_append(name, value);
            added.map_err(|_| "too many headers".to_owned())
        });
        if let Err(problem) = added {
            variables.ignore(variable, problem);
        }
    }
    headers
}

fn header(number: usize, name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let Ok(name) = HeaderName::try_from(name) else {
        return Err(format!("entry {number} has no proper name (not shown)"));
    };
    if RESERVED_HEADERS.contains(&name.as_str()) || name.as_str().starts_with("grpc-") {
        return Err(format!("{name} is not for callers to set"));
    }
    // A replacement character stands for bytes that are not UTF-8.
    let value = HeaderValue::try_from(value)
        .ok()
        .filter(|_| !value.contains('\u{fffd}'));
    let Some(mut value) = value else {
        return Err(format!(
            "the value of {name} has forbidden characters (not shown)"
        ));
    };
    value.set_sensitive(true);
    Ok((name, value))
}

fn tls(
    variables: &mut Variables<'_>,
    signal: Signal,
    protocol: Protocol,
    endpoint: &Uri,
) -> Option<Tls> {
    let keys = ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"];
    let names = keys.map(|key| signal.names(key));
    let [authority, certificate, key] = names.each_ref().map(Names::get);
    if endpoint.scheme() != Some(&Scheme::HTTPS) {
        for names in [authority, certificate, key] {
            if let Some((name, _)) = variables.first(&names) {
                let problem = format!("is of no use: the endpoint {endpoint} is not https");
                variables.ignore(name, problem);
            }
        }
        return None;
    }
    let roots = variables.demand(&authority, |path| {
        let roots = tls::authorities(Path::new(path));
        roots.map_err(|problem| format!("a PEM file with certificates ({problem})"))
    });
    let identity = identity(variables, &certificate, &key);
    let protocols: &[_] = match protocol {
        Protocol::Grpc => &["h2"],
        Protocol::Http => &["http/1.1"],
    };
    match tls::client(roots.unwrap_or_else(tls::mozilla), identity, protocols) {
        Ok(client) => Some(Tls(Arc::new(client))),
        Err(error) => {
            let (name, _) = variables.first(&key)?;
            let problem = format!("does not go with the certificate ({error})");
            variables.refuse(name, problem);
            None
        }
    }
}

/// The client's certificate and its key: both or neither.
fn identity(
    variables: &mut Variables<'_>,
    certificate: &[&str],
    key: &[&str],
) -> Option<tls::Identity> {
    for (one, other) in [(certificate, key), (key, certificate)] {
        if let (Some((name, _)), None) = (variables.first(one), variables.first(other)) {
            variables.refuse(name, format!("needs {} as well", other[1]));
            return None;
        }
    }
    let chain: Option<Vec<CertificateDer<'static>>> = variables.demand(certificate, |path| {
        let chain = tls::certificates(Path::new(path));
        chain.map_err(|problem| format!("a PEM file with certificates ({problem})"))
    });
    let key = variables.demand(key, |path| {
        let key = tls::private_key(Path::new(path));
        key.map_err(|problem| format!("a PEM file with a private key ({problem})"))
    });
    chain.zip(key)
}
