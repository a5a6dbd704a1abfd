//! Traps: faults that a pattern in the forwarded bytes triggers.

use std::cell::{Cell, RefCell};

/// The armed traps, and the number of those that have sprung.
#[derive(Default)]
pub(super) struct Traps {
    armed: RefCell<Vec<Trap>>,
    sprung: Cell<u64>,
}

struct Trap {
    action: TrapAction,
    pattern: Vec<u8>,
}

/// What a trap does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TrapAction {
    Before,
    Unanswered,
    After,
    /// Changes the pattern's last byte.
    Garble,
}

/// The sender of bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Client,
    Server,
}

impl TrapAction {
    /// Returns whose bytes contain the pattern.
    fn sender(self) -> Sender {
        match self {
            Self::Before | Self::Unanswered => Sender::Client,
            Self::After | Self::Garble => Sender::Server,
        }
    }
}

impl Traps {
    /// Arms a trap.
    pub(super) fn arm(&self, action: TrapAction, pattern: Vec<u8>) {
        self.armed.borrow_mut().push(Trap { action, pattern });
    }

    /// Removes all traps that have not sprung.
    pub(super) fn disarm(&self) {
        self.armed.borrow_mut().clear();
    }

    /// Returns how many traps have sprung.
    pub(super) fn sprung(&self) -> u64 {
        self.sprung.get()
    }

    /// Returns the trap that this chunk springs, and where in the chunk its pattern ends. `tail` is the end of the
    /// previous bytes, as a pattern may be split.
    pub(super) fn spring(&self, sender: Sender, tail: &mut Vec<u8>, chunk: &[u8]) -> Option<(TrapAction, usize)> {
        let mut traps = self.armed.borrow_mut();
        let Some(longest) = traps.iter().map(|trap| trap.pattern.len()).max() else {
            tail.clear();
            return None;
        };
        let seen = tail.len();
        tail.extend_from_slice(chunk);
        let sprung = traps.iter().enumerate().find_map(|(index, trap)| {
            // A pattern that ends in the tail was sent before the trap was set.
            let begin = (seen + 1).saturating_sub(trap.pattern.len());
            let mut windows = tail[begin..].windows(trap.pattern.len());
            let at = windows.position(|at| trap.action.sender() == sender && at == trap.pattern)?;
            Some((index, begin + at + trap.pattern.len() - seen))
        });
        tail.drain(..(tail.len() + 1).saturating_sub(longest));
        let (index, end) = sprung?;
        let trap = traps.remove(index);
        self.sprung.set(self.sprung.get() + 1);
        Some((trap.action, end))
    }
}
