//! Describes what is wrong with the TLS of a connection.

use std::error::Error as StdError;

use rustls::{AlertDescription, CertificateError, Error};

use super::super::error_source::find_source;

/// Returns what is wrong with the TLS of a connection that failed with `error`; `None` if rustls reported nothing.
pub(crate) fn tls_problem(error: &(dyn StdError + 'static), sslmode: &str) -> Option<String> {
    let problem = find_source::<Error>(error)?;
    Some(match problem {
        Error::InvalidCertificate(reason) => {
            format!(
                "verification of the server's certificate failed (sslmode={sslmode}): {}",
                certificate_problem(reason)
            )
        }
        Error::AlertReceived(alert) if rejects_client(*alert) => format!(
            "the server rejected the client's certificate (sslmode={sslmode}): {alert:?}: give one that it accepts as \
             sslcert, with its key as sslkey"
        ),
        _ => format!("the TLS handshake failed (sslmode={sslmode}): {problem}"),
    })
}

fn certificate_problem(reason: &CertificateError) -> String {
    use CertificateError as Reason;
    match reason {
        Reason::UnknownIssuer => "unknown issuer: give the certificate of its authority as sslrootcert".to_owned(),
        Reason::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            if presented.is_empty() {
                format!(
                    "it has no host name as subjectAltName, and its common name does not count: \
                     issue one for `{expected}`, or give sslmode=verify-ca"
                )
            } else {
                format!(
                    "it is for other names than `{expected}` ({}): connect by one of them, or give sslmode=verify-ca",
                    presented.iter().map(|name| bare_name(name)).collect::<Vec<_>>().join(", ")
                )
            }
        }
        Reason::NotValidForName => "it is for other names than the host's".to_owned(),
        Reason::Expired | Reason::ExpiredContext { .. } => "it has expired: renew it".to_owned(),
        Reason::BadSignature => "a signature does not match: the server does not hold the certificate's key, or the \
                                 authority in sslrootcert has the same name and another key"
            .to_owned(),
        Reason::NotValidYet | Reason::NotValidYetContext { .. } => {
            "it is not valid yet: compare the clocks of client and server".to_owned()
        }
        // webpki's error, which rustls passes on without its type.
        Reason::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
            "it is self-signed, as an authority's: issue one for the server with CA:FALSE".to_owned()
        }
        other => other.to_string(),
    }
}

/// Strips the type from a name as rustls presents it, such as `DnsName("db.example")`.
fn bare_name(name: &str) -> &str {
    let inner = name.split_once('(').map_or(name, |(_, inner)| inner.trim_end_matches(')'));
    inner.trim_matches('"')
}

/// Returns whether an alert is about the client's certificate. The server's own is verified by the client.
pub(super) fn rejects_client(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::CertificateRequired
    )
}
