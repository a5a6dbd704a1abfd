//! What a client must show: its certificate, and whose.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use webpki::EndEntityCert;

use super::error::Problem;
use super::files::Files;
use super::section::{Found, Section};
use super::tls::{certificates, pem};

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ClientAuth {
    /// They are not asked for one.
    None,
    /// Whoever shows one must show a good one.
    IfGiven,
    /// Each must.
    Required,
    /// Each must, and of one of the names that are allowed.
    Named,
}

type Verifier = Arc<dyn ClientCertVerifier>;

/// Whom `client_auth_type` and its kin let in.
pub(super) fn read(
    section: &Section<'_>,
    files: &mut Files,
    provider: &Arc<CryptoProvider>,
) -> Result<(ClientAuth, Option<Verifier>), Problem> {
    let kind = section.text("client_auth_type")?;
    let auth = match kind.map(|kind| kind.value) {
        None | Some("NoClientCert") => ClientAuth::None,
        Some("VerifyClientCertIfGiven") => ClientAuth::IfGiven,
        Some("RequireAndVerifyClientCert") => ClientAuth::Required,
        Some(value) => {
            let line = kind.map_or(0, |kind| kind.line);
            let problem = match value {
                "RequestClientCert" | "RequireAnyClientCert" | "RequireClientCert" => format!(
                    "client_auth_type: {value} would take any certificate without verifying it, which keeps nobody out; \
                     give RequireAndVerifyClientCert, or NoClientCert"
                ),
                _ => {
                    "client_auth_type is NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert".to_owned()
                }
            };
            return Err(Problem::at(line, problem));
        }
    };
    let authority = pem(section, files, "client_ca", "client_ca_file")?;
    let sans = section.list("client_allowed_sans")?;
    if let Some(Found { line, .. }) = sans.first()
        && auth != ClientAuth::Required
    {
        let problem = "client_allowed_sans needs client_auth_type: RequireAndVerifyClientCert, as others let in whoever \
                       shows no certificate";
        return Err(Problem::at(*line, problem));
    }
    let authority = match (auth, authority) {
        (ClientAuth::None, None) => return Ok((auth, None)),
        (ClientAuth::None, Some(authority)) => {
            let problem = "there are authorities of clients, and no client_auth_type that would ask for certificates: \
                           give RequireAndVerifyClientCert";
            return Err(Problem::at(authority.line, problem));
        }
        (_, None) => {
            let line = kind.map_or(0, |kind| kind.line);
            return Err(Problem::at(
                line,
                "client_auth_type wants client_ca_file, whose certificates it verifies with",
            ));
        }
        (_, Some(authority)) => authority,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&authority)? {
        roots.add(certificate).map_err(|_| {
            Problem::at(authority.line, format!("{} holds a certificate that cannot be read", authority.what))
        })?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if auth == ClientAuth::IfGiven {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder
        .build()
        .map_err(|error| Problem::at(authority.line, format!("{} cannot be used: {error}", authority.what)))?;
    if sans.is_empty() {
        return Ok((auth, Some(verifier)));
    }
    let allowed = sans.iter().map(Name::read).collect::<Result<_, _>>()?;
    Ok((ClientAuth::Named, Some(Arc::new(Named { allowed, chain: verifier }))))
}

/// A name that a certificate may be for.
#[derive(Debug)]
enum Name {
    Ip(IpAddr),
    Uri(String),
    Host(String),
}

impl Name {
    fn read(text: &Found<&str>) -> Result<Self, Problem> {
        let Found { line, value } = *text;
        if let Ok(ip) = value.parse() {
            return Ok(Self::Ip(ip));
        }
        if value.is_empty() || value.contains('@') && !value.contains(':') {
            let problem = "client_allowed_sans knows host names, IP addresses and URIs, and this is none; e-mail \
                           addresses are not compared";
            return Err(Problem::at(line, problem));
        }
        Ok(if value.contains(':') { Self::Uri(value.to_owned()) } else { Self::Host(value.to_owned()) })
    }

    /// Whether the certificate has this very name; a wildcard is no name but itself.
    fn is_of(&self, certificate: &EndEntityCert<'_>) -> bool {
        match self {
            Self::Ip(ip) => certificate.verify_is_valid_for_subject_name(&ServerName::from(*ip)).is_ok(),
            Self::Uri(uri) => certificate.valid_uri_names().any(|name| name == uri),
            Self::Host(host) => certificate.valid_dns_names().any(|name| name == host),
        }
    }
}

/// Lets in those whose certificate is good and has one of the names.
#[derive(Debug)]
struct Named {
    allowed: Vec<Name>,
    chain: Verifier,
}

impl ClientCertVerifier for Named {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let certificate = EndEntityCert::try_from(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if self.allowed.iter().any(|name| name.is_of(&certificate)) {
            return Ok(verified);
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
