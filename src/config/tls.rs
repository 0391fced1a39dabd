//! `[services.NAME.tls]`: the files are read with the configuration, so that one
//! that is missing or no PEM is found at the start.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName,
        pem::{self, PemObject},
    },
};
use toml::de::DeValue;

use super::{
    reader::Reader,
    scalar::text,
    sections::{Entry, string},
};

/// `[services.NAME.tls]`: how a tool service proves who it is, and how we do.
///
/// Certificates and keys are PEM files, by paths from the working directory; a
/// change takes a restart.
#[derive(Clone, Debug)]
pub struct Tls {
    ca_file: Option<PathBuf>,
    /// Certificate and key.
    identity: Option<(PathBuf, PathBuf)>,
    server_name: Option<ServerName<'static>>,
    client: Arc<ClientConfig>,
}

impl Tls {
    /// The authorities that may have signed the service's certificate.
    ///
    /// Default: those that Mozilla trusts.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// `cert_file` and `key_file`: our certificate, with those that lead to its
    /// authority, and its private key. Both or neither. Default: none is shown.
    pub fn identity(&self) -> Option<(&Path, &Path)> {
        let (cert, key) = self.identity.as_ref()?;
        Some((cert, key))
    }

    /// The name that the certificate must have. Default: the endpoint's host.
    pub fn server_name(&self) -> Option<&ServerName<'static>> {
        self.server_name.as_ref()
    }

    /// What comes of these settings.
    pub fn client(&self) -> &Arc<ClientConfig> {
        &self.client
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            ca_file: None,
            identity: None,
            server_name: None,
            client: Arc::new(client(mozilla(), None).unwrap_or_else(|never| panic!("{never}"))),
        }
    }
}

/// What was read from equal files may differ.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.ca_file == other.ca_file
            && self.identity == other.identity
            && self.server_name == other.server_name
    }
}

/// A file, and what is in it.
type Read<T> = Option<(PathBuf, T)>;

/// `None` if there is a mistake.
pub(super) fn read(table: &mut Reader<'_, '_>) -> Option<Tls> {
    let mut roots: Read<RootCertStore> = None;
    let mut chain: Read<Vec<CertificateDer<'static>>> = None;
    let mut key: Read<PrivateKeyDer<'static>> = None;
    let mut server_name = None;
    table.set("ca_file", &mut roots, |value| {
        file(value, "certificates", authorities)
    });
    table.set("cert_file", &mut chain, |value| {
        file(value, "certificates", certificates)
    });
    table.set("key_file", &mut key, |value| {
        file(value, "a private key", private_key)
    });
    table.set("server_name", &mut server_name, name);
    table.both_or_neither("cert_file", "key_file");

    let (ca_file, roots) = roots.unzip();
    let ((cert_file, chain), (key_file, key)) = (chain.unzip(), key.unzip());
    match client(roots.unwrap_or_else(mozilla), chain.zip(key)) {
        Ok(client) => Some(Tls {
            ca_file,
            identity: cert_file.zip(key_file),
            server_name,
            client: Arc::new(client),
        }),
        Err(error) => {
            table.refuse(
                "key_file",
                format_args!("does not go with cert_file: {error}"),
            );
            None
        }
    }
}

pub(super) fn entries(tls: &Tls) -> Vec<Entry> {
    let path = |path: &Path| string(&path.display());
    let (cert, key) = tls.identity().unzip();
    let entries = [
        ("ca_file", tls.ca_file().map(path)),
        ("cert_file", cert.map(path)),
        ("key_file", key.map(path)),
        (
            "server_name",
            tls.server_name().map(|name| string(&name.to_str())),
        ),
    ];
    let set = |(key, value): (&'static str, Option<String>)| Some((key, value?));
    entries.into_iter().filter_map(set).collect()
}

fn mozilla() -> RootCertStore {
    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()
}

/// With ring, which also builds without a C++ compiler or CMake: there is one
/// provider of cryptography in this process.
fn client(
    roots: RootCertStore,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<ClientConfig, tokio_rustls::rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut client = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(client)
}

fn file<T>(
    value: &DeValue<'_>,
    what: &str,
    read: impl Fn(&Path) -> Result<T, String>,
) -> Result<Read<T>, String> {
    let expected = || format!("a PEM file with {what}");
    let path = PathBuf::from(text(value).map_err(|_| expected())?);
    match read(&path) {
        Ok(content) => Ok(Some((path, content))),
        Err(problem) => Err(format!("{} ({problem})", expected())),
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match certificates {
        Ok(none) if none.is_empty() => Err("it has none".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(problem(&error)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| problem(&error))
}

fn problem(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => format!("can't be read: {error}"),
        pem::Error::NoItemsFound => "it has none".to_owned(),
        error => error.to_string(),
    }
}

fn name(value: &DeValue<'_>) -> Result<Option<ServerName<'static>>, String> {
    let name = text(value)
        .ok()
        .and_then(|text| ServerName::try_from(text).ok());
    name.map(Some)
        .ok_or_else(|| "a host name or IP address".to_owned())
}
