use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};

use fanfare::{catalog::Catalog, config::Config, demo::tools::DemoTools, pb, server::Server};
use rcgen::{CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer},
        server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
    },
};

use crate::support::{
    SECOND, Seen, call_with, error, length, lost, network::demo_service, pipes, process::Process,
    request, seen, sockets::silent,
};

/// Certificates are valid until then.
const YEAR: i32 = 4095;

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let name = format!("{:?}", key.public_key_raw());
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// A certificate for `name`, valid through that year, and its key.
    fn certify(&self, name: &str, year: i32) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        Arc::new(roots)
    }
}

fn provider() -> Arc<tokio_rustls::rustls::crypto::CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The demo tools behind TLS.
struct Secured {
    authority: Authority,
    name: &'static str,
    valid_until: i32,
    callers: Arc<dyn ClientCertVerifier>,
    protocols: &'static [&'static [u8]],
}

impl Secured {
    /// With a certificate for `name`.
    fn new(name: &'static str) -> Self {
        Self {
            authority: Authority::new(),
            name,
            valid_until: YEAR,
            callers: Arc::new(NoClientAuth),
            protocols: &[b"h2"],
        }
    }

    /// Takes only callers that this authority knows.
    fn for_callers_of(mut self, authority: &Authority) -> Self {
        let verifier = WebPkiClientVerifier::builder_with_provider(authority.roots(), provider());
        self.callers = verifier.build().unwrap();
        self
    }

    async fn start(&self) -> SocketAddr {
        let (certificate, key) = self.authority.certify(self.name, self.valid_until);
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(Arc::clone(&self.callers))
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = self.protocols.iter().map(|name| name.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let tools = Server::tools(&Config::default(), DemoTools::default()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let accepted = acceptor.accept(stream);
                let served = |stream| tools.serve_connection(stream);
                if let Ok(stream) = accepted.await {
                    tokio::spawn(served(stream));
                }
            }
        });
        address
    }
}

/// PEM files.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The line `key = file`, of a new file with this content.
    fn line(&self, key: &str, pem: &str) -> String {
        let path: PathBuf = self.0.path().join(key);
        fs::write(&path, pem).unwrap();
        format!("{key} = '{}'\n", path.display())
    }

    fn authority(&self, authority: &Authority) -> String {
        self.line("ca_file", &authority.0.pem())
    }

    fn identity(&self, authority: &Authority) -> String {
        let (certificate, key) = authority.certify("fanfare", YEAR);
        self.line("cert_file", &certificate.pem()) + &self.line("key_file", &key.serialize_pem())
    }
}

fn toml(endpoint: &str, tls: &str) -> String {
    let keys = format!("connect_timeout = '2s'\n[services.demo.tls]\n{tls}");
    demo_service(endpoint, &keys)
}

/// What comes of a call to an endpoint that is secured like this.
async fn outcome(endpoint: &str, tls: &str) -> Seen {
    seen(&result(endpoint, tls).await)
}

/// Such a call is not made: the error names the service, and says that.
async fn assert_refused(endpoint: &str, tls: &str, why: &str) {
    let result = result(endpoint, tls).await;
    assert_eq!(seen(&result), lost("not_started"));
    let message = &error(&result).message;
    let begins = "can't connect to tool service demo: ";
    assert!(
        message.starts_with(begins) && message.contains(why),
        "{message}"
    );
}

async fn result(endpoint: &str, tls: &str) -> pb::ToolExecutionResult {
    let config = Config::parse(&toml(endpoint, tls)).unwrap();
    let mut client = pipes::client(&config, Catalog::new(&config)).await;
    let call = call_with("", "echo", json!({"a": 1}));
    let response = client.execute_tools(request(vec![call])).await.unwrap();
    let result = response.into_inner().results.remove(0);
    assert!(length(result.duration) < 10 * SECOND);
    result
}

fn echoed() -> Seen {
    Seen::Ok(json!({"a": 1}))
}

#[tokio::test]
async fn a_service_that_its_authority_vouches_for_is_called() {
    let service = Secured::new("localhost");
    let port = service.start().await.port();
    let files = Files::new();
    let tls = files.authority(&service.authority);
    let endpoint = format!("https://localhost:{port}");
    assert_eq!(outcome(&endpoint, &tls).await, echoed());
}

#[tokio::test]
async fn the_name_may_be_another_than_the_endpoints() {
    let service = Secured::new("weather.tools");
    let address = service.start().await;
    let files = Files::new();
    let tls = files.authority(&service.authority);
    let endpoint = format!("https://{address}");
    assert_refused(
        &endpoint,
        &tls,
        "certificate not valid for name \"127.0.0.1\"",
    )
    .await;
    let tls = tls + "server_name = 'weather.tools'";
    assert_eq!(outcome(&endpoint, &tls).await, echoed());
}

#[tokio::test]
async fn an_ip_address_can_be_vouched_for() {
    let service = Secured::new("127.0.0.1");
    let address = service.start().await;
    let files = Files::new();
    let tls = files.authority(&service.authority);
    assert_eq!(outcome(&format!("https://{address}"), &tls).await, echoed());
}

#[tokio::test]
async fn a_service_of_another_authority_is_not_called() {
    let service = Secured::new("127.0.0.1");
    let endpoint = format!("https://{}", service.start().await);
    let files = Files::new();
    let other = files.authority(&Authority::new());
    // Nor is one that only its own authority knows, if we know those of the web.
    for tls in [other.as_str(), ""] {
        assert_refused(
            &endpoint,
            tls,
            "TLS: invalid peer certificate: UnknownIssuer",
        )
        .await;
    }
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_not_believed() {
    let service = Secured {
        valid_until: 2020,
        ..Secured::new("127.0.0.1")
    };
    let endpoint = format!("https://{}", service.start().await);
    let files = Files::new();
    let tls = files.authority(&service.authority);
    assert_refused(&endpoint, &tls, "certificate expired").await;
}

#[tokio::test]
async fn we_prove_who_we_are_where_that_is_asked_for() {
    let callers = Authority::new();
    let service = Secured::new("127.0.0.1").for_callers_of(&callers);
    let endpoint = format!("https://{}", service.start().await);
    let files = Files::new();
    let tls = files.authority(&service.authority);
    assert_refused(
        &endpoint,
        &tls,
        "over TLS: received fatal alert: CertificateRequired",
    )
    .await;
    let stranger = tls.clone() + &files.identity(&Authority::new());
    assert_refused(
        &endpoint,
        &stranger,
        "over TLS: received fatal alert: UnknownCA",
    )
    .await;
    let known = tls + &files.identity(&callers);
    assert_eq!(outcome(&endpoint, &known).await, echoed());
}

#[tokio::test]
async fn who_does_not_speak_http_2_behind_tls_is_not_called() {
    let no_protocols: [(&[&[u8]], _); 2] =
        [(&[b"http/1.1"], "NoApplicationProtocol"), (&[], "(ALPN)")];
    for (protocols, why) in no_protocols {
        let service = Secured {
            protocols,
            ..Secured::new("127.0.0.1")
        };
        let endpoint = format!("https://{}", service.start().await);
        let files = Files::new();
        let tls = files.authority(&service.authority);
        assert_refused(&endpoint, &tls, why).await;
    }
}

#[tokio::test]
async fn who_does_not_speak_tls_is_not_called() {
    let plain = Process::demo_tools().await;
    let mute = silent(b"").await;
    let no_tls = "TLS: received corrupt message";
    for (address, why) in [(plain.address, no_tls), (mute, "no connection within 2s")] {
        assert_refused(&format!("https://{address}"), "", why).await;
    }
}

#[tokio::test]
async fn the_binary_has_one_provider_of_cryptography() {
    let service = Secured::new("127.0.0.1");
    let endpoint = format!("https://{}", service.start().await);
    let files = Files::new();
    let tls = files.authority(&service.authority);
    let server = "[server]\nlisten = '127.0.0.1:0'\n";
    let fanfare = Process::serve(&(server.to_owned() + &toml(&endpoint, &tls))).await;
    let call = call_with("", "echo", json!({"a": 1}));
    let response = fanfare
        .client()
        .await
        .execute_tools(request(vec![call]))
        .await;
    assert_eq!(seen(&response.unwrap().get_ref().results[0]), echoed());
}
