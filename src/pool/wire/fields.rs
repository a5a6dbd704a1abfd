//! What an `ErrorResponse` says of itself.

use crate::labels::ErrorCode;
use crate::telemetry::evidence::ServerError;

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
    /// The routine of the server that reported it.
    routine: Word,
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
                (Some(b'R'), letter) => self.routine.push(letter),
                (Some(_), _) => {}
            }
        }
    }

    pub(super) fn complaint(&self) -> ServerError {
        ServerError { code: self.code(), stale_plan: self.is_of_a_stale_plan(), fatal: self.is_fatal() }
    }

    /// Whether it is that "cached plan must not change result type". The message is in the server's language, and the
    /// code is that of all features that are missing; the routine is `RevalidateCachedQuery`, or `…Plan` before
    /// PostgreSQL 9.2.
    fn is_of_a_stale_plan(&self) -> bool {
        let lengths = ["RevalidateCachedQuery".len(), "RevalidateCachedPlan".len()];
        self.code.get() == Some(b"0A000") && self.routine.bytes == *b"Reval" && lengths.contains(&self.routine.length)
    }

    fn code(&self) -> ErrorCode {
        match self.code.get().map(|code| std::str::from_utf8(code)) {
            Some(Ok(code)) => ErrorCode::word(code),
            _ => ErrorCode::OTHER,
        }
    }

    fn is_fatal(&self) -> bool {
        let severity = if self.severity.length > 0 { &self.severity } else { &self.translated };
        matches!(severity.get(), Some(b"FATAL" | b"PANIC"))
    }
}
