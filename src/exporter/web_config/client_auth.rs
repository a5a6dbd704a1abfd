//! Reads `client_auth_type` and the related keys: the verification of client certificates.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use webpki::EndEntityCert;

use super::error::LineError;
use super::files::Files;
use super::pem;
use super::section::{Located, Section};

/// How client certificates are verified, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ClientAuth {
    /// No certificate is requested.
    None,
    /// A certificate is optional, but must be valid.
    IfGiven,
    /// A valid certificate is required.
    Required,
    /// A valid certificate with an allowed name is required.
    Named,
}

type Verifier = Arc<dyn ClientCertVerifier>;

/// Reads the keys about client certificates.
pub(super) fn read(
    section: &Section<'_>,
    files: &mut Files<'_>,
    provider: &Arc<CryptoProvider>,
) -> Result<(ClientAuth, Option<Verifier>), LineError> {
    let kind = section.text("client_auth_type")?;
    let kind_line = kind.map_or(0, |kind| kind.line);
    let auth = match kind.map(|kind| kind.value) {
        None | Some("NoClientCert") => ClientAuth::None,
        Some("VerifyClientCertIfGiven") => ClientAuth::IfGiven,
        Some("RequireAndVerifyClientCert") => ClientAuth::Required,
        Some(value @ ("RequestClientCert" | "RequireAnyClientCert" | "RequireClientCert")) => {
            let problem = format!(
                "client_auth_type: {value} accepts any certificate without verifying it; use \
                 RequireAndVerifyClientCert, or NoClientCert"
            );
            return Err(LineError::new(kind_line, problem));
        }
        Some(_) => {
            let problem =
                "client_auth_type must be NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert";
            return Err(LineError::new(kind_line, problem));
        }
    };
    let authority = pem::read(section, files, "client_ca", "client_ca_file")?;
    let sans = section.list("client_allowed_sans")?;
    if let Some(Located { line, .. }) = sans.first()
        && auth != ClientAuth::Required
    {
        let problem = "client_allowed_sans requires client_auth_type: RequireAndVerifyClientCert, because the other \
                       types accept clients without a certificate";
        return Err(LineError::new(*line, problem));
    }
    let authority = match (auth, authority) {
        (ClientAuth::None, None) => return Ok((auth, None)),
        (ClientAuth::None, Some(authority)) => {
            let problem = "a client CA is given, but client_auth_type does not request client certificates; set \
                           client_auth_type: RequireAndVerifyClientCert";
            return Err(LineError::new(authority.line, problem));
        }
        (_, None) => {
            let problem = "client_auth_type requires client_ca_file, to verify client certificates with";
            return Err(LineError::new(kind_line, problem));
        }
        (_, Some(authority)) => authority,
    };
    let mut roots = RootCertStore::empty();
    for certificate in authority.certificates()? {
        roots.add(certificate).map_err(|_| {
            LineError::new(authority.line, format!("{} contains an invalid certificate", authority.origin))
        })?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if auth == ClientAuth::IfGiven {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder
        .build()
        .map_err(|error| LineError::new(authority.line, format!("{} is unusable: {error}", authority.origin)))?;
    if sans.is_empty() {
        return Ok((auth, Some(verifier)));
    }
    let allowed = sans.iter().map(Name::parse).collect::<Result<_, _>>()?;
    Ok((ClientAuth::Named, Some(Arc::new(NameVerifier { allowed, chain: verifier }))))
}

/// A subject alternative name.
#[derive(Debug)]
enum Name {
    Ip(IpAddr),
    Uri(String),
    Host(String),
}

impl Name {
    fn parse(text: &Located<&str>) -> Result<Self, LineError> {
        let Located { line, value } = *text;
        if let Ok(ip) = value.parse() {
            return Ok(Self::Ip(ip));
        }
        if value.is_empty() || value.contains('@') && !value.contains(':') {
            let problem = "client_allowed_sans must be host names, IP addresses or URIs; e-mail addresses are not \
                           supported";
            return Err(LineError::new(line, problem));
        }
        Ok(if value.contains(':') { Self::Uri(value.to_owned()) } else { Self::Host(value.to_owned()) })
    }

    /// Returns whether the certificate has exactly this name; wildcards are not expanded.
    fn is_of(&self, certificate: &EndEntityCert<'_>) -> bool {
        match self {
            Self::Ip(ip) => certificate.verify_is_valid_for_subject_name(&ServerName::from(*ip)).is_ok(),
            Self::Uri(uri) => certificate.valid_uri_names().any(|name| name == uri),
            Self::Host(host) => certificate.valid_dns_names().any(|name| name == host),
        }
    }
}

/// Accepts certificates that `chain` accepts and that have an allowed name.
#[derive(Debug)]
struct NameVerifier {
    allowed: Vec<Name>,
    chain: Verifier,
}

impl ClientCertVerifier for NameVerifier {
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
