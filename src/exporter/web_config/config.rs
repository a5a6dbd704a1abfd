//! Reads the web configuration file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::error::{LineError, WebConfigError};
use super::files::Files;
use super::headers::HttpServer;
use super::hosts::AllowedHosts;
use super::section::Section;
use super::tls::{self, Tls};
use super::users::{self, Users};
use super::{headers, yaml};

/// The top-level keys of the file.
const KEYS: &[&str] = &[tls::NAME, headers::NAME, users::NAME];

/// TLS, users and response headers for an exporter, from a web configuration file in the format of Prometheus'
/// exporter-toolkit.
///
/// The exporter checks the file, and those that it refers to, at most once a second while connections and requests
/// arrive, and reloads them when they have changed. If they are invalid then, the previous configuration remains in
/// effect, and the error is logged once. A new configuration applies to the next request, and its TLS to the next
/// connection. Some changes require a restart, because a half-written file could make them by mistake: to enable or
/// disable TLS, to allow an older version of it, to weaken the verification of client certificates, and to remove all
/// users or all allowed hosts.
///
/// Neither `Debug` nor errors show secrets.
///
/// ```no_run
/// use poolscope::Collector;
/// use poolscope::exporter::{DEFAULT_ADDRESS, Exporter, WebConfig};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let config = WebConfig::read("web.yml")?;
/// let exporter = Exporter::new(Collector::global()).web_config(config).bind(DEFAULT_ADDRESS).await?;
/// # Ok(())
/// # }
/// ```
pub struct WebConfig {
    pub(super) path: PathBuf,
    pub(super) rules: Rules,
    pub(super) files: crate::files::Files,
}

impl WebConfig {
    /// Reads the file at `path`, and the certificates and keys that it refers to, relative to its directory. An empty
    /// file is valid.
    ///
    /// This blocks on disk I/O.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be read or is invalid, with the line and the correction.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, WebConfigError> {
        let path = path.as_ref();
        let mut files = crate::files::Files::first();
        let rules = read(path, &mut files)?;
        Ok(Self { path: path.to_owned(), rules, files })
    }

    /// Returns whether it enables TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.rules.tls.is_some()
    }
}

impl fmt::Debug for WebConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebConfig").field("path", &self.path).field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// The content of a configuration file.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) tls: Option<Tls>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) hosts: Option<AllowedHosts>,
    pub(super) users: Option<Arc<Users>>,
}

impl Rules {
    /// Sets the headers that all responses have, in place of the response's own.
    pub(super) fn set_headers(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
    }

    /// Takes over the right passwords of `previous`, so that no client waits for bcrypt after a reload.
    pub(super) fn inherit(&mut self, previous: &Self) {
        if let (Some(users), Some(previous)) = (self.users.as_mut().and_then(Arc::get_mut), &previous.users) {
            users.inherit(previous);
        }
    }

    /// Returns what of `next` cannot be changed without a restart: what changes the protocol, or weakens access control.
    pub(super) fn restart_reason(&self, next: &Self) -> Option<&'static str> {
        let client_auth = |rules: &Self| rules.tls.as_ref().map(|tls| tls.client_auth);
        match (&self.tls, &next.tls) {
            (Some(_), None) => Some("disabling TLS"),
            (None, Some(_)) => Some("enabling TLS"),
            _ if client_auth(next) < client_auth(self) => Some("weakening the verification of client certificates"),
            (Some(now), Some(next)) if next.oldest_version < now.oldest_version => {
                Some("allowing an older version of TLS")
            }
            _ if self.users.is_some() && next.users.is_none() => {
                Some("removing all users, which would authorize everyone,")
            }
            _ if self.hosts.is_some() && next.hosts.is_none() => Some("removing allowed_hosts"),
            _ => None,
        }
    }
}

/// Reads the file at `path` and those that it refers to.
pub(super) fn read(path: &Path, files: &mut crate::files::Files) -> Result<Rules, WebConfigError> {
    let mut files = Files::new(path, files);
    let content = files.read_main().map_err(|source| WebConfigError::Unreadable { file: path.to_owned(), source })?;
    parse(&content, &mut files).map_err(|error| error.in_file(path))
}

fn parse(content: &[u8], files: &mut Files<'_>) -> Result<Rules, LineError> {
    let text = str::from_utf8(content).map_err(|error| {
        let line = content.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count() + 1;
        LineError::new(line, "invalid UTF-8")
    })?;
    let root = yaml::parse(text)?;
    // Exporter-toolkit has this key, so it is no misspelling. Ignoring it would be worse than an error.
    if let Some(yaml::Node { value: yaml::Value::Map(entries), .. }) = &root
        && let Some(entry) = entries.iter().find(|entry| entry.key == "rate_limit")
    {
        let problem = "rate_limit is not supported, because the exporter has fixed limits; remove it";
        return Err(LineError::new(entry.line, problem));
    }
    let section = Section::read(root.as_ref(), "the file", KEYS)?;
    let HttpServer { headers, hosts } = headers::read(section.node(headers::NAME))?;
    Ok(Rules {
        headers,
        hosts,
        users: users::read(section.node(users::NAME))?.map(Arc::new),
        tls: tls::read(section.node(tls::NAME), files)?,
    })
}

/// Reads a fuzzer's bytes.
#[cfg(fuzzing)]
pub(crate) fn fuzz(content: &[u8]) {
    let path = Path::new("/nonexistent/web.yml");
    let mut files = crate::files::Files::first();
    match parse(content, &mut Files::new(path, &mut files)) {
        Ok(rules) => drop(format!("{rules:?}")),
        Err(error) => {
            let message = error.in_file(path).to_string();
            assert!(!message.chars().any(char::is_control), "{message:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_lists_every_key() {
        let page = include_str!("../../../docs/web-config.md");
        let header_names = headers::HEADERS.iter().map(|(name, ..)| *name);
        for key in KEYS.iter().chain(tls::KEYS).chain(headers::KEYS).copied().chain(header_names) {
            assert!(page.contains(&format!("`{key}`")), "{key}");
        }
    }
}
