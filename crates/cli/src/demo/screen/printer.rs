//! Puts lines and the status line on a terminal, or lines only on anything else.

use std::io::{self, Write};

use super::status::{Glyphs, Status};

/// Erases from the cursor to the end of the line.
const ERASE: &str = "\x1b[K";

/// Writes to one place, and the log to another that may be the same terminal.
#[derive(Debug)]
pub(super) struct Printer<O, E> {
    pub(super) out: O,
    pub(super) err: E,
    /// Whether `out` is a terminal, with a status line.
    pub(super) live: bool,
    /// Whether `err` is a terminal too, so that the status line has to make way.
    pub(super) shared: bool,
    pub(super) colours: bool,
    pub(super) glyphs: &'static Glyphs,
    /// How wide `out` is.
    pub(super) width: fn() -> usize,
    /// The status line that is on the screen.
    pub(super) shown: Option<String>,
}

impl<O: Write, E: Write> Printer<O, E> {
    /// Prints lines, each with its end, above the status line.
    pub(super) fn lines(&mut self, lines: &str) -> io::Result<()> {
        let text = match &self.shown {
            Some(status) => format!("\r{ERASE}{lines}{status}"),
            None => lines.to_owned(),
        };
        self.write(&text)
    }

    /// Prints lines of the log. If that fails there is nobody to tell.
    pub(super) fn log(&mut self, line: &[u8]) -> io::Result<()> {
        let status = self.shown.clone().filter(|_| self.shared);
        if status.is_some() {
            self.write(&format!("\r{ERASE}"))?;
        }
        let _ = self.err.write_all(line).and_then(|()| self.err.flush());
        status.map_or(Ok(()), |status| self.write(&status))
    }

    pub(super) fn status(&mut self, status: &Status) -> io::Result<()> {
        if !self.live {
            return self.write(&format!("{}\n", status.plain()));
        }
        // A line as wide as the terminal would leave the cursor in the next one.
        let width = (self.width)().saturating_sub(1);
        let line = status.line(width, self.glyphs, self.colours);
        self.write(&format!("\r{line}{ERASE}"))?;
        self.shown = Some(line);
        Ok(())
    }

    /// Leaves the status line where it is, and goes on below it.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        if self.shown.take().is_some() { self.write("\n") } else { Ok(()) }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::{ASCII, BLOCKS};
    use super::*;

    fn printer(live: bool, shared: bool, colours: bool) -> Printer<Vec<u8>, Vec<u8>> {
        let (out, err) = (Vec::new(), Vec::new());
        Printer { out, err, live, shared, colours, glyphs: &BLOCKS, width: || 60, shown: None }
    }

    fn taken(from: &mut Vec<u8>) -> String {
        String::from_utf8(std::mem::take(from)).unwrap()
    }

    #[test]
    fn a_status_is_rewritten_in_place_and_lines_go_above_it() {
        let mut printer = printer(true, true, false);
        let status = Status::example();
        let line = status.line(59, &BLOCKS, false);
        printer.status(&status).unwrap();
        assert_eq!(taken(&mut printer.out), format!("\r{line}\x1b[K"));
        printer.lines("hello\n").unwrap();
        assert_eq!(taken(&mut printer.out), format!("\r\x1b[Khello\n{line}"));
        printer.log(b"WARN\n").unwrap();
        assert_eq!(taken(&mut printer.out), format!("\r\x1b[K{line}"));
        assert_eq!(taken(&mut printer.err), "WARN\n");
        printer.settle().unwrap();
        printer.settle().unwrap();
        printer.lines("bye\n").unwrap();
        assert_eq!(taken(&mut printer.out), "\nbye\n");
    }

    #[test]
    fn a_log_that_goes_elsewhere_leaves_the_status_line_alone() {
        let mut printer = printer(true, false, false);
        printer.status(&Status::example()).unwrap();
        taken(&mut printer.out);
        printer.log(b"WARN\n").unwrap();
        assert_eq!(taken(&mut printer.out), "");
    }

    #[test]
    fn elsewhere_than_on_a_terminal_there_are_lines_without_escapes() {
        let mut printer = printer(false, false, false);
        printer.glyphs = &ASCII;
        printer.status(&Status::example()).unwrap();
        printer.settle().unwrap();
        printer.lines("bye\n").unwrap();
        assert_eq!(taken(&mut printer.out), format!("{}\nbye\n", Status::example().plain()));
    }
}
