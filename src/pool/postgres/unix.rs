//! Unix sockets.

use std::io;
use std::path::{Path, PathBuf};

pub(super) use tokio::net::UnixStream;
use tokio_postgres::config::Host;

/// Returns the path of the server's socket, if `host` is a directory.
pub(super) fn socket_path(host: &Host, port: u16) -> Option<PathBuf> {
    match host {
        Host::Unix(directory) => Some(directory.join(format!(".s.PGSQL.{port}"))),
        Host::Tcp(_) => None,
    }
}

/// Returns whether an error says that this host is out of file descriptors or socket buffers.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS))
}

pub(super) async fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}
