//! The exporter's web configuration: TLS, who may ask, and headers, from a file as Prometheus' own exporters read it.
//!
//! `docs/web-config.md` has each key, its default, and what is refused.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::ServerConfig;

mod client;
mod error;
mod files;
mod guard;
mod http;
mod live;
mod read;
mod section;
#[cfg(test)]
pub(super) mod tests;
mod tls;
mod users;
mod yaml;

pub use self::error::WebConfigError;
pub(super) use self::guard::{Guard, Opening};
pub(super) use self::live::Live;

use self::files::Files;
use self::tls::Tls;
use self::users::{Users, Verdict};

/// TLS, users and headers, as a web configuration file has them: the file of Prometheus' exporter-toolkit.
///
/// Give it to [`Exporter::web_config`](super::Exporter::web_config). The exporter looks at the file, and at those that
/// it names, at most once a second while connections and requests come, and reads them anew when they have changed. If
/// they cannot be used then, what was read before holds, and the log says why, once. What holds applies to requests at
/// once, and to TLS with the next connection. Some changes take a restart, because half a file would make them by
/// mistake: to turn TLS on or off, to speak an older version of it, to verify clients' certificates less, and to have no more users.
///
/// It shows no secret: neither in `Debug` nor in errors.
pub struct WebConfig {
    path: PathBuf,
    loaded: Loaded,
    files: Files,
}

impl WebConfig {
    /// Reads the file at `path`, and the certificates and keys that it names; their paths are relative to its own
    /// directory. An empty file is one that sets nothing.
    ///
    /// It blocks as long as the disk does.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or says what cannot be: the error names the line, and what would do.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, WebConfigError> {
        let path = path.as_ref();
        let mut files = Files::of(path);
        let loaded = read::read(&mut files).map_err(|unread| unread.of(path))?;
        Ok(Self { path: path.to_owned(), loaded, files })
    }

    /// Whether it has the exporter speak TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.loaded.tls.is_some()
    }
}

impl fmt::Debug for WebConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebConfig").field("path", &self.path).field("loaded", &self.loaded).finish_non_exhaustive()
    }
}

/// What a file says.
#[derive(Debug)]
pub(super) struct Loaded {
    tls: Option<Tls>,
    headers: Vec<(HeaderName, HeaderValue)>,
    users: Option<Arc<Users>>,
}

impl Loaded {
    /// How connections are encrypted, if they are.
    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.as_ref().map(|tls| Arc::clone(&tls.server))
    }

    /// Whether a request with these headers may be answered.
    pub(super) async fn judge(&self, headers: &HeaderMap, live: &Live) -> Verdict {
        match &self.users {
            None => Verdict::Admitted,
            Some(users) => users.judge(headers, live.turns()).await,
        }
    }

    /// Sets the headers that every answer has, in place of the answer's own.
    pub(super) fn dress(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
    }

    /// Takes over which passwords were found to be right, so that a new certificate has nobody wait for bcrypt.
    fn inherit(&mut self, former: &Self) {
        if let (Some(users), Some(former)) = (self.users.as_mut().and_then(Arc::get_mut), &former.users) {
            users.inherit(former);
        }
    }

    /// What `next` would leave open that this one does not, or cannot be changed while connections come.
    fn opened_by(&self, next: &Self) -> Option<&'static str> {
        let verified = |loaded: &Self| loaded.tls.as_ref().map(|tls| tls.client_auth);
        match (&self.tls, &next.tls) {
            (Some(_), None) => Some("it turns TLS off"),
            (None, Some(_)) => Some("it turns TLS on"),
            _ if verified(next) < verified(self) => Some("it verifies clients less"),
            (Some(now), Some(next)) if next.oldest < now.oldest => Some("it speaks an older version of TLS"),
            _ if self.users.is_some() && next.users.is_none() => {
                Some("it has no users any more, and would let in everybody")
            }
            _ => None,
        }
    }
}
