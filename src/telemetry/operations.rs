//! The operations and call sites of a pool: interned before the hot path, bounded, read without a lock.

use std::panic::Location;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};

pub(crate) use super::names::Interned;
use super::names::{MAX_NAMES, NAME_IDS, NameTable};

/// The maximum number of operations of a pool; further ones are counted as `other`.
pub const MAX_OPERATIONS: usize = MAX_NAMES;

/// The maximum length of an operation's name in bytes; longer names are truncated.
pub const MAX_NAME_BYTES: usize = 120;

/// The number of operation ids: from 0 (`other`) to [`MAX_OPERATIONS`].
pub(crate) const OPERATION_IDS: usize = NAME_IDS;

const SITE_SLOTS: usize = 2048;
/// The maximum number of slots that are probed for a call site.
const MAX_SITE_PROBES: usize = 16;

/// The index of an operation in its pool's table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct OperationId(u16);

impl OperationId {
    pub(crate) const OTHER: Self = Self(0);

    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    pub(crate) const fn as_u16(self) -> u16 {
        self.0
    }

    /// Returns the id with this index, or `other` if there is none.
    pub(crate) fn from_index(index: u64) -> Self {
        match u16::try_from(index) {
            Ok(id) if (id as usize) < OPERATION_IDS => Self(id),
            _ => Self::OTHER,
        }
    }
}

/// The index of a call site in its pool's table, or [`SiteId::NONE`] if the table was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SiteId(u16);

impl SiteId {
    pub(crate) const NONE: Self = Self(u16::MAX);

    pub(crate) const fn as_u16(self) -> u16 {
        self.0
    }

    pub(crate) const fn from_u16(id: u16) -> Self {
        Self(id)
    }
}

#[derive(Debug)]
struct Site {
    /// The address of the `Location`; zero while the slot is free. Written last.
    key: AtomicUsize,
    /// The operation named after the call site, or `UNNAMED` if there is none.
    operation: AtomicU16,
    location: OnceLock<&'static Location<'static>>,
}

impl Default for Site {
    fn default() -> Self {
        Self { key: AtomicUsize::new(0), operation: AtomicU16::new(UNNAMED), location: OnceLock::new() }
    }
}

/// Marks a call site that no operation is named after.
const UNNAMED: u16 = u16::MAX;

/// The operations and call sites of one pool.
#[derive(Debug)]
pub(crate) struct Operations {
    names: NameTable,
    /// An open-addressing hash table. Entries are never removed.
    sites: Box<[Site]>,
}

impl Operations {
    pub(crate) fn new() -> Self {
        Self { names: NameTable::new(MAX_NAME_BYTES), sites: (0..SITE_SLOTS).map(|_| Site::default()).collect() }
    }

    /// Returns the name of an operation.
    pub(crate) fn name(&self, id: OperationId) -> &str {
        self.names.name(id.0)
    }

    /// Returns a shared handle to the name of an operation.
    pub(crate) fn shared_name(&self, id: OperationId) -> Arc<str> {
        Arc::clone(self.names.shared(id.0))
    }

    /// Returns the ids in use and their names, `other` first.
    pub(crate) fn ids(&self) -> impl Iterator<Item = (OperationId, &Arc<str>)> {
        self.names.ids().map(|(id, name)| (OperationId(id), name))
    }

    /// Returns the operation of this name, adding it if there is room.
    pub(crate) fn by_name(&self, name: &str) -> Interned<OperationId> {
        match self.names.id(name) {
            Interned::Known(id) => Interned::Known(OperationId(id)),
            Interned::Refused => Interned::Refused,
        }
    }

    /// Returns the id of a call site, and the operation named after its file and line.
    #[inline]
    pub(crate) fn by_site(&self, site: &'static Location<'static>) -> (Interned<OperationId>, SiteId) {
        let id = self.site(site);
        if let Some(slot) = self.sites.get(usize::from(id.0)) {
            let operation = slot.operation.load(Ordering::Relaxed);
            if operation != UNNAMED {
                return (Interned::Known(OperationId(operation)), id);
            }
        }
        (self.name_site(site, id), id)
    }

    /// Returns the id of a call site, adding it if there is room.
    #[inline]
    pub(crate) fn site(&self, site: &'static Location<'static>) -> SiteId {
        let key = std::ptr::from_ref(site).addr();
        let start = site_slot(key);
        if self.sites[start].key.load(Ordering::Acquire) == key {
            return site_id(start);
        }
        self.probe_site(site, key, start)
    }

    /// Returns the location of a call site, or `None` for [`SiteId::NONE`].
    pub(crate) fn location(&self, id: SiteId) -> Option<&'static Location<'static>> {
        self.sites.get(usize::from(id.0))?.location.get().copied()
    }

    #[cold]
    fn name_site(&self, site: &'static Location<'static>, id: SiteId) -> Interned<OperationId> {
        let interned = self.by_name(&site_name(site));
        if let (Interned::Known(operation), Some(slot)) = (interned, self.sites.get(usize::from(id.0))) {
            slot.operation.store(operation.0, Ordering::Relaxed);
        }
        interned
    }

    #[cold]
    fn probe_site(&self, site: &'static Location<'static>, key: usize, start: usize) -> SiteId {
        let indices = || (0..MAX_SITE_PROBES).map(|step| (start + step) % SITE_SLOTS);
        for index in indices() {
            match self.sites[index].key.load(Ordering::Acquire) {
                0 => break,
                found if found == key => return site_id(index),
                _ => {}
            }
        }
        // The lock serializes the writers.
        let _taken = self.names.taken.lock().unwrap_or_else(PoisonError::into_inner);
        for index in indices() {
            let slot = &self.sites[index];
            match slot.key.load(Ordering::Relaxed) {
                0 => {
                    let _ = slot.location.set(site);
                    slot.key.store(key, Ordering::Release);
                    return site_id(index);
                }
                found if found == key => return site_id(index),
                _ => {}
            }
        }
        SiteId::NONE
    }
}

fn site_id(index: usize) -> SiteId {
    u16::try_from(index).map_or(SiteId::NONE, SiteId)
}

/// Returns the first slot for a location. Locations are 24 bytes each and adjacent in memory, hence the shift.
fn site_slot(address: usize) -> usize {
    ((address >> 3).wrapping_mul(0x9E37_79B9) >> 7) % SITE_SLOTS
}

/// Returns file and line, as in `src/orders.rs:42`. Absolute paths, such as those of dependencies, are shortened to
/// their last three components.
fn site_name(site: &Location<'_>) -> String {
    let file = site.file();
    let short = if file.starts_with('/') {
        file.rmatch_indices('/').nth(2).map_or(file, |(at, _)| &file[at + 1..])
    } else {
        file
    };
    format!("{short}:{}", site.line())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(interned: Interned<OperationId>) -> OperationId {
        match interned {
            Interned::Known(id) => id,
            Interned::Refused => panic!("refused"),
        }
    }

    #[test]
    fn name_keeps_its_id() {
        let operations = Operations::new();
        let first = known(operations.by_name("list_orders"));
        let second = known(operations.by_name("add_order"));
        assert_ne!(first, second);
        assert_eq!(first, known(operations.by_name("list_orders")));
        assert_eq!(operations.name(second), "add_order");
        let names: Vec<_> = operations.ids().map(|(_, name)| &**name).collect();
        assert_eq!(names, ["other", "list_orders", "add_order"]);
    }

    #[test]
    fn names_beyond_the_limit_are_other() {
        let operations = Operations::new();
        for n in 0..MAX_OPERATIONS {
            assert_ne!(known(operations.by_name(&format!("op{n}"))), OperationId::OTHER);
        }
        assert_eq!(operations.by_name("one too many"), Interned::Refused);
        assert_eq!(operations.by_name("another"), Interned::Known(OperationId::OTHER));
        assert_eq!(operations.name(known(operations.by_name("op7"))), "op7");
        assert_eq!(operations.by_site(Location::caller()).0, Interned::Known(OperationId::OTHER));
    }

    #[test]
    fn call_site_is_named_by_file_and_line() {
        let operations = Operations::new();
        let site = Location::caller();
        let (operation, id) = operations.by_site(site);
        let operation = known(operation);
        assert_eq!((Interned::Known(operation), id), operations.by_site(site));
        assert_eq!(operations.location(id), Some(site));
        assert_eq!(operations.name(operation), format!("src/telemetry/operations.rs:{}", site.line()));
    }

    #[test]
    fn call_site_of_a_named_operation_takes_no_name() {
        let operations = Operations::new();
        let site = Location::caller();
        let id = operations.site(site);
        assert_eq!(operations.location(id), Some(site));
        assert_eq!(operations.ids().count(), 1);
        assert_eq!(operations.by_site(site).1, id);
        assert_eq!(operations.ids().count(), 2);
        assert_eq!(operations.location(SiteId::NONE), None);
    }

    #[test]
    fn empty_name_and_other_are_other() {
        let operations = Operations::new();
        assert_eq!(known(operations.by_name("")), OperationId::OTHER);
        assert_eq!(known(operations.by_name("other")), OperationId::OTHER);
    }

    #[test]
    fn long_name_is_truncated_at_a_character_boundary() {
        let operations = Operations::new();
        let id = known(operations.by_name(&"é".repeat(100)));
        assert_eq!(operations.name(id), "é".repeat(60));
        assert_eq!(id, known(operations.by_name(&"é".repeat(61))));
    }

    #[test]
    fn unprintable_name_is_escaped_once() {
        let operations = Operations::new();
        let raw = "a\0b\n\u{1b}[2J\u{9b}\u{202e}";
        let id = known(operations.by_name(raw));
        assert_eq!(operations.name(id), r"a\0b\n\u{1b}[2J\u{9b}\u{202e}");
        assert_eq!((id, id), (known(operations.by_name(raw)), known(operations.by_name(operations.name(id)))));
        let long = known(operations.by_name(&"\0".repeat(100)));
        assert_eq!(operations.name(long), r"\0".repeat(MAX_NAME_BYTES / 2));
        assert_eq!(long, known(operations.by_name(&"\0".repeat(101))));
        assert_eq!(operations.ids().count(), 3);
    }

    #[test]
    fn concurrent_interning_yields_one_id() {
        let operations = Operations::new();
        std::thread::scope(|scope| {
            let ids: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| (0..150).map(|n| known(operations.by_name(&format!("op{n}")))).collect::<Vec<_>>())
                })
                .collect::<Vec<_>>()
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect();
            assert!(ids.iter().all(|other| *other == ids[0]));
        });
        assert_eq!(operations.ids().count(), 151);
    }
}
