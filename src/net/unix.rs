//! Unix sockets.

use std::io;
use std::path::Path;

pub(crate) use tokio::net::UnixStream;

/// Returns whether an error says that this host is out of file descriptors or socket buffers.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS))
}

pub(crate) async fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}
