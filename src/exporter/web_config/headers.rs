//! Reads `http_server_config`: the headers of every response, and the allowed hosts.

use hyper::header::{
    CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS, X_XSS_PROTECTION,
};

use super::error::LineError;
use super::hosts::{self, AllowedHosts};
use super::section::{Located, Section};
use super::yaml::Node;

/// The name of the section in the file.
pub(super) const NAME: &str = "http_server_config";

/// The keys of the section.
pub(super) const KEYS: &[&str] = &["http2", "headers", hosts::NAME];

/// The headers that can be set, with the allowed values (case-insensitive) of those that have a fixed set.
pub(super) const HEADERS: &[(&str, HeaderName, &[&str])] = &[
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY, &[]),
    ("X-Frame-Options", X_FRAME_OPTIONS, &["deny", "sameorigin"]),
    ("X-Content-Type-Options", X_CONTENT_TYPE_OPTIONS, &["nosniff"]),
    ("X-XSS-Protection", X_XSS_PROTECTION, &[]),
    ("Strict-Transport-Security", STRICT_TRANSPORT_SECURITY, &[]),
];

/// The content of the section.
pub(super) struct HttpServer {
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) hosts: Option<AllowedHosts>,
}

/// Reads the section.
pub(super) fn read(node: Option<&Node>) -> Result<HttpServer, LineError> {
    let section = Section::read(node, NAME, KEYS)?;
    if let Some(Located { line, value: true }) = section.flag("http2")? {
        let problem =
            "http2: true is not supported, because the exporter speaks HTTP/1.1 only; remove it, or set it to false";
        return Err(LineError::new(line, problem));
    }
    let names: Vec<_> = HEADERS.iter().map(|(name, ..)| *name).collect();
    let configured = Section::read(section.node("headers"), "headers", &names)?;
    let mut headers = Vec::new();
    for (key, name, values) in HEADERS {
        let Some(Located { line, value }) = configured.text(key)? else { continue };
        if !values.is_empty() && !values.iter().any(|allowed| allowed.eq_ignore_ascii_case(value)) {
            return Err(LineError::new(line, format!("{key} must be {}", values.join(" or "))));
        }
        let value = HeaderValue::from_str(value)
            .map_err(|_| LineError::new(line, format!("{key} contains a character that is invalid in a header")))?;
        headers.push((name.clone(), value));
    }
    Ok(HttpServer { headers, hosts: hosts::read(&section)? })
}
