//! Reads PEM data from the configuration or a file that it refers to.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::error::LineError;
use super::files::Files;
use super::section::{Located, Section};
use crate::text::Printable;

/// PEM data and its origin. It may be a secret.
pub(super) struct Pem {
    pub(super) line: usize,
    pub(super) data: Vec<u8>,
    /// The key and the path, or the key of inline data, for errors.
    pub(super) origin: String,
}

/// Reads the data of the key `inline`, or of the file at the path of the key `file`.
pub(super) fn read(
    section: &Section<'_>,
    files: &mut Files<'_>,
    inline: &'static str,
    file: &'static str,
) -> Result<Option<Pem>, LineError> {
    match (section.text(inline)?, section.text(file)?) {
        (None, None) => Ok(None),
        (Some(Located { line, value }), None) => {
            Ok(Some(Pem { line, data: value.as_bytes().to_vec(), origin: inline.to_owned() }))
        }
        // As a path that cannot be read, a key would appear in the log.
        (None, Some(Located { line, value })) if value.contains("-----BEGIN") || value.contains('\n') => {
            Err(LineError::new(line, format!("{file} must be a path, not PEM data; use {inline} for PEM data")))
        }
        (None, Some(Located { line, value })) => {
            let (path, read) = files.read_referenced(value);
            let origin = format!("{file} `{}`", Printable(path.display()));
            let data = read.map_err(|source| LineError::Unreadable { line, key: file, referenced: path, source })?;
            Ok(Some(Pem { line, data, origin }))
        }
        (Some(_), Some(Located { line, .. })) => {
            Err(LineError::new(line, format!("give either {inline} or {file}, not both")))
        }
    }
}

impl Pem {
    /// Parses the certificates: at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, LineError> {
        let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.data).collect();
        match parsed {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            Ok(_) => Err(LineError::new(self.line, format!("{} contains no certificate in PEM format", self.origin))),
            Err(_) => Err(LineError::new(self.line, format!("{} is invalid PEM", self.origin))),
        }
    }
}
