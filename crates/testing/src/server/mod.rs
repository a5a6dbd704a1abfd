//! A private PostgreSQL server, for the demo, the tests and the benches.
//!
//! It uses a temporary directory named `poolscope-…`, listens on a Unix socket there (and on the loopback
//! address with [`Builder::tcp`]), authenticates with `trust`, and gives up durability for speed. When the
//! [`Server`] is dropped, or its process ends in any way, `kill -9` included, the server stops and the
//! directory is removed. It needs PostgreSQL 12 or later on the machine.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use poolscope_testing::server::{Server, Shutdown};
//!
//! let server = Server::builder().setting("max_connections", "20").start().await?;
//! let url = server.url();
//! server.restart(Shutdown::Immediate).await?;
//! # Ok(())
//! # }
//! ```

mod builder;
mod error;
mod probe;
mod programs;
mod standby;
#[cfg(test)]
mod tests;
mod watchdog;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub use builder::Builder;
pub use error::ServerError;
pub use watchdog::VARIABLES;
use watchdog::Watchdog;

use crate::ports::ReservedPort;

/// The name of the superuser and of the default database.
const POSTGRES: &str = "postgres";

/// The characters to escape in a URL's host.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How long a start may take, recovery after an immediate shutdown included.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How many lines of a log an error contains.
const LOG_LINES: usize = 20;

/// The shutdown mode of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shutdown {
    /// Terminates sessions with an error, and stops the server cleanly.
    Fast,
    /// Stops at once; the next start runs recovery, as after a crash.
    Immediate,
}

impl Shutdown {
    const fn signal(self) -> &'static str {
        match self {
            Self::Fast => "INT",
            Self::Immediate => "QUIT",
        }
    }
}

/// A private PostgreSQL server. Dropping it stops the server and removes its directory, which blocks for
/// about ten milliseconds, and for up to six seconds at worst.
#[derive(Debug)]
pub struct Server {
    watchdog: Watchdog,
    directory: PathBuf,
    port: u16,
    /// The port, while the server is down too.
    #[allow(dead_code, reason = "holds the reservation")]
    reserved: Option<ReservedPort>,
    tcp: bool,
    /// Serializes stops and starts.
    lock: tokio::sync::Mutex<()>,
}

impl Server {
    /// Returns a builder with default settings.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Returns the URL of the database `postgres`, for the superuser, through the Unix socket.
    #[must_use]
    pub fn url(&self) -> String {
        let socket_directory = self.socket_directory();
        let host = utf8_percent_encode(socket_directory.to_str().unwrap_or_default(), &RESERVED);
        format!("postgres://{POSTGRES}@{host}:{}/{POSTGRES}", self.port)
    }

    /// Returns the URL of the server without user and database, for a proxy, through the Unix socket.
    #[must_use]
    pub fn address_url(&self) -> String {
        let socket_directory = self.socket_directory();
        let host = utf8_percent_encode(socket_directory.to_str().unwrap_or_default(), &RESERVED);
        format!("postgres://{host}:{}", self.port)
    }

    /// Returns the same URL as [`url`](Self::url), through TCP; `None` without [`Builder::tcp`].
    #[must_use]
    pub fn tcp_url(&self) -> Option<String> {
        self.tcp.then(|| format!("postgres://{POSTGRES}@127.0.0.1:{}/{POSTGRES}", self.port))
    }

    /// Returns the port, which is also part of the Unix socket's name.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns the temporary directory, which contains `data`, `run` (the socket) and `postgres.log`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.directory
    }

    /// Returns the id of the server's main process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.watchdog.state().pid
    }

    /// Stops the server and waits until it is down. It keeps its directory and port.
    ///
    /// # Errors
    /// [`ServerError::WatchdogExited`] if the watchdog process was killed.
    ///
    /// # Cancel safety
    /// The server stops even if the future is dropped after its first poll.
    pub async fn stop(&self, mode: Shutdown) -> Result<(), ServerError> {
        let _lock = self.lock.lock().await;
        self.stop_locked(mode).await
    }

    /// Starts a stopped server in the same directory, and waits until it accepts connections.
    /// If it runs already, only waits.
    ///
    /// # Errors
    /// If it exits before it accepts connections, or does not accept them within 60 seconds.
    ///
    /// # Cancel safety
    /// The server starts even if the future is dropped after its first poll.
    pub async fn start(&self) -> Result<(), ServerError> {
        let _lock = self.lock.lock().await;
        self.start_locked().await
    }

    /// Stops the server and starts it again.
    ///
    /// # Errors
    /// As [`stop`](Self::stop) and [`start`](Self::start).
    pub async fn restart(&self, mode: Shutdown) -> Result<(), ServerError> {
        let _lock = self.lock.lock().await;
        self.stop_locked(mode).await?;
        self.start_locked().await
    }

    async fn stop_locked(&self, mode: Shutdown) -> Result<(), ServerError> {
        if self.pid().is_none() {
            return Ok(());
        }
        self.watchdog.send(mode.signal())?;
        self.watchdog.wait_for(|state| state.pid.is_none()).await?;
        Ok(())
    }

    async fn start_locked(&self) -> Result<(), ServerError> {
        let before = self.watchdog.state();
        if before.pid.is_none() {
            self.watchdog.send("start")?;
            self.watchdog.wait_for(|state| state.starts > before.starts).await?;
        }
        let started = Instant::now();
        let socket = self.socket_directory().join(format!(".s.PGSQL.{}", self.port));
        while !probe::accepts_connections(&socket).await {
            if self.pid().is_none() {
                return Err(ServerError::Start { log: self.log() });
            }
            if started.elapsed() > READY_TIMEOUT {
                return Err(ServerError::NotReady { waited: READY_TIMEOUT, log: self.log() });
            }
            probe::pause().await;
        }
        Ok(())
    }

    fn socket_directory(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// Returns the last lines of the server's log.
    fn log(&self) -> String {
        last_lines(&self.directory.join("postgres.log"))
    }
}

fn last_lines(file: &Path) -> String {
    let log = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
