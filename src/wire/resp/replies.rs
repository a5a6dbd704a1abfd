//! Splits what a server sends into values.
//!
//! Nested values need no stack: what matters is how many values are outstanding until the outermost one is complete.

use super::Head;
use super::requests::number_of;
use crate::labels::ErrorCode;

/// The longest string or aggregate that is possible.
const MAX_LENGTH: i64 = u32::MAX as i64;

/// A complete value outside any other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reply {
    /// Its first byte.
    pub(super) kind: u8,
    /// Whether it is null, which has several encodings.
    pub(super) is_null: bool,
    /// The beginning of its text, or of its first element's.
    pub(super) text: Head,
    /// Its third element, if that is a number.
    pub(super) third: Option<i64>,
    /// The code of the first error inside it.
    pub(super) inner_error: Option<ErrorCode>,
}

impl Reply {
    /// Returns whether the value is an error.
    pub(super) fn is_error(&self) -> bool {
        matches!(self.kind, b'-' | b'!')
    }

    /// Returns the code of an error.
    pub(super) fn error(&self) -> Option<ErrorCode> {
        self.is_error().then(|| code_of(&self.text))
    }
}

/// Returns the code of an error with this text.
fn code_of(text: &Head) -> ErrorCode {
    let text = text.as_bytes();
    // It has no word of its own.
    if text.starts_with(b"ERR max number of clients") {
        return ErrorCode::new("MAXCLIENTS");
    }
    let word = text.split(|byte| *byte == b' ').next().unwrap_or_default();
    let word = std::str::from_utf8(word).unwrap_or_default().trim_end();
    ErrorCode::of_redis(word).unwrap_or(ErrorCode::OTHER)
}

#[derive(Clone, Copy, Debug, Default)]
enum Position {
    /// In front of a value.
    #[default]
    Between,
    /// In the line after the first byte.
    Line,
    /// In a string with so many bytes left, its line break included.
    Body(u64),
}

#[derive(Debug)]
pub(super) struct Replies {
    position: Position,
    /// The first byte of the value that is being read.
    kind: u8,
    /// The line or the string that is being read.
    head: Head,
    /// The outermost value.
    reply: Reply,
    /// The number of values that complete the outermost one.
    outstanding: u64,
    /// The number of values that complete the attributes, which precede a value.
    attributes: u64,
    /// The number of values read inside the outermost one.
    read: u64,
}

impl Default for Replies {
    fn default() -> Self {
        Self {
            position: Position::Between,
            kind: 0,
            head: Head::default(),
            reply: Reply::default(),
            outstanding: 1,
            attributes: 0,
            read: 0,
        }
    }
}

impl Replies {
    /// Reads the next outermost value, and advances `bytes`. `None` if there is no whole one.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes do not follow the protocol.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Reply>, &'static str> {
        while let Some((first, rest)) = bytes.split_first() {
            match self.position {
                Position::Between => {
                    *bytes = rest;
                    (self.kind, self.head, self.position) = (*first, Head::default(), Position::Line);
                }
                Position::Line => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
                    self.head.push(line);
                    *bytes = rest.get(1..).unwrap_or_default();
                    if end.is_none() {
                        return Ok(None);
                    }
                    if self.line()? {
                        return Ok(Some(self.complete()));
                    }
                }
                Position::Body(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let (part, rest) = bytes.split_at(taken);
                    *bytes = rest;
                    let text = usize::try_from(left.saturating_sub(2)).unwrap_or(usize::MAX).min(part.len());
                    if self.head.length < Head::MAX as u64 {
                        self.head.push(&part[..text]);
                    }
                    let after = left - taken as u64;
                    if after > 0 {
                        self.position = Position::Body(after);
                        return Ok(None);
                    }
                    if self.scalar(false) {
                        return Ok(Some(self.complete()));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Reads the line of a value. Returns whether the outermost value is complete.
    fn line(&mut self) -> Result<bool, &'static str> {
        match self.kind {
            b'+' | b'-' | b':' | b',' | b'(' | b'#' => Ok(self.scalar(false)),
            b'_' => Ok(self.scalar(true)),
            b'$' | b'=' | b'!' | b'*' | b'~' | b'>' | b'%' | b'|' => {
                let length = number_of(&self.head).ok_or("length that is no number")?;
                let Ok(length) = u64::try_from(length) else {
                    return if length == -1 && matches!(self.kind, b'$' | b'*') {
                        Ok(self.scalar(true))
                    } else {
                        Err("negative length of a value")
                    };
                };
                if length > MAX_LENGTH.unsigned_abs() {
                    return Err("impossible length of a value");
                }
                match self.kind {
                    b'$' | b'=' | b'!' => {
                        (self.head, self.position) = (Head::default(), Position::Body(length + 2));
                        Ok(false)
                    }
                    b'%' | b'|' => self.aggregate(length * 2),
                    _ => self.aggregate(length),
                }
            }
            _ => Err("unknown type of a value"),
        }
    }

    /// Begins an aggregate of `length` values.
    fn aggregate(&mut self, length: u64) -> Result<bool, &'static str> {
        self.position = Position::Between;
        let is_attribute = self.kind == b'|';
        if self.attributes == 0 && is_attribute {
            self.attributes = length;
            return Ok(false);
        }
        if self.attributes == 0 && self.reply.kind == 0 {
            self.reply.kind = self.kind;
        }
        let outstanding = if self.attributes > 0 { &mut self.attributes } else { &mut self.outstanding };
        *outstanding = outstanding.checked_add(length).ok_or("impossible length of a value")?;
        if !is_attribute {
            *outstanding -= 1;
        }
        Ok(self.attributes == 0 && self.outstanding == 0)
    }

    /// Ends a value that contains no others. Returns whether the outermost value is complete.
    fn scalar(&mut self, is_null: bool) -> bool {
        self.position = Position::Between;
        if self.attributes > 0 {
            self.attributes -= 1;
            return false;
        }
        let is_error = matches!(self.kind, b'-' | b'!');
        if self.reply.kind == 0 {
            (self.reply.kind, self.reply.is_null, self.reply.text) = (self.kind, is_null, self.head);
        } else {
            match self.read {
                0 => self.reply.text = self.head,
                2 if self.kind == b':' => self.reply.third = number_of(&self.head),
                _ => {}
            }
            if is_error && self.reply.inner_error.is_none() {
                self.reply.inner_error = Some(code_of(&self.head));
            }
            self.read += 1;
        }
        self.outstanding -= 1;
        self.outstanding == 0
    }

    fn complete(&mut self) -> Reply {
        let reply = std::mem::take(&mut self.reply);
        (self.outstanding, self.read) = (1, 0);
        reply
    }
}
