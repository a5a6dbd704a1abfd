//! What an `ErrorResponse` says of itself.

use crate::event::ErrorCode;

/// Finds the SQLSTATE and the severity among the fields of an `ErrorResponse`: a letter each, and a text that is ended
/// by a zero.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields {
    within: Option<u8>,
    code: Word,
    /// The severity in English.
    severity: Word,
    /// The severity in the server's language, which is all that some poolers send.
    translated: Word,
}

/// A text of which no more than five bytes matter.
#[derive(Clone, Copy, Debug, Default)]
struct Word {
    bytes: [u8; 5],
    length: usize,
}

impl Word {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
        }
        self.length = self.length.saturating_add(1);
    }

    fn get(&self) -> Option<&[u8; 5]> {
        (self.length == self.bytes.len()).then_some(&self.bytes)
    }
}

impl Fields {
    pub(super) fn read(&mut self, part: &[u8]) {
        for byte in part {
            match (self.within, *byte) {
                (None, kind) => self.within = Some(kind),
                // A field of no kind is the end.
                (Some(0), _) => return,
                (Some(_), 0) => self.within = None,
                (Some(b'C'), letter) => self.code.push(letter),
                (Some(b'V'), letter) => self.severity.push(letter),
                (Some(b'S'), letter) => self.translated.push(letter),
                (Some(_), _) => {}
            }
        }
    }

    pub(super) fn code(&self) -> ErrorCode {
        match self.code.get().map(|code| std::str::from_utf8(code)) {
            Some(Ok(code)) => ErrorCode::word(code),
            _ => ErrorCode::OTHER,
        }
    }

    pub(super) fn is_fatal(&self) -> bool {
        let severity = if self.severity.length > 0 { &self.severity } else { &self.translated };
        matches!(severity.get(), Some(b"FATAL" | b"PANIC"))
    }
}
