//! Tables of names that become label values: bounded in number and length, read without a lock, never removed.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::text::{prefix, printable};

/// The maximum number of names in a table; further ones are counted as `other`.
pub(crate) const MAX_NAMES: usize = 200;

/// The number of ids: from 0 (`other`) to [`MAX_NAMES`].
pub(crate) const NAME_IDS: usize = MAX_NAMES + 1;

const HASH_SLOTS: usize = 512;
const RECENT_SLOTS: usize = 64;
/// Keeps as many bits of a hash as the index of a recent slot has.
const RECENT_SHIFT: u32 = u64::BITS - RECENT_SLOTS.ilog2();

/// The result of interning a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interned<I> {
    /// The name's id, which is `other` if the table is full.
    Known(I),
    /// The table is full, and this is the first name that was refused.
    Refused,
}

/// A table of names.
#[derive(Debug)]
pub(crate) struct NameTable {
    /// Shared with the snapshots.
    names: Box<[OnceLock<Arc<str>>]>,
    other: Arc<str>,
    /// An open-addressing hash table of ids. Entries are never removed; zero marks a free slot.
    slots: Box<[AtomicU16]>,
    /// The ids of the names that were looked up first, by a cheap hash of the name: most are looked up again and again. Zero
    /// marks a free slot.
    recent: Box<[AtomicU16; RECENT_SLOTS]>,
    /// The number of ids in use, including `other`. Its lock serializes the writers.
    pub(super) taken: Mutex<usize>,
    full: AtomicBool,
    refused: AtomicBool,
    /// The maximum length of a name in bytes; longer names are truncated.
    max_bytes: usize,
}

impl NameTable {
    pub(crate) fn new(max_bytes: usize) -> Self {
        let names: Box<[OnceLock<Arc<str>>]> = (0..NAME_IDS).map(|_| OnceLock::new()).collect();
        let other: Arc<str> = "other".into();
        let _ = names[0].set(Arc::clone(&other));
        Self {
            names,
            other,
            slots: (0..HASH_SLOTS).map(|_| AtomicU16::new(0)).collect(),
            recent: Box::new([const { AtomicU16::new(0) }; RECENT_SLOTS]),
            taken: Mutex::new(1),
            full: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            max_bytes,
        }
    }

    /// Returns the name of an id.
    pub(crate) fn name(&self, id: u16) -> &str {
        self.shared(id)
    }

    /// Returns a shared handle to the name of an id.
    pub(crate) fn shared(&self, id: u16) -> &Arc<str> {
        self.names.get(usize::from(id)).and_then(OnceLock::get).unwrap_or(&self.other)
    }

    /// Returns the ids in use and their names, `other` first.
    pub(crate) fn ids(&self) -> impl Iterator<Item = (u16, &Arc<str>)> {
        (0u16..).zip(self.names.iter()).map_while(|(id, name)| Some((id, name.get()?)))
    }

    /// Returns the id of a name, adding the name if there is room. Unprintable characters are escaped, so that the name
    /// can be shown wherever names are.
    #[inline]
    pub(crate) fn id(&self, name: &str) -> Interned<u16> {
        let recent = &self.recent[recent_slot(name)];
        // Relaxed: the name is read through a lock of its own, and compared.
        let id = recent.load(Ordering::Relaxed);
        if id != 0 && self.name(id) == name {
            return Interned::Known(id);
        }
        let interned = self.look_up(name);
        // The first name keeps the slot: two that took it from each other would write a shared cache line again and again,
        // as would a name that is in the table in another form.
        if let Interned::Known(known) = interned
            && id == 0
            && self.name(known) == name
        {
            recent.store(known, Ordering::Relaxed);
        }
        interned
    }

    #[inline(never)]
    fn look_up(&self, name: &str) -> Interned<u16> {
        let name = prefix(name, self.max_bytes);
        if name.is_empty() || name == "other" {
            return Interned::Known(0);
        }
        if let Ok(id) = self.find(name) {
            return Interned::Known(id);
        }
        // Only now, since a name in the table is printable.
        let printable = printable(name);
        let name = prefix(&printable, self.max_bytes);
        if self.full.load(Ordering::Relaxed) {
            // An unprintable name may be in the table in its printable form.
            return self.find(name).map_or_else(|_| self.refuse(), Interned::Known);
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        self.add(&mut taken, name)
    }

    /// Returns the id of a name, or else the free slot for it.
    fn find(&self, name: &str) -> Result<u16, usize> {
        let mut slot = slot_of(name);
        loop {
            match self.slots[slot].load(Ordering::Acquire) {
                0 => return Err(slot),
                id if self.name(id) == name => return Ok(id),
                _ => slot = (slot + 1) % HASH_SLOTS,
            }
        }
    }

    fn add(&self, taken: &mut usize, name: &str) -> Interned<u16> {
        let slot = match self.find(name) {
            Ok(id) => return Interned::Known(id),
            Err(slot) => slot,
        };
        if *taken >= NAME_IDS {
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
}

/// Returns the slot of a name among the recent ones, from its length and up to 24 of its bytes.
#[inline]
fn recent_slot(name: &str) -> usize {
    let bytes = name.as_bytes();
    let part = |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |part| u64::from_le_bytes(*part));
    // Of a long name, only the beginning, the middle and the end are read.
    let hash = match bytes.len() {
        0..8 => fnv(bytes),
        len => part(0) ^ part(len / 2 - 4).rotate_left(21) ^ part(len - 8).rotate_left(42) ^ len as u64,
    };
    // Fibonacci hashing: the upper bits of the product depend on all of the factor's.
    usize::try_from(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> RECENT_SHIFT).unwrap_or(0)
}

/// Returns the first slot for a name. FNV-1a suffices: names are short and the table is bounded, so collisions cost
/// little.
fn slot_of(name: &str) -> usize {
    usize::try_from(fnv(name.as_bytes()) % HASH_SLOTS as u64).unwrap_or(0)
}

/// Returns the 64-bit FNV-1a hash.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_same_id_each_time() {
        let table = NameTable::new(16);
        let names =
            ["/orders/{id}", "/orders/{xx}", "/ordxrs/{id}", "", "other", "a name that is longer than it may be"];
        let ids: Vec<_> = names.iter().map(|name| table.id(name)).collect();
        assert_eq!(ids, [1, 2, 3, 0, 0, 4].map(Interned::Known));
        for _ in 0..3 {
            for (name, id) in names.iter().zip(&ids) {
                assert_eq!(table.id(name), *id, "{name}");
            }
        }
        assert_eq!(table.id("a name that is longer, too"), Interned::Known(4), "it has the same beginning");
    }

    #[test]
    fn first_of_two_names_keeps_their_slot() {
        let table = NameTable::new(64);
        // They differ in bytes that the hash does not read.
        let names = ["/api/v1/users/{id}/orders/{order}", "/api/v1/carts/{id}/orders/{order}"];
        let slot = recent_slot(names[0]);
        assert_eq!(recent_slot(names[1]), slot);
        for _ in 0..3 {
            assert_eq!(names.map(|name| table.id(name)), [1, 2].map(Interned::Known));
            assert_eq!(table.recent[slot].load(Ordering::Relaxed), 1);
        }
    }

    #[test]
    fn full_table_still_knows_its_unprintable_names() {
        let table = NameTable::new(64);
        assert_eq!(table.id("two\nlines"), Interned::Known(1));
        for index in 2..NAME_IDS {
            assert_eq!(table.id(&format!("name {index}")), Interned::Known(u16::try_from(index).unwrap()));
        }
        assert_eq!(table.id("further"), Interned::Refused);
        assert_eq!(table.id("further\nlines"), Interned::Known(0));
        assert_eq!(table.id("two\nlines"), Interned::Known(1));
    }
}
