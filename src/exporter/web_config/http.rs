//! `http_server_config`: headers that every answer gets.

use hyper::header::{
    CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS, X_XSS_PROTECTION,
};

use super::error::Problem;
use super::section::{Found, Section};
use super::yaml::Node;

/// What this part is called in the file.
pub(super) const NAME: &str = "http_server_config";

/// What may stand in it.
pub(super) const KEYS: &[&str] = &["http2", "headers"];

/// The headers that may be set, and of some the values, whose case does not count.
pub(super) const HEADERS: &[(&str, HeaderName, &[&str])] = &[
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY, &[]),
    ("X-Frame-Options", X_FRAME_OPTIONS, &["deny", "sameorigin"]),
    ("X-Content-Type-Options", X_CONTENT_TYPE_OPTIONS, &["nosniff"]),
    ("X-XSS-Protection", X_XSS_PROTECTION, &[]),
    ("Strict-Transport-Security", STRICT_TRANSPORT_SECURITY, &[]),
];

/// Reads the part: the headers.
pub(super) fn read(node: Option<&Node>) -> Result<Vec<(HeaderName, HeaderValue)>, Problem> {
    let section = Section::read(node, NAME, KEYS)?;
    if let Some(Found { line, value: true }) = section.flag("http2")? {
        let problem = "http2: true cannot be had, as the exporter speaks HTTP/1.1 only; leave it out, or give false";
        return Err(Problem::at(line, problem));
    }
    let names: Vec<_> = HEADERS.iter().map(|(name, ..)| *name).collect();
    let wanted = Section::read(section.node("headers"), "headers", &names)?;
    let mut headers = Vec::new();
    for (key, name, values) in HEADERS {
        let Some(Found { line, value }) = wanted.text(key)? else { continue };
        if !values.is_empty() && !values.iter().any(|known| known.eq_ignore_ascii_case(value)) {
            return Err(Problem::at(line, format!("{key} is {}", values.join(" or "))));
        }
        let value = HeaderValue::from_str(value)
            .map_err(|_| Problem::at(line, format!("{key} has a character in it that no header may have")))?;
        headers.push((name.clone(), value));
    }
    Ok(headers)
}
