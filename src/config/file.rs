//! Reads files of configuration.

use std::io;
use std::path::Path;

use crate::files;

/// Reads the text of a file that a user named, such as a configuration or a secret: a regular file or FIFO of at most
/// 1 MiB in UTF-8. A byte order mark at its beginning is removed.
///
/// This blocks on disk I/O; opening a FIFO waits for its writer.
///
/// ```
/// let error = poolscope::config::read_file("/dev/zero").unwrap_err();
/// assert_eq!(error.to_string(), "neither a regular file nor a FIFO");
/// ```
///
/// # Errors
///
/// Returns an error if the file is of another type, larger, not UTF-8, or cannot be read. It does not contain the path.
pub fn read_file(path: impl AsRef<Path>) -> io::Result<String> {
    let content = files::read(path.as_ref())?;
    let text = String::from_utf8(content).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8"))
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn text_is_utf8_without_a_byte_order_mark() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "\u{feff}größe\n").unwrap();
        assert_eq!(read_file(&path).unwrap(), "größe\n");
        std::fs::write(&path, b"fine\n\xff\n").unwrap();
        assert_eq!(read_file(&path).unwrap_err().to_string(), "line 2 is not UTF-8");
    }
}
