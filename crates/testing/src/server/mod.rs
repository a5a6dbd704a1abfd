//! A private PostgreSQL server, for the demo, the tests and the benches.
//!
//! It lives in a temporary directory named `poolscope-…`, is reached through a Unix socket there (and
//! through TCP on the loopback address if asked), trusts everyone who reaches it, and gives up durability
//! for speed. When the [`Server`] is dropped, or its process ends in any way, `kill -9` included, the
//! server stops and the directory is removed. It needs PostgreSQL 12 or later on the machine.
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
#[cfg(test)]
mod tests;
mod watchdog;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub use builder::Builder;
pub use error::ServerError;
use watchdog::Watchdog;

/// The user, and the database, that every server has.
const POSTGRES: &str = "postgres";

/// What a URL's host must not have as it is.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How long a server may take until it answers. Recovery after an immediate shutdown counts.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How many lines of a log an error carries.
const LAST_LINES: usize = 20;

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shutdown {
    /// Sessions are ended, with an error that says so, and the server stops in good order.
    Fast,
    /// Everything ends at once, and the server recovers at its next start, as after a crash.
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

/// A private PostgreSQL server. Dropping it stops the server at once and removes its directory, which
/// blocks for some ten milliseconds, and for some seconds at worst.
#[derive(Debug)]
pub struct Server {
    watchdog: Watchdog,
    directory: PathBuf,
    port: u16,
    tcp: bool,
    /// Stopping and starting take turns.
    turn: tokio::sync::Mutex<()>,
}

impl Server {
    /// A server to be set up and started.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The URL of its database `postgres`, for its superuser, through its Unix socket.
    #[must_use]
    pub fn url(&self) -> String {
        let socket_directory = self.socket_directory();
        let host = utf8_percent_encode(socket_directory.to_str().unwrap_or_default(), &RESERVED);
        format!("postgres://{POSTGRES}@{host}:{}/{POSTGRES}", self.port)
    }

    /// The same through TCP, if it was asked to listen there.
    #[must_use]
    pub fn tcp_url(&self) -> Option<String> {
        self.tcp.then(|| format!("postgres://{POSTGRES}@127.0.0.1:{}/{POSTGRES}", self.port))
    }

    /// The port, which is also part of the Unix socket's name.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The temporary directory with everything the server has: `data`, `run` (the socket), `postgres.log`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.directory
    }

    /// The server's main process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.watchdog.state().pid
    }

    /// Stops the server, and returns when it is down. Its directory and its port stay its own.
    ///
    /// # Errors
    /// [`ServerError::Gone`] if the process that keeps the server was killed.
    ///
    /// # Cancel safety
    /// The server stops even if the future is dropped after its first poll.
    pub async fn stop(&self, how: Shutdown) -> Result<(), ServerError> {
        let _turn = self.turn.lock().await;
        self.halt(how).await
    }

    /// Starts the server that was stopped, in the same place, and returns when it answers.
    /// Does nothing more than wait for that if it runs.
    ///
    /// # Errors
    /// If it ends before it answers, or does not answer in time.
    ///
    /// # Cancel safety
    /// The server starts even if the future is dropped after its first poll.
    pub async fn start(&self) -> Result<(), ServerError> {
        let _turn = self.turn.lock().await;
        self.launch().await
    }

    /// Stops the server and starts it again.
    ///
    /// # Errors
    /// As [`stop`](Self::stop) and [`start`](Self::start).
    pub async fn restart(&self, how: Shutdown) -> Result<(), ServerError> {
        let _turn = self.turn.lock().await;
        self.halt(how).await?;
        self.launch().await
    }

    async fn halt(&self, how: Shutdown) -> Result<(), ServerError> {
        if self.pid().is_none() {
            return Ok(());
        }
        self.watchdog.order(how.signal())?;
        self.watchdog.until(|state| state.pid.is_none()).await?;
        Ok(())
    }

    async fn launch(&self) -> Result<(), ServerError> {
        let before = self.watchdog.state();
        if before.pid.is_none() {
            self.watchdog.order("start")?;
            self.watchdog.until(|state| state.runs > before.runs).await?;
        }
        let begun = Instant::now();
        let socket = self.socket_directory().join(format!(".s.PGSQL.{}", self.port));
        while !probe::answers(&socket).await {
            if self.pid().is_none() {
                return Err(ServerError::Start { log: self.log() });
            }
            if begun.elapsed() > READY_WITHIN {
                return Err(ServerError::NotReady { waited: READY_WITHIN, log: self.log() });
            }
            probe::pause().await;
        }
        Ok(())
    }

    fn socket_directory(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// The last lines of the server's log.
    fn log(&self) -> String {
        last_lines(&self.directory.join("postgres.log"))
    }
}

fn last_lines(file: &Path) -> String {
    let log = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
