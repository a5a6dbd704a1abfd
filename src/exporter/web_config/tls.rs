//! `tls_server_config`, as rustls takes it.
//!
//! The cryptography is always ring's, named here: a process-wide default is for the application to choose.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{NamedGroup, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion, version};

use super::client::{self, ClientAuth};
use super::error::Problem;
use super::files::Files;
use super::section::{Found, Section};
use super::yaml::Node;

/// What this part is called in the file.
pub(super) const NAME: &str = "tls_server_config";

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

/// TLS as the file wants it.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client_auth: ClientAuth,
    /// The oldest version that is spoken, by its number on the wire.
    pub(super) oldest: u16,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("client_auth", &self.client_auth).finish_non_exhaustive()
    }
}

/// Reads the part, and the files that it names. `None` where nothing of it is set.
pub(super) fn read(node: Option<&Node>, files: &mut Files) -> Result<Option<Tls>, Problem> {
    let section = Section::read(node, NAME, KEYS)?;
    let Some(node) = node.filter(|_| KEYS.iter().any(|key| section.node(key).is_some())) else { return Ok(None) };
    let missing = |what: &str| Problem::at(node.line, format!("{NAME} has neither {what} nor {what}_file"));

    let provider = Arc::new(provider(&section)?);
    let versions = versions(&section)?;
    let chain_pem = pem(&section, files, "cert", "cert_file")?.ok_or_else(|| missing("cert"))?;
    let key_pem = pem(&section, files, "key", "key_file")?.ok_or_else(|| missing("key"))?;
    let chain = certificates(&chain_pem)?;
    let key = PrivateKeyDer::from_pem_slice(&key_pem.value).map_err(|_| {
        Problem::at(key_pem.line, format!("{} holds no private key in PEM without a passphrase", key_pem.what))
    })?;
    let (client_auth, verifier) = client::read(&section, files, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&versions).map_err(|_| {
        Problem::at(node.line, format!("{NAME} leaves no cipher suite for the versions of TLS that it allows"))
    })?;
    let builder = match verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut server = builder.with_single_cert(chain, key).map_err(|error| {
        // rustls tells of certificate and key what is wrong with them, and nothing that they hold.
        Problem::at(key_pem.line, format!("{} and {} do not go together: {error}", chain_pem.what, key_pem.what))
    })?;
    server.ignore_client_order = section.flag("prefer_server_cipher_suites")?.is_none_or(|prefer| prefer.value);
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    if client_auth != ClientAuth::None {
        // A session that is taken up again shows no certificate, so one that has expired would let in for as long as it is kept.
        server.session_storage = Arc::new(NoServerSessionStorage {});
    }
    let oldest = versions.iter().map(|version| u16::from(version.version)).min().unwrap_or_default();
    Ok(Some(Tls { server: Arc::new(server), client_auth, oldest }))
}

/// Something in PEM, and where it came from. It may be a secret.
pub(super) struct Pem {
    pub(super) line: usize,
    pub(super) value: Vec<u8>,
    /// The file, or the key under which it stands itself.
    pub(super) what: String,
}

/// What stands under `inline`, or in the file that stands under `file`.
pub(super) fn pem(
    section: &Section<'_>,
    files: &mut Files,
    inline: &'static str,
    file: &'static str,
) -> Result<Option<Pem>, Problem> {
    match (section.text(inline)?, section.text(file)?) {
        (None, None) => Ok(None),
        (Some(Found { line, value }), None) => {
            Ok(Some(Pem { line, value: value.as_bytes().to_vec(), what: inline.to_owned() }))
        }
        // Shown as a path that cannot be read, it would be a secret in the log.
        (None, Some(Found { line, value })) if value.contains("-----BEGIN") || value.contains('\n') => {
            Err(Problem::at(line, format!("{file} takes a path, and here is PEM itself: give it under {inline}")))
        }
        (None, Some(Found { line, value })) => {
            let (path, read) = files.read_named(value);
            let what = format!("{file} `{}`", path.display());
            let value = read.map_err(|source| Problem::Unreadable { line, key: file, named: path, source })?;
            Ok(Some(Pem { line, value, what }))
        }
        (Some(_), Some(Found { line, .. })) => {
            Err(Problem::at(line, format!("give either {inline} or {file}, not both")))
        }
    }
}

/// The certificates in `pem`: at least one.
pub(super) fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem.value).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Problem::at(pem.line, format!("{} holds no certificate in PEM", pem.what))),
        Err(_) => Err(Problem::at(pem.line, format!("{} is not well-formed PEM", pem.what))),
    }
}

/// The versions of TLS that are allowed.
fn versions(section: &Section<'_>) -> Result<Vec<&'static SupportedProtocolVersion>, Problem> {
    let bound = |key: &str, default: u8| match section.text(key)? {
        None => Ok((0, default)),
        Some(Found { line, value: "TLS12" }) => Ok((line, 12)),
        Some(Found { line, value: "TLS13" }) => Ok((line, 13)),
        Some(Found { line, value: value @ ("TLS10" | "TLS11") }) => {
            Err(Problem::at(line, format!("{key}: {value} is broken and not spoken; give TLS12 or TLS13")))
        }
        Some(Found { line, .. }) => Err(Problem::at(line, format!("{key} is TLS12 or TLS13"))),
    };
    let ((_, min), (line, max)) = (bound("min_version", 12)?, bound("max_version", 13)?);
    if min > max {
        return Err(Problem::at(line, "max_version is below min_version, so that no version of TLS is left"));
    }
    let all = [(12, &version::TLS12), (13, &version::TLS13)];
    Ok(all.into_iter().filter(|(number, _)| (min..=max).contains(number)).map(|(_, version)| version).collect())
}

/// ring's cryptography, as far as it is wanted.
fn provider(section: &Section<'_>) -> Result<CryptoProvider, Problem> {
    let mut provider = ring::default_provider();
    let wanted = section.list("cipher_suites")?;
    if !wanted.is_empty() {
        provider.cipher_suites = suites(&wanted, &provider.cipher_suites)?;
    }
    let wanted = section.list("curve_preferences")?;
    if !wanted.is_empty() {
        let curve = |wanted: &Found<&str>| {
            let group = CURVES.iter().find(|(name, _)| *name == wanted.value).map(|(_, group)| *group);
            let found = provider.kx_groups.iter().find(|known| Some(known.name()) == group).copied();
            found.ok_or_else(|| {
                let curves: Vec<_> = CURVES.iter().map(|(name, _)| *name).collect();
                Problem::at(
                    wanted.line,
                    format!("curve_preferences has a curve that is not offered; there is {}", curves.join(", ")),
                )
            })
        };
        provider.kx_groups = wanted.iter().map(curve).collect::<Result<_, _>>()?;
    }
    Ok(provider)
}

/// The curves, as Go names them.
const CURVES: &[(&str, NamedGroup)] =
    &[("X25519", NamedGroup::X25519), ("CurveP256", NamedGroup::secp256r1), ("CurveP384", NamedGroup::secp384r1)];

/// The suites of these names. Of TLS 1.3 all, if none is named: Go, whose list this is, knows it for TLS 1.2 only.
fn suites(wanted: &[Found<&str>], known: &[SupportedCipherSuite]) -> Result<Vec<SupportedCipherSuite>, Problem> {
    let mut suites = Vec::new();
    for Found { line, value } in wanted {
        let Some(suite) = known.iter().find(|suite| name(suite) == Some((*value).to_owned())) else {
            let names: Vec<_> = known.iter().filter_map(name).collect();
            let problem = format!("cipher_suites has one that is not offered; there is {}", names.join(", "));
            return Err(Problem::at(*line, problem));
        };
        suites.push(*suite);
    }
    if !suites.iter().any(is_of_tls13) {
        suites.extend(known.iter().filter(|suite| is_of_tls13(suite)));
    }
    Ok(suites)
}

fn is_of_tls13(suite: &SupportedCipherSuite) -> bool {
    suite.tls13().is_some()
}

/// A suite's name, as Go and the registry of IANA have it.
fn name(suite: &SupportedCipherSuite) -> Option<String> {
    suite.suite().as_str().map(|name| name.replacen("TLS13_", "TLS_", 1))
}
