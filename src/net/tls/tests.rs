#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{CertificateError, ClientConnection, ServerConfig, ServerConnection};

use super::config::*;
use super::*;

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A unique name: with equal names, the other authority's key would be tried.
        params.distinguished_name.push(DnType::CommonName, format!("{:016x}", fastrand::u64(..)));
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Returns a server with a certificate for `names` from this authority.
    pub(crate) fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        self.server_with(names, |_| {})
    }

    fn server_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Arc<ServerConfig> {
        let names = names.iter().map(|name| (*name).to_owned());
        let mut params = CertificateParams::new(names.collect::<Vec<_>>()).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        server(certificate.der().clone(), &key)
    }

    /// Returns a file with this authority's certificate.
    pub(crate) fn file(&self) -> TemporaryFile {
        TemporaryFile::new(&self.pem)
    }
}

fn server(certificate: CertificateDer<'static>, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .unwrap();
    Arc::new(config)
}

pub(crate) struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new(text: &str) -> Self {
        let name = format!("poolscope-test-{}-{:016x}.pem", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.clone()
    }

    fn roots(&self) -> Roots {
        Roots::File(self.path())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Performs a handshake in memory, and returns the client's result.
fn handshake(verify: &Verify, server: Arc<ServerConfig>, host: &str) -> Result<(), Error> {
    let config = client_config(verify, None, &mut Files::first()).unwrap();
    let host = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), host).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(())
}

fn reason(result: Result<(), Error>) -> CertificateError {
    match result.unwrap_err() {
        Error::InvalidCertificate(reason) => reason,
        other => panic!("{other}"),
    }
}

#[test]
fn every_mode_accepts_a_valid_certificate() {
    let authority = Authority::new();
    let file = authority.file();
    for verify in [Verify::Nothing, Verify::Chain(file.roots()), Verify::ChainAndName(file.roots())] {
        handshake(&verify, authority.server(&["db.example"]), "db.example").unwrap();
    }
    handshake(&Verify::ChainAndName(file.roots()), authority.server(&["127.0.0.1"]), "127.0.0.1").unwrap();
}

#[test]
fn only_full_verification_checks_the_host_name() {
    let authority = Authority::new();
    let file = authority.file();
    let server = || authority.server(&["other.example"]);
    handshake(&Verify::Nothing, server(), "db.example").unwrap();
    handshake(&Verify::Chain(file.roots()), server(), "db.example").unwrap();
    assert!(matches!(
        reason(handshake(&Verify::ChainAndName(file.roots()), server(), "db.example")),
        CertificateError::NotValidForNameContext { .. }
    ));
}

#[test]
fn unknown_authority_is_rejected_if_verified() {
    let file = Authority::new().file();
    let server = || Authority::new().server(&["db.example"]);
    handshake(&Verify::Nothing, server(), "db.example").unwrap();
    for verify in [Verify::Chain(file.roots()), Verify::ChainAndName(file.roots())] {
        assert_eq!(reason(handshake(&verify, server(), "db.example")), CertificateError::UnknownIssuer);
    }
}

#[test]
fn expired_certificate_is_rejected_if_verified() {
    let authority = Authority::new();
    let file = authority.file();
    let server = || authority.server_with(&["db.example"], |params| params.not_after = date_time_ymd(2001, 1, 1));
    handshake(&Verify::Nothing, server(), "db.example").unwrap();
    for verify in [Verify::Chain(file.roots()), Verify::ChainAndName(file.roots())] {
        let reason = reason(handshake(&verify, server(), "db.example"));
        assert!(matches!(reason, CertificateError::ExpiredContext { .. }), "{reason}");
    }
}

#[test]
fn server_must_hold_the_key_even_without_verification() {
    let authority = Authority::new();
    let params = CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
    let stolen = params.signed_by(&KeyPair::generate().unwrap(), &authority.issuer).unwrap();
    let key = PrivatePkcs8KeyDer::from(KeyPair::generate().unwrap().serialize_der());
    let provider = ring::default_provider();
    let signer = provider.key_provider.load_private_key(key.into()).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![stolen.der().clone()], signer);
    let impostor = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    let error = handshake(&Verify::Nothing, Arc::new(impostor), "db.example").unwrap_err();
    assert_eq!(error, Error::InvalidCertificate(CertificateError::BadSignature));
}

#[test]
fn unusable_certificate_file_is_named_in_the_error() {
    let good = Authority::new().pem;
    for (text, problem) in [
        (String::new(), "holds no certificate"),
        ("no PEM at all\n".to_owned(), "holds no certificate"),
        (good.replace("END CERTIFICATE", "END NOTHING"), "is not well-formed PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(), "cannot be read"),
    ] {
        let file = TemporaryFile::new(&text);
        let error = load(&file.roots(), &mut Files::first()).unwrap_err().to_string();
        let path = file.path().display().to_string();
        assert!(error.contains(&path) && error.contains(problem) && error.contains(": give "), "{error}");
    }
    let missing = load(&Roots::File("/nonexistent/ca.pem".into()), &mut Files::first()).unwrap_err();
    assert!(missing.to_string().starts_with("sslrootcert `/nonexistent/ca.pem` cannot be read: give "));
    assert!(missing.to_string().ends_with(": No such file or directory (os error 2)"), "{missing}");
}

#[test]
fn certificate_file_may_hold_several_authorities() {
    let (one, two) = (Authority::new(), Authority::new());
    let file = TemporaryFile::new(&format!("{}\n{}", one.pem, two.pem));
    for authority in [one, two] {
        handshake(&Verify::Chain(file.roots()), authority.server(&["h"]), "h").unwrap();
    }
}

#[test]
fn tls_is_configured_unless_disabled() {
    let tls = |url: &str| {
        let url: crate::config::DatabaseUrl = url.parse().unwrap();
        let pool = super::super::pool_name::PoolName::wanted("tls");
        ClientTls::new(url.tls(), url.client_certificate(), None, &pool).unwrap().0
    };
    assert!(tls("postgres://h/d?sslmode=disable").is_none());
    assert!(tls("postgres://h/d").is_some());
}
