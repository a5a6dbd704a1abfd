//! The observer of Redis's protocol, RESP2 and RESP3: it reads names of commands and codes of errors as they pass, and no
//! key, value or message.
//!
//! [`requests`] splits what the client sends into commands, [`replies`] what the server sends into values, and [`state`]
//! follows which reply belongs to which command. [`SessionState`] is what a holder has changed in its session.

#[cfg(any(test, fuzzing))]
pub(super) mod checker;
mod commands;
mod observer;
mod replies;
mod requests;
mod session;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use self::observer::RespObserver;
pub(crate) use self::session::SessionState;

/// The first bytes of a text: enough to recognize a word.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    bytes: [u8; Self::MAX],
    /// The length of the whole text.
    length: u64,
}

impl Head {
    const MAX: usize = 32;

    /// Adds what follows.
    fn push(&mut self, part: &[u8]) {
        let from = usize::try_from(self.length).unwrap_or(usize::MAX).min(Self::MAX);
        let taken = part.len().min(Self::MAX - from);
        self.bytes[from..from + taken].copy_from_slice(&part[..taken]);
        self.length = self.length.saturating_add(part.len() as u64);
    }

    /// Returns the beginning of the text.
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::try_from(self.length).unwrap_or(usize::MAX).min(Self::MAX)]
    }

    /// Returns the text as a number; `None` if it is none.
    fn number(&self) -> Option<i64> {
        if self.length > 20 {
            return None;
        }
        std::str::from_utf8(self.as_bytes()).ok()?.parse().ok()
    }
}
