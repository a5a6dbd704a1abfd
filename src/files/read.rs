//! Reads a file with a bound on its size.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::path::Path;

use super::permissions::{is_fifo, readable_by_others};

/// The largest file that is read. No valid one is as large; a mistaken path must not exhaust memory.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What a file of secrets contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SecretKind {
    Key,
    Passfile,
}

/// The content of a file, and whether others than its owner may read it.
pub(crate) struct Secrets {
    pub(crate) content: Vec<u8>,
    pub(crate) is_exposed: bool,
}

/// Reads the regular file or FIFO at `path`, whose size is at most 1 MiB. Opening a FIFO waits for its writer.
///
/// # Errors
///
/// Returns an error if the file is of another type, larger, or cannot be read.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    Ok(read_opened(path, true)?.0)
}

/// Reads a file of secrets. Its permissions are those of the file that was read, whatever the path is meanwhile. Unless
/// `fifo`, a FIFO is refused: opening one could wait forever, and its content is gone once it was read.
pub(super) fn read_secrets(path: &Path, kind: SecretKind, fifo: bool) -> io::Result<Secrets> {
    let (content, metadata) = read_opened(path, fifo)?;
    Ok(Secrets { content, is_exposed: readable_by_others(&metadata, kind) })
}

/// Reads a file as [`read`] does, but no FIFO, as [`read_secrets`].
pub(super) fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    Ok(read_opened(path, false)?.0)
}

fn read_opened(path: &Path, fifo: bool) -> io::Result<(Vec<u8>, Metadata)> {
    let accept = |metadata: &Metadata| metadata.is_file() || fifo && is_fifo(metadata);
    let problem = if fifo { "neither a regular file nor a FIFO" } else { "not a regular file" };
    let check = |metadata: &Metadata| {
        if accept(metadata) { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, problem)) }
    };
    // Before opening, which has effects on some devices, and again for the file that was opened.
    check(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    check(&metadata)?;
    let mut content = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    Ok((content, metadata))
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::PathBuf;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    fn error(path: &str) -> String {
        read(Path::new(path)).unwrap_err().to_string()
    }

    #[test]
    fn device_and_directory_are_refused() {
        assert_eq!(error("/dev/zero"), "neither a regular file nor a FIFO");
        assert_eq!(error("/tmp"), "neither a regular file nor a FIFO");
        assert!(error("/nonexistent").contains("No such file"));
    }

    #[test]
    fn size_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(read(&path).unwrap().len(), 1 << 20);
        fs::write(&path, vec![b'x'; (1 << 20) + 1]).unwrap();
        assert_eq!(read(&path).unwrap_err().to_string(), "larger than 1 MiB");
    }

    #[test]
    fn group_may_read_a_key_of_root_only() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "text").unwrap();
        let is_root = fs::metadata(&path).unwrap().uid() == 0;
        for (mode, key, passfile) in [
            (0o600, false, false),
            (0o400, false, false),
            (0o640, !is_root, true),
            (0o660, true, true),
            (0o610, true, true),
            (0o604, true, true),
            (0o601, true, true),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let is_exposed = |kind| read_secrets(&path, kind, false).unwrap().is_exposed;
            assert_eq!((is_exposed(SecretKind::Key), is_exposed(SecretKind::Passfile)), (key, passfile), "{mode:o}");
        }
    }

    #[test]
    fn fifo_is_read_with_the_same_bound() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = |name: &str, content: Vec<u8>| -> PathBuf {
            let path = directory.path().join(name);
            mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
            let writer = path.clone();
            // Fails with EPIPE once the reader has stopped.
            std::thread::spawn(move || drop(fs::write(writer, content)));
            path
        };
        assert_eq!(read(&fifo("small", b"text".to_vec())).unwrap(), b"text");
        let large = fifo("large", vec![b'x'; 4 << 20]);
        assert_eq!(read(&large).unwrap_err().to_string(), "larger than 1 MiB");
        assert_eq!(read_regular(&large).unwrap_err().to_string(), "not a regular file");
    }
}
