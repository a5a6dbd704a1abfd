//! Reads `tls_server_config`.
//!
//! The cryptography is always ring's, named explicitly: the process-wide default is the application's choice.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::NoServerSessionStorage;
use rustls::{NamedGroup, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion, version};

use super::client_auth::{self, ClientAuth};
use super::error::LineError;
use super::files::Files;
use super::pem;
use super::section::{Located, Section};
use super::yaml::Node;

/// The name of the section in the file.
pub(super) const NAME: &str = "tls_server_config";

/// The keys of the section.
pub(super) const KEYS: &[&str] = &[
    "cert",
    "cert_file",
    "key",
    "key_file",
    "client_auth_type",
    "client_ca",
    "client_ca_file",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "prefer_server_cipher_suites",
    "curve_preferences",
];

/// The configuration of TLS.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client_auth: ClientAuth,
    /// The oldest allowed version, by its number in the protocol.
    pub(super) oldest_version: u16,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("client_auth", &self.client_auth).finish_non_exhaustive()
    }
}

/// Reads the section and the files that it refers to. Returns `None` if it has no values.
pub(super) fn read(node: Option<&Node>, files: &mut Files<'_>) -> Result<Option<Tls>, LineError> {
    let section = Section::read(node, NAME, KEYS)?;
    let Some(node) = node.filter(|_| KEYS.iter().any(|key| section.node(key).is_some())) else { return Ok(None) };
    let missing = |key: &str| LineError::new(node.line, format!("{NAME} has neither {key} nor {key}_file"));

    let provider = Arc::new(provider(&section)?);
    let versions = versions(&section)?;
    let chain_pem = pem::read(&section, files, "cert", "cert_file")?.ok_or_else(|| missing("cert"))?;
    let key_pem = pem::read(&section, files, "key", "key_file")?.ok_or_else(|| missing("key"))?;
    let chain = chain_pem.certificates()?;
    let key = PrivateKeyDer::from_pem_slice(&key_pem.data).map_err(|_| {
        LineError::new(key_pem.line, format!("{} contains no unencrypted private key in PEM format", key_pem.origin))
    })?;
    let (client_auth, verifier) = client_auth::read(&section, files, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&versions).map_err(|_| {
        LineError::new(node.line, format!("{NAME} leaves no cipher suite for the allowed TLS versions"))
    })?;
    let builder = match verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut server = builder.with_single_cert(chain, key).map_err(|error| {
        // rustls's error contains nothing of the certificate or the key.
        LineError::new(key_pem.line, format!("{} and {} do not match: {error}", chain_pem.origin, key_pem.origin))
    })?;
    server.ignore_client_order = section.flag("prefer_server_cipher_suites")?.is_none_or(|prefer| prefer.value);
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    if client_auth != ClientAuth::None {
        // A resumed session shows no certificate, so an expired one would be accepted for as long as the session lives.
        server.session_storage = Arc::new(NoServerSessionStorage {});
    }
    let oldest_version = versions.iter().map(|version| u16::from(version.version)).min().unwrap_or_default();
    Ok(Some(Tls { server: Arc::new(server), client_auth, oldest_version }))
}

/// Reads the allowed versions of TLS.
fn versions(section: &Section<'_>) -> Result<Vec<&'static SupportedProtocolVersion>, LineError> {
    let bound = |key: &str, default: u8| match section.text(key)? {
        None => Ok((0, default)),
        Some(Located { line, value: "TLS12" }) => Ok((line, 12)),
        Some(Located { line, value: "TLS13" }) => Ok((line, 13)),
        Some(Located { line, value: value @ ("TLS10" | "TLS11") }) => {
            Err(LineError::new(line, format!("{key}: {value} is insecure and not supported; use TLS12 or TLS13")))
        }
        Some(Located { line, .. }) => Err(LineError::new(line, format!("{key} must be TLS12 or TLS13"))),
    };
    let ((_, min), (line, max)) = (bound("min_version", 12)?, bound("max_version", 13)?);
    if min > max {
        return Err(LineError::new(line, "max_version is below min_version, which leaves no version of TLS"));
    }
    let all = [(12, &version::TLS12), (13, &version::TLS13)];
    Ok(all.into_iter().filter(|(number, _)| (min..=max).contains(number)).map(|(_, version)| version).collect())
}

/// Reads the cipher suites and curves, out of those of ring.
fn provider(section: &Section<'_>) -> Result<CryptoProvider, LineError> {
    let mut provider = ring::default_provider();
    let names = section.list("cipher_suites")?;
    if !names.is_empty() {
        provider.cipher_suites = suites(&names, &provider.cipher_suites)?;
    }
    let names = section.list("curve_preferences")?;
    if !names.is_empty() {
        let curve = |name: &Located<&str>| {
            let group = CURVES.iter().find(|(curve, _)| *curve == name.value).map(|(_, group)| *group);
            let found = provider.kx_groups.iter().find(|known| Some(known.name()) == group).copied();
            found.ok_or_else(|| {
                let curves: Vec<_> = CURVES.iter().map(|(name, _)| *name).collect();
                let problem =
                    format!("curve_preferences contains an unsupported curve; supported: {}", curves.join(", "));
                LineError::new(name.line, problem)
            })
        };
        provider.kx_groups = names.iter().map(curve).collect::<Result<_, _>>()?;
    }
    Ok(provider)
}

/// The curves, by their names in Go.
const CURVES: &[(&str, NamedGroup)] =
    &[("X25519", NamedGroup::X25519), ("CurveP256", NamedGroup::secp256r1), ("CurveP384", NamedGroup::secp384r1)];

/// Returns the suites of these names, and all those of TLS 1.3 if none of them is named: in Go, whose names
/// these are, the list applies to TLS 1.2 only.
fn suites(names: &[Located<&str>], known: &[SupportedCipherSuite]) -> Result<Vec<SupportedCipherSuite>, LineError> {
    let mut suites = Vec::new();
    for Located { line, value } in names {
        let Some(suite) = known.iter().find(|suite| suite_name(suite).as_deref() == Some(*value)) else {
            let names: Vec<_> = known.iter().filter_map(suite_name).collect();
            let problem = format!("cipher_suites contains an unsupported suite; supported: {}", names.join(", "));
            return Err(LineError::new(*line, problem));
        };
        suites.push(*suite);
    }
    if !suites.iter().any(is_tls13) {
        suites.extend(known.iter().filter(|suite| is_tls13(suite)));
    }
    Ok(suites)
}

fn is_tls13(suite: &SupportedCipherSuite) -> bool {
    suite.tls13().is_some()
}

/// Returns the name of a suite in Go and in IANA's registry.
fn suite_name(suite: &SupportedCipherSuite) -> Option<String> {
    suite.suite().as_str().map(|name| name.replacen("TLS13_", "TLS_", 1))
}
