//! Names that become label values: bounded in number and length, found without a lock, never forgotten.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// How many names a table tells apart; all others are `other`.
pub(crate) const MAX_NAMES: usize = 200;

/// Ids run from 0 (`other`) to [`MAX_NAMES`].
pub(crate) const IDS: usize = MAX_NAMES + 1;

const SLOTS: usize = 512;

/// Whether a name was known, and the first time that one was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interned<I> {
    Known(I),
    /// The table is full, and this is the first name to find it so.
    Refused,
}

/// A table of names.
#[derive(Debug)]
pub(crate) struct Names {
    /// Shared with every snapshot, which so copies none.
    names: Box<[OnceLock<Arc<str>>]>,
    other: Arc<str>,
    /// Open addressing, entries never leave: zero is free, else an id.
    slots: Box<[AtomicU16]>,
    /// How many ids are taken, `other` included; the lock is what makes a writer the only one.
    pub(super) taken: Mutex<usize>,
    full: AtomicBool,
    refused: AtomicBool,
    /// The longest name, in bytes; a longer one is cut there.
    longest: usize,
}

impl Names {
    pub(crate) fn new(longest: usize) -> Self {
        let names: Box<[OnceLock<Arc<str>>]> = (0..IDS).map(|_| OnceLock::new()).collect();
        let other: Arc<str> = "other".into();
        let _ = names[0].set(Arc::clone(&other));
        Self {
            names,
            other,
            slots: (0..SLOTS).map(|_| AtomicU16::new(0)).collect(),
            taken: Mutex::new(1),
            full: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            longest,
        }
    }

    pub(crate) fn name(&self, id: u16) -> &str {
        self.shared(id)
    }

    /// The same, for who keeps it.
    pub(crate) fn shared_name(&self, id: u16) -> Arc<str> {
        Arc::clone(self.shared(id))
    }

    /// What that is.
    pub(crate) fn shared(&self, id: u16) -> &Arc<str> {
        self.names.get(usize::from(id)).and_then(OnceLock::get).unwrap_or(&self.other)
    }

    /// The ids that have names, `other` first.
    pub(crate) fn ids(&self) -> impl Iterator<Item = (u16, &Arc<str>)> {
        (0u16..).zip(self.names.iter()).map_while(|(id, name)| Some((id, name.get()?)))
    }

    /// The id of a name, which gets one if there is room.
    pub(crate) fn id(&self, name: &str) -> Interned<u16> {
        let name = self.truncated(name);
        if name.is_empty() || name == "other" {
            return Interned::Known(0);
        }
        if let Ok(id) = self.find(name) {
            return Interned::Known(id);
        }
        if self.full.load(Ordering::Relaxed) {
            return self.refuse();
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        self.add(&mut taken, name)
    }

    /// The id, or the free slot where the name belongs.
    fn find(&self, name: &str) -> Result<u16, usize> {
        let mut slot = slot_of(name);
        loop {
            match self.slots[slot].load(Ordering::Acquire) {
                0 => return Err(slot),
                id if self.name(id) == name => return Ok(id),
                _ => slot = (slot + 1) % SLOTS,
            }
        }
    }

    fn add(&self, taken: &mut usize, name: &str) -> Interned<u16> {
        let slot = match self.find(name) {
            Ok(id) => return Interned::Known(id),
            Err(slot) => slot,
        };
        if *taken >= IDS {
            self.full.store(true, Ordering::Relaxed);
            return self.refuse();
        }
        let Ok(id) = u16::try_from(*taken) else { return self.refuse() };
        let _ = self.names[*taken].set(name.into());
        self.slots[slot].store(id, Ordering::Release);
        *taken += 1;
        Interned::Known(id)
    }

    fn refuse(&self) -> Interned<u16> {
        if self.refused.swap(true, Ordering::Relaxed) { Interned::Known(0) } else { Interned::Refused }
    }

    fn truncated<'a>(&self, name: &'a str) -> &'a str {
        let mut end = name.len().min(self.longest);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        &name[..end]
    }
}

/// FNV-1a: names are short, and the table is bounded, so that nobody gains by making them collide.
fn slot_of(name: &str) -> usize {
    usize::try_from(fnv(name.as_bytes()) % SLOTS as u64).unwrap_or(0)
}

/// FNV-1a, of 64 bits.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
