//! The configuration of a server.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::Path;

use super::watchdog::{ServerUser, Watchdog, parent_directories};
use super::{Server, ServerError, last_lines, programs};
use crate::ports::ReservedPort;

/// PostgreSQL's default port, which is always free for a socket in a directory of its own.
const DEFAULT_PORT: u16 = 5432;

/// How many ports are tried, as another program may take one between the check and the start.
const MAX_PORTS: u32 = 8;

/// Settings that make a server fast and small, at the cost of durability, and its users' passwords alike in all versions.
const FAST_SETTINGS: [(&str, &str); 8] = [
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("shared_buffers", "16MB"),
    ("unix_socket_permissions", "0700"),
    ("password_encryption", "scram-sha-256"),
];

/// Builds a [`Server`].
#[derive(Clone, Default)]
pub struct Builder {
    settings: Vec<(String, String)>,
    tcp: bool,
    tls: Option<(String, String)>,
    env: Vec<(String, OsString)>,
}

impl fmt::Debug for Builder {
    /// Leaves out the private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("settings", &self.settings)
            .field("tcp", &self.tcp)
            .field("tls", &self.tls.is_some())
            .field("env", &self.env)
            .finish()
    }
}

impl Builder {
    /// Sets a PostgreSQL setting, as in `postgresql.conf` but without quotes.
    /// The last value of a setting counts. The port, addresses and socket directory are fixed.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Sets several PostgreSQL settings.
    #[must_use]
    pub fn settings<N: Into<String>, V: Into<String>>(self, settings: impl IntoIterator<Item = (N, V)>) -> Self {
        settings.into_iter().fold(self, |builder, (name, value)| builder.setting(name, value))
    }

    /// Sets whether the server also listens on a free port of 127.0.0.1. Default: false.
    #[must_use]
    pub const fn tcp(mut self, tcp: bool) -> Self {
        self.tcp = tcp;
        self
    }

    /// Enables TLS with this certificate and key, both PEM. Implies [`tcp`](Self::tcp), since
    /// PostgreSQL has no TLS on Unix sockets.
    #[must_use]
    pub fn tls(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.tls = Some((certificate.into(), key.into()));
        self.tcp = true;
        self
    }

    /// Sets an environment variable of the server. It inherits few from this process.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Creates and starts the server, and waits until it accepts connections.
    ///
    /// # Errors
    /// If PostgreSQL is not installed, or does not start.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind. The drop blocks until `initdb` ends, about half a second.
    pub async fn start(self) -> Result<Server, ServerError> {
        let watchdog = Watchdog::spawn(&programs::find()?, &self.env)?;
        let reported = watchdog.wait_for(|state| state.initialized.is_some()).await;
        let Some(directory) = watchdog.state().directory else {
            return Err(ServerError::Directory { tried: parent_directories() });
        };
        if reported?.initialized == Some(false) {
            return Err(ServerError::Initdb { log: last_lines(&directory.join("initdb.log")) });
        }
        self.configure(&directory, watchdog.user())?;
        let (port, lock) = (DEFAULT_PORT, tokio::sync::Mutex::default());
        let mut server = Server { watchdog, directory, port, reserved: None, tcp: self.tcp, lock };
        for _ in 1..MAX_PORTS {
            match server.choose_port().await {
                Err(ServerError::Start { log }) if self.tcp && log.contains("Address already in use") => {}
                outcome => return outcome.map(|()| server),
            }
        }
        server.choose_port().await?;
        Ok(server)
    }

    fn configure(&self, directory: &Path, user: Option<ServerUser>) -> Result<(), ServerError> {
        let mut lines = String::new();
        let fast = FAST_SETTINGS.iter().copied();
        let own = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in fast.chain(own) {
            lines += &line(name, value);
        }
        // Quoted, since this is a list that commas separate.
        let run = directory.join("run").to_str().unwrap_or_default().replace('"', "\"\"");
        lines += &line("unix_socket_directories", &format!("\"{run}\""));
        lines += &line("listen_addresses", if self.tcp { "127.0.0.1" } else { "" });
        if let Some((certificate, key)) = &self.tls {
            for (name, file, pem) in [("ssl_cert_file", "server.crt", certificate), ("ssl_key_file", "server.key", key)]
            {
                let path = directory.join(file);
                write_private(&path, pem, user).map_err(|source| ServerError::Write { path: path.clone(), source })?;
                lines += &line(name, path.to_str().unwrap_or_default());
            }
            lines += &line("ssl", "on");
        }
        append(directory, &lines)
    }
}

impl Server {
    async fn choose_port(&mut self) -> Result<(), ServerError> {
        if self.tcp {
            let reserved = ReservedPort::new().map_err(|source| ServerError::Port { source })?;
            self.port = reserved.number();
            self.reserved = Some(reserved);
        }
        append(&self.directory, &line("port", &self.port.to_string()))?;
        self.start().await
    }
}

fn line(name: &str, value: &str) -> String {
    format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// Appends to `postgresql.conf`, where the last line of a setting counts.
pub(super) fn append(directory: &Path, lines: &str) -> Result<(), ServerError> {
    let path = directory.join("data/postgresql.conf");
    let written = OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(lines.as_bytes()));
    written.map_err(|source| ServerError::Write { path, source })
}

/// Writes a file that only the server's user can read; PostgreSQL refuses any other as a key.
fn write_private(path: &Path, text: &str, user: Option<ServerUser>) -> io::Result<()> {
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    if let Some(user) = user {
        fchown(&file, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    }
    file.write_all(text.as_bytes())
}
