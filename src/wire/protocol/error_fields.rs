//! The fields of an `ErrorResponse`.

use crate::labels::ErrorCode;
use crate::telemetry::evidence::ServerError;

/// Extracts the SQLSTATE, the severity and the routine from the fields of an `ErrorResponse`. Each field is a letter
/// and a zero-terminated text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ErrorFields {
    /// The letter of the field that is being read.
    current: Option<u8>,
    code: FieldPrefix,
    /// The severity in English.
    severity: FieldPrefix,
    /// The severity in the server's language, which is all that some poolers send.
    localized_severity: FieldPrefix,
    /// The server's routine that reported the error.
    routine: FieldPrefix,
}

/// The first five bytes of a field's text, and its length.
#[derive(Clone, Copy, Debug, Default)]
struct FieldPrefix {
    bytes: [u8; 5],
    length: usize,
}

impl FieldPrefix {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.length) {
            *slot = byte;
        }
        self.length = self.length.saturating_add(1);
    }

    /// Returns the whole text, if it has five bytes.
    fn whole(&self) -> Option<&[u8; 5]> {
        (self.length == self.bytes.len()).then_some(&self.bytes)
    }
}

impl ErrorFields {
    pub(super) fn read(&mut self, part: &[u8]) {
        for byte in part {
            match (self.current, *byte) {
                (None, kind) => self.current = Some(kind),
                // A zero in place of a letter ends the fields.
                (Some(0), _) => return,
                (Some(_), 0) => self.current = None,
                (Some(b'C'), letter) => self.code.push(letter),
                (Some(b'V'), letter) => self.severity.push(letter),
                (Some(b'S'), letter) => self.localized_severity.push(letter),
                (Some(b'R'), letter) => self.routine.push(letter),
                (Some(_), _) => {}
            }
        }
    }

    pub(super) fn server_error(&self) -> ServerError {
        ServerError { code: self.code(), stale_plan: self.is_stale_plan(), fatal: self.is_fatal() }
    }

    /// Returns whether the error is "cached plan must not change result type". The message is localized, and the code
    /// is that of every unsupported feature; the routine is `RevalidateCachedQuery`, or `RevalidateCachedPlan` before
    /// PostgreSQL 9.2.
    fn is_stale_plan(&self) -> bool {
        let lengths = ["RevalidateCachedQuery".len(), "RevalidateCachedPlan".len()];
        self.code.whole() == Some(b"0A000") && self.routine.bytes == *b"Reval" && lengths.contains(&self.routine.length)
    }

    fn code(&self) -> ErrorCode {
        match self.code.whole().map(|code| std::str::from_utf8(code)) {
            Some(Ok(code)) => ErrorCode::new(code),
            _ => ErrorCode::OTHER,
        }
    }

    fn is_fatal(&self) -> bool {
        let severity = if self.severity.length > 0 { &self.severity } else { &self.localized_severity };
        matches!(severity.whole(), Some(b"FATAL" | b"PANIC"))
    }
}
