//! What can go wrong with a private server.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a private server could not be had, stopped or started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// There is no PostgreSQL server on this machine, or not where one looks for it.
    #[error(
        "PostgreSQL's server programs `initdb` and `postgres` were not found; looked in {}. \
         Install them (`apt-get install postgresql`, `brew install postgresql`), \
         or name the directory that holds them in POOLSCOPE_PG_BIN",
        looked_in.join(", ")
    )]
    Missing {
        /// The places where they could have been.
        looked_in: Vec<String>,
    },
    /// PostgreSQL refuses to run as root, and there is no other user to run it as.
    #[error("PostgreSQL does not run as root, and neither user `postgres` nor `nobody` exists")]
    NoAccount,
    /// The shell that keeps the server could not be started.
    #[error("cannot start /bin/sh to keep a PostgreSQL server")]
    Spawn {
        /// What the system said.
        source: io::Error,
    },
    /// No directory could be made.
    #[error("cannot make a directory for a PostgreSQL server in {}", tried.join(" or "))]
    Directory {
        /// The directories in which it should have been.
        tried: Vec<String>,
    },
    /// `initdb` failed.
    #[error("initdb failed; its last words:\n{log}")]
    Initdb {
        /// The end of what it printed.
        log: String,
    },
    /// A file of the server could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The server ended before it took connections.
    #[error("PostgreSQL did not start; the end of its log:\n{log}")]
    Start {
        /// The end of its log.
        log: String,
    },
    /// The server runs, but takes no connections.
    #[error("PostgreSQL took no connections within {waited:?}; the end of its log:\n{log}")]
    NotReady {
        /// How long it was given.
        waited: Duration,
        /// The end of its log.
        log: String,
    },
    /// The shell that keeps the server ended, and with it the server.
    #[error("the PostgreSQL server's keeper is gone")]
    Gone,
}
