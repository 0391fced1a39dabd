use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};

use fanfare::{config::Config, demo::tools::DemoTools, registry::Registry, server::Server};
use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
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
    SECOND, Seen, amid_others::lost, call_with, length, network::demo_service, pipes,
    process::Process, request, seen, sockets::silent,
};

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// A certificate for `name`, and its key.
    fn certify(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
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
    callers: Arc<dyn ClientCertVerifier>,
    protocols: &'static [&'static [u8]],
}

impl Secured {
    /// With a certificate for `name`.
    fn new(name: &'static str) -> Self {
        Self {
            authority: Authority::new(),
            name,
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
        let (certificate, key) = self.authority.certify(self.name);
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
        let (certificate, key) = authority.certify("fanfare");
        self.line("cert_file", &certificate.pem()) + &self.line("key_file", &key.serialize_pem())
    }
}

fn toml(endpoint: &str, tls: &str) -> String {
    let keys = format!("connect_timeout = '2s'\n[services.demo.tls]\n{tls}");
    demo_service(endpoint, &keys)
}

/// What comes of a call to an endpoint that is secured like this.
async fn outcome(endpoint: &str, tls: &str) -> Seen {
    let config = Config::parse(&toml(endpoint, tls)).unwrap();
    let mut client = pipes::client(&config, Registry::new(&config)).await;
    let call = call_with("", "echo", json!({"a": 1}));
    let response = client.execute_tools(request(vec![call])).await.unwrap();
    let result = &response.get_ref().results[0];
    assert!(length(result.duration) < 10 * SECOND);
    seen(result)
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
    assert_eq!(outcome(&endpoint, &tls).await, lost("not_started"));
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
        assert_eq!(outcome(&endpoint, tls).await, lost("not_started"));
    }
}

#[tokio::test]
async fn we_prove_who_we_are_where_that_is_asked_for() {
    let callers = Authority::new();
    let service = Secured::new("127.0.0.1").for_callers_of(&callers);
    let endpoint = format!("https://{}", service.start().await);
    let files = Files::new();
    let tls = files.authority(&service.authority);
    assert_eq!(outcome(&endpoint, &tls).await, lost("not_started"));
    let stranger = tls.clone() + &files.identity(&Authority::new());
    assert_eq!(outcome(&endpoint, &stranger).await, lost("not_started"));
    let known = tls + &files.identity(&callers);
    assert_eq!(outcome(&endpoint, &known).await, echoed());
}

#[tokio::test]
async fn who_does_not_speak_http_2_behind_tls_is_not_called() {
    let no_protocols: [&[&[u8]]; 2] = [&[b"http/1.1"], &[]];
    for protocols in no_protocols {
        let service = Secured {
            protocols,
            ..Secured::new("127.0.0.1")
        };
        let endpoint = format!("https://{}", service.start().await);
        let files = Files::new();
        let tls = files.authority(&service.authority);
        assert_eq!(outcome(&endpoint, &tls).await, lost("not_started"));
    }
}

#[tokio::test]
async fn who_does_not_speak_tls_is_not_called() {
    let plain = Process::demo_tools().await.address;
    let mute = silent(b"").await;
    for address in [plain, mute] {
        assert_eq!(
            outcome(&format!("https://{address}"), "").await,
            lost("not_started")
        );
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
