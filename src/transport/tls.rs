//! Certificates and keys in PEM files, and TLS client configurations.
//!
//! ring is the only crypto provider of this process: it builds without CMake or a C++
//! compiler.

use std::{fs::File, io::Read as _, path::Path, sync::Arc};

use tokio_rustls::rustls::{
    ClientConfig, Error, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

/// Five times a bundle of all public certificate authorities.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// A certificate chain and its private key.
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The certificate authorities that Mozilla trusts.
pub(crate) fn mozilla() -> RootCertStore {
    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()
}

/// A client that trusts `roots`, presents `identity`, and offers `protocols` by ALPN, if
/// there are any.
pub(crate) fn client(
    roots: RootCertStore,
    identity: Option<Identity>,
    protocols: &[&str],
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut client = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    client.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().into())
        .collect();
    Ok(client)
}

/// The certificate authorities of a file, or why they can't be used.
pub(crate) fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

/// The certificates of a file, at least one, or why they can't be used.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(none) if none.is_empty() => Err("it has none".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(problem(&error)),
    }
}

/// The first private key of a file, or why it can't be used.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| problem(&error))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_PEM_BYTES).read_to_end(&mut content))
        .map(|_| content)
        .map_err(|error| format!("can't be read: {error}"))
}

fn problem(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "it has none".to_owned(),
        error => error.to_string(),
    }
}
