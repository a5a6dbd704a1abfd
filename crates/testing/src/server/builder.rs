//! How a server is set up.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::Path;

use super::watchdog::{Account, Watchdog, parents};
use super::{Server, ServerError, last_lines, programs};

/// PostgreSQL's own port, which a Unix socket in a directory of its own can have for itself.
const USUAL_PORT: u16 = 5432;

/// How often another port is tried when someone else was quicker to take one.
const PORTS_TRIED: u32 = 8;

/// What makes a server quick and small, and not durable.
const QUICK: [(&str, &str); 7] = [
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("shared_buffers", "16MB"),
    ("unix_socket_permissions", "0700"),
];

/// Sets up a [`Server`].
#[derive(Clone, Default)]
pub struct Builder {
    settings: Vec<(String, String)>,
    tcp: bool,
    tls: Option<(String, String)>,
}

impl fmt::Debug for Builder {
    /// Leaves out the private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("settings", &self.settings)
            .field("tcp", &self.tcp)
            .field("tls", &self.tls.is_some())
            .finish()
    }
}

impl Builder {
    /// Gives one of PostgreSQL's settings a value, as in `postgresql.conf` but without quotes.
    /// The last value given counts. The port, addresses and socket directory are not settable.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Gives several settings their values.
    #[must_use]
    pub fn settings<N: Into<String>, V: Into<String>>(self, settings: impl IntoIterator<Item = (N, V)>) -> Self {
        settings.into_iter().fold(self, |builder, (name, value)| builder.setting(name, value))
    }

    /// Whether the server listens on a free port of 127.0.0.1 too. It does not by default.
    #[must_use]
    pub const fn tcp(mut self, tcp: bool) -> Self {
        self.tcp = tcp;
        self
    }

    /// Has the server offer TLS with this certificate and key, both PEM. Implies [`tcp`](Self::tcp), since
    /// PostgreSQL has no TLS on Unix sockets.
    #[must_use]
    pub fn tls(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.tls = Some((certificate.into(), key.into()));
        self.tcp = true;
        self
    }

    /// Makes the server, starts it, and returns when it answers.
    ///
    /// # Errors
    /// If there is no PostgreSQL on the machine, or it does not start.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind; it blocks until `initdb`, which takes about half a second, is done.
    pub async fn start(self) -> Result<Server, ServerError> {
        let watchdog = Watchdog::spawn(&programs::find()?)?;
        let reported = watchdog.until(|state| state.initialised.is_some()).await;
        let Some(directory) = watchdog.state().directory else {
            return Err(ServerError::Directory { tried: parents() });
        };
        if reported?.initialised == Some(false) {
            return Err(ServerError::Initdb { log: last_lines(&directory.join("initdb.log")) });
        }
        self.configure(&directory, watchdog.account())?;
        let mut server =
            Server { watchdog, directory, port: USUAL_PORT, tcp: self.tcp, turn: tokio::sync::Mutex::default() };
        for _ in 1..PORTS_TRIED {
            match server.choose_port().await {
                Err(ServerError::Start { log }) if self.tcp && log.contains("Address already in use") => {}
                outcome => return outcome.map(|()| server),
            }
        }
        server.choose_port().await?;
        Ok(server)
    }

    fn configure(&self, directory: &Path, account: Option<Account>) -> Result<(), ServerError> {
        let mut lines = String::new();
        let quick = QUICK.iter().copied();
        let own = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in quick.chain(own) {
            lines += &line(name, value);
        }
        // Quoted, for this is a list: a comma would part it.
        let run = directory.join("run").to_str().unwrap_or_default().replace('"', "\"\"");
        lines += &line("unix_socket_directories", &format!("\"{run}\""));
        lines += &line("listen_addresses", if self.tcp { "127.0.0.1" } else { "" });
        if let Some((certificate, key)) = &self.tls {
            for (name, file, pem) in [("ssl_cert_file", "server.crt", certificate), ("ssl_key_file", "server.key", key)]
            {
                let path = directory.join(file);
                write_private(&path, pem, account)
                    .map_err(|source| ServerError::Write { path: path.clone(), source })?;
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
            self.port = free_port();
        }
        append(&self.directory, &line("port", &self.port.to_string()))?;
        self.start().await
    }
}

/// A port below those that systems give to outgoing connections: one of these could take it while the
/// server is down, or, looking for the server, even connect to itself.
fn free_port() -> u16 {
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let candidates = std::iter::repeat_with(|| fastrand::u16(20_000..32_000));
    candidates.take(100).find(free).unwrap_or(USUAL_PORT)
}

fn line(name: &str, value: &str) -> String {
    format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// Adds to `postgresql.conf`, where the last line about a setting counts.
fn append(directory: &Path, lines: &str) -> Result<(), ServerError> {
    let path = directory.join("data/postgresql.conf");
    let written = OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(lines.as_bytes()));
    written.map_err(|source| ServerError::Write { path, source })
}

/// A file that only the server's user can read: PostgreSQL refuses any other as a key.
fn write_private(path: &Path, text: &str, account: Option<Account>) -> io::Result<()> {
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    if let Some(account) = account {
        fchown(&file, Some(account.uid.as_raw()), Some(account.gid.as_raw()))?;
    }
    file.write_all(text.as_bytes())
}
