//! Splits what a client sends into commands: arrays of bulk strings.

use super::Head;

/// The longest array or string that a server accepts.
const MAX_LENGTH: i64 = 0x7fff_ffff;

/// A part of a command.
#[derive(Clone, Copy, Debug)]
pub(super) enum RequestPart {
    /// The name of a command, and the number of arguments that follow.
    Name(Head, u64),
    /// The first argument.
    FirstArgument(Head),
}

#[derive(Clone, Copy, Debug, Default)]
enum Position {
    /// In front of a command.
    #[default]
    Between,
    /// In the length of the array.
    Count,
    /// In front of an argument.
    Argument,
    /// In the length of an argument.
    Length,
    /// In an argument with so many bytes left, its line break included.
    Body(u64),
}

#[derive(Debug, Default)]
pub(super) struct Requests {
    position: Position,
    /// The line that is being read, or the beginning of the argument.
    head: Head,
    /// The number of arguments of the command.
    arguments: u64,
    /// The number of those that follow.
    left: u64,
}

impl Requests {
    /// Returns whether a command was sent in part.
    pub(super) fn is_partial(&self) -> bool {
        !matches!(self.position, Position::Between)
    }

    /// Reads the next part, and advances `bytes`. `None` if there is no whole one.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes do not follow the protocol.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<RequestPart>, &'static str> {
        while let Some((first, rest)) = bytes.split_first() {
            match self.position {
                Position::Between => {
                    if *first != b'*' {
                        return Err("command that is no array");
                    }
                    *bytes = rest;
                    (self.position, self.head) = (Position::Count, Head::default());
                }
                Position::Argument => {
                    if *first != b'$' {
                        return Err("argument that is no string");
                    }
                    *bytes = rest;
                    (self.position, self.head) = (Position::Length, Head::default());
                }
                Position::Count => {
                    let Some(count) = self.line(bytes)? else { return Ok(None) };
                    // The server ignores an empty array.
                    self.position = if count > 0 { Position::Argument } else { Position::Between };
                    self.arguments = u64::try_from(count).unwrap_or_default();
                    self.left = self.arguments;
                }
                Position::Length => {
                    let Some(length) = self.line(bytes)? else { return Ok(None) };
                    let length = u64::try_from(length).map_err(|_| "negative length of an argument")?;
                    (self.position, self.head) = (Position::Body(length + 2), Head::default());
                }
                Position::Body(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let (part, rest) = bytes.split_at(taken);
                    *bytes = rest;
                    let after = left - taken as u64;
                    // Without the line break.
                    let text = left.saturating_sub(2);
                    let text = usize::try_from(text).unwrap_or(usize::MAX).min(part.len());
                    let index = self.arguments - self.left;
                    if index < 2 {
                        self.head.push(&part[..text]);
                    }
                    if after > 0 {
                        self.position = Position::Body(after);
                        return Ok(None);
                    }
                    self.left -= 1;
                    self.position = if self.left > 0 { Position::Argument } else { Position::Between };
                    let head = std::mem::take(&mut self.head);
                    match index {
                        0 => return Ok(Some(RequestPart::Name(head, self.left))),
                        1 => return Ok(Some(RequestPart::FirstArgument(head))),
                        _ => {}
                    }
                }
            }
        }
        Ok(None)
    }

    /// Reads up to the end of the line, which is a number.
    fn line(&mut self, bytes: &mut &[u8]) -> Result<Option<i64>, &'static str> {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.head.push(bytes);
            *bytes = &[];
            return if self.head.length > 24 { Err("length that is no number") } else { Ok(None) };
        };
        let (line, rest) = bytes.split_at(end);
        self.head.push(line);
        *bytes = &rest[1..];
        number_of(&self.head)
            .filter(|number| (-1..=MAX_LENGTH).contains(number))
            .map(Some)
            .ok_or("length that is no number")
    }
}

/// Returns the number in a line, whose `\r` may have arrived in front of the rest.
pub(super) fn number_of(line: &Head) -> Option<i64> {
    let mut line = *line;
    if line.as_bytes().ends_with(b"\r") {
        line.length -= 1;
    }
    line.number()
}
