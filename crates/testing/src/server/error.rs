//! Errors of a private server.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// An error on creating, starting or stopping a private server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// PostgreSQL is not installed, or not in a known directory.
    #[error(
        "PostgreSQL's server programs `initdb` and `postgres` were not found; searched {}. \
         Install them (`apt-get install postgresql`, `brew install postgresql`), \
         or set POOLSCOPE_PG_BIN to their directory",
        searched.join(", ")
    )]
    NotInstalled {
        /// The directories that were searched.
        searched: Vec<String>,
    },
    /// This process runs as root, which PostgreSQL refuses, and there is no other user to run it as.
    #[error("PostgreSQL does not run as root, and neither user `postgres` nor `nobody` exists")]
    NoUnprivilegedUser,
    /// The watchdog could not be started.
    #[error("cannot start /bin/sh for the watchdog of a PostgreSQL server")]
    Spawn {
        /// The cause.
        source: io::Error,
    },
    /// No directory could be created.
    #[error("cannot create a directory for a PostgreSQL server in {}", tried.join(" or "))]
    Directory {
        /// The parent directories that were tried.
        tried: Vec<String>,
    },
    /// `initdb` failed.
    #[error("initdb failed; the end of its output:\n{log}")]
    Initdb {
        /// The end of its output.
        log: String,
    },
    /// A file of the server could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// No port could be reserved.
    #[error("no free port was found for a PostgreSQL server")]
    Port {
        /// The cause.
        source: io::Error,
    },
    /// The server exited before it accepted connections.
    #[error("PostgreSQL did not start; the end of its log:\n{log}")]
    Start {
        /// The end of its log.
        log: String,
    },
    /// The server runs, but accepts no connections.
    #[error("PostgreSQL accepted no connections within {waited:?}; the end of its log:\n{log}")]
    NotReady {
        /// The time limit.
        waited: Duration,
        /// The end of its log.
        log: String,
    },
    /// The watchdog exited, and with it the server.
    #[error("the watchdog of the PostgreSQL server exited")]
    WatchdogExited,
}
