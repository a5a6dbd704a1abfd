//! The web configuration, with real certificates, over real sockets.

mod handshakes;
mod keys;
mod passwords;
mod reload;

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::{fs, io};

use poolscope::exporter::{Exporter, WebConfig, WebConfigError};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::harness::{Running, exporter};

/// The hash of `sesame` at the lowest cost, as htpasswd writes it.
static SESAME: LazyLock<String> = LazyLock::new(|| bcrypt::hash("sesame", 4).unwrap().replace("$2b$", "$2y$"));

/// A certificate authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

/// A certificate and its key.
struct Signed {
    pem: String,
    der: CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Of two authorities with one name, the wrong key would be tried.
        params.distinguished_name.push(DnType::CommonName, format!("{:016x}", fastrand::u64(..)));
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        Self { pem: own.pem(), der: own.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// Signs a certificate for these names: hosts, addresses, or URIs.
    fn sign(&self, names: &[&str]) -> Signed {
        let (uris, hosts): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
        let mut params = CertificateParams::new(hosts.into_iter().map(str::to_owned).collect::<Vec<_>>()).unwrap();
        params.subject_alt_names.extend(uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap())));
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        Signed { pem: signed.pem(), der: signed.der().clone(), key }
    }

    /// Returns a client that trusts this authority, and has the certificate `own`.
    fn client(&self, own: Option<&Signed>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match own {
            None => config.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.key.serialize_der()));
                config.with_client_auth_cert(vec![own.der.clone()], key).unwrap()
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

/// A directory with a web configuration, and the files that it refers to.
struct Site {
    directory: TempDir,
    authority: Authority,
}

impl Site {
    /// Creates server.crt, server.key, and ca.crt.
    fn new() -> Self {
        let site = Self { directory: tempfile::tempdir().unwrap(), authority: Authority::new() };
        site.certify();
        site.write("ca.crt", &site.authority.pem);
        site
    }

    /// Writes a new certificate with a new key.
    fn certify(&self) {
        let signed = self.authority.sign(&["localhost"]);
        self.write("server.crt", &signed.pem);
        self.write("server.key", &signed.key.serialize_pem());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file atomically.
    fn write(&self, name: &str, content: &str) {
        fs::write(self.path("new"), content).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    fn web_yml(&self, content: &str) {
        self.write("web.yml", content);
    }

    fn read(&self) -> Result<WebConfig, WebConfigError> {
        WebConfig::read(self.path("web.yml"))
    }

    /// Returns an exporter with this configuration.
    fn exporter(&self) -> Exporter {
        exporter().web_config(self.read().unwrap())
    }

    async fn serve(&self, web_yml: &str) -> Running {
        self.web_yml(web_yml);
        Running::start(&self.exporter()).await
    }
}

/// The section with the certificate and the key.
const TLS: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

async fn encrypted(running: &Running, client: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(running.address).await.unwrap();
    client.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// Sends a GET with these headers, by HTTP/1.0 so that the connection ends with the response, and returns that.
async fn get_tls(running: &Running, client: &TlsConnector, path: &str, headers: &str) -> io::Result<String> {
    let mut stream = encrypted(running, client).await?;
    let mut response = String::new();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n{headers}\r\n").as_bytes()).await?;
    stream.read_to_string(&mut response).await?;
    Ok(response)
}

/// Returns the status line of a response.
fn status(response: &str) -> &str {
    response.lines().next().unwrap_or_default()
}

/// Returns the header line with these credentials.
fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;

    let credentials = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {credentials}\r\n")
}
