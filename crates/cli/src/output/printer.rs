//! Writes lines and the status line to a terminal, or lines only to anything else.

use std::io::{self, Write};

use super::StatusLine;

/// The escape sequence that erases from the cursor to the end of the line.
const ERASE: &str = "\x1b[K";

/// Writes to standard output, and the log to standard error, which may be the same terminal.
#[derive(Debug)]
pub(super) struct Printer<O, E> {
    pub(super) out: O,
    pub(super) err: E,
    /// Whether `out` is a terminal with a status line.
    pub(super) is_terminal: bool,
    /// Whether `err` is a terminal too, so that log lines would overwrite the status line.
    pub(super) is_shared: bool,
    pub(super) ansi: bool,
    /// Whether the locale is UTF-8.
    pub(super) is_utf8: bool,
    /// Returns the width of `out`.
    pub(super) width: fn() -> usize,
    /// The current status line.
    pub(super) status_line: Option<String>,
}

impl<O: Write, E: Write> Printer<O, E> {
    /// Prints lines, which end with a newline, above the status line.
    pub(super) fn lines(&mut self, lines: &str) -> io::Result<()> {
        let text = match &self.status_line {
            Some(status) => format!("\r{ERASE}{lines}{status}"),
            None => lines.to_owned(),
        };
        self.write(&text)
    }

    /// Prints a log line. Returns whether `err` accepted it, and an error if `out` fails.
    pub(super) fn log(&mut self, line: &[u8]) -> io::Result<bool> {
        let status = self.status_line.clone().filter(|_| self.is_shared);
        if status.is_some() {
            self.write(&format!("\r{ERASE}"))?;
        }
        let is_written = self.err.write_all(line).and_then(|()| self.err.flush()).is_ok();
        status.map_or(Ok(()), |status| self.write(&status))?;
        Ok(is_written)
    }

    /// Replaces the status line, or prints the status as a line.
    pub(super) fn status(&mut self, status: &dyn StatusLine) -> io::Result<()> {
        if !self.is_terminal {
            return self.write(&format!("{}\n", status.plain()));
        }
        // A line of the full width would move the cursor to the next line.
        let width = (self.width)().saturating_sub(1);
        let line = status.line(width, self.is_utf8, self.ansi);
        self.write(&format!("\r{line}{ERASE}"))?;
        self.status_line = Some(line);
        Ok(())
    }

    /// Keeps the status line, and continues below it.
    pub(super) fn keep_status(&mut self) -> io::Result<()> {
        if self.status_line.take().is_some() { self.write("\n") } else { Ok(()) }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows its arguments.
    #[derive(Debug)]
    struct Status;

    impl StatusLine for Status {
        fn line(&self, width: usize, is_utf8: bool, ansi: bool) -> String {
            format!("{width} {is_utf8} {ansi}")
        }

        fn plain(&self) -> String {
            "plain".to_owned()
        }
    }

    fn printer(is_terminal: bool, is_shared: bool) -> Printer<Vec<u8>, Vec<u8>> {
        let (out, err) = (Vec::new(), Vec::new());
        Printer { out, err, is_terminal, is_shared, ansi: false, is_utf8: true, width: || 60, status_line: None }
    }

    fn take(from: &mut Vec<u8>) -> String {
        String::from_utf8(std::mem::take(from)).unwrap()
    }

    #[test]
    fn status_is_rewritten_below_the_lines() {
        let mut printer = printer(true, true);
        let line = "59 true false";
        printer.status(&Status).unwrap();
        assert_eq!(take(&mut printer.out), format!("\r{line}\x1b[K"));
        printer.lines("hello\n").unwrap();
        assert_eq!(take(&mut printer.out), format!("\r\x1b[Khello\n{line}"));
        assert!(printer.log(b"WARN\n").unwrap());
        assert_eq!(take(&mut printer.out), format!("\r\x1b[K{line}"));
        assert_eq!(take(&mut printer.err), "WARN\n");
        printer.keep_status().unwrap();
        printer.keep_status().unwrap();
        printer.lines("bye\n").unwrap();
        assert_eq!(take(&mut printer.out), "\nbye\n");
    }

    #[test]
    fn redirected_log_does_not_affect_the_status_line() {
        let mut printer = printer(true, false);
        printer.status(&Status).unwrap();
        take(&mut printer.out);
        assert!(printer.log(b"WARN\n").unwrap());
        assert_eq!(take(&mut printer.out), "");
    }

    #[test]
    fn output_without_a_terminal_has_no_escapes() {
        let mut printer = printer(false, false);
        printer.status(&Status).unwrap();
        printer.keep_status().unwrap();
        printer.lines("bye\n").unwrap();
        assert_eq!(take(&mut printer.out), "plain\nbye\n");
    }
}
