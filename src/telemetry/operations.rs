//! The names under which checkouts are counted: bounded, resolved before the hot path, read without a lock.

use std::panic::Location;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};

pub(crate) use super::names::Interned;
use super::names::{IDS, MAX_NAMES, Names};

/// How many operations a pool tells apart; all others are counted as `other`.
pub const MAX_OPERATIONS: usize = MAX_NAMES;

/// The longest name, in bytes; a longer one is cut there.
pub const MAX_NAME_BYTES: usize = 120;

/// Ids run from 0 (`other`) to [`MAX_OPERATIONS`].
pub(crate) const OPERATION_IDS: usize = IDS;

const SITE_SLOTS: usize = 2048;
/// How far a call site may lie from where its address hashes to.
const SITE_PROBES: usize = 16;

/// A name of this pool, as an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

    /// The id from its index, for those who stored it in fewer bits; an index that is none is `other`.
    pub(crate) fn from_index(index: u64) -> Self {
        match u16::try_from(index) {
            Ok(id) if (id as usize) < OPERATION_IDS => Self(id),
            _ => Self::OTHER,
        }
    }
}

/// Where a checkout was asked for, as an index; none if the table of places was full.
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
    /// Address of the `Location`, zero while the slot is free. Written after the others.
    key: AtomicUsize,
    /// The operation that is named after it, or `UNNAMED` while none is.
    id: AtomicU16,
    location: OnceLock<&'static Location<'static>>,
}

impl Default for Site {
    fn default() -> Self {
        Self { key: AtomicUsize::new(0), id: AtomicU16::new(UNNAMED), location: OnceLock::new() }
    }
}

/// Stands for an operation that has no name from its place.
const UNNAMED: u16 = u16::MAX;

/// The names of one pool.
#[derive(Debug)]
pub(crate) struct Operations {
    names: Names,
    by_site: Box<[Site]>,
}

impl Operations {
    pub(crate) fn new() -> Self {
        Self { names: Names::new(MAX_NAME_BYTES), by_site: (0..SITE_SLOTS).map(|_| Site::default()).collect() }
    }

    pub(crate) fn name(&self, id: OperationId) -> &str {
        self.names.name(id.0)
    }

    /// The same, for who keeps it.
    pub(crate) fn shared_name(&self, id: OperationId) -> Arc<str> {
        self.names.shared_name(id.0)
    }

    /// The ids that have names, `other` first.
    pub(crate) fn ids(&self) -> impl Iterator<Item = (OperationId, &Arc<str>)> {
        self.names.ids().map(|(id, name)| (OperationId(id), name))
    }

    /// The id of a name, which gets one if there is room.
    pub(crate) fn by_name(&self, name: &str) -> Interned<OperationId> {
        match self.names.id(name) {
            Interned::Known(id) => Interned::Known(OperationId(id)),
            Interned::Refused => Interned::Refused,
        }
    }

    /// The id of a call site, and of the operation that is named after it: the file and line where the checkout was
    /// asked for.
    #[inline]
    pub(crate) fn by_site(&self, site: &'static Location<'static>) -> (Interned<OperationId>, SiteId) {
        let place = self.site(site);
        if let Some(slot) = self.by_site.get(usize::from(place.0)) {
            let id = slot.id.load(Ordering::Relaxed);
            if id != UNNAMED {
                return (Interned::Known(OperationId(id)), place);
            }
        }
        (self.name_site(site, place), place)
    }

    /// The id of a call site, which gets one if there is room.
    #[inline]
    pub(crate) fn site(&self, site: &'static Location<'static>) -> SiteId {
        let key = std::ptr::from_ref(site).addr();
        let start = site_slot(key);
        if self.by_site[start].key.load(Ordering::Acquire) == key {
            return site_id(start);
        }
        self.probe_site(site, key, start)
    }

    /// Where that is.
    pub(crate) fn location(&self, place: SiteId) -> Option<&'static Location<'static>> {
        self.by_site.get(usize::from(place.0))?.location.get().copied()
    }

    #[cold]
    fn name_site(&self, site: &'static Location<'static>, place: SiteId) -> Interned<OperationId> {
        let interned = self.by_name(&site_name(site));
        if let (Interned::Known(id), Some(slot)) = (interned, self.by_site.get(usize::from(place.0))) {
            slot.id.store(id.0, Ordering::Relaxed);
        }
        interned
    }

    #[cold]
    fn probe_site(&self, site: &'static Location<'static>, key: usize, start: usize) -> SiteId {
        let places = || (0..SITE_PROBES).map(|step| (start + step) % SITE_SLOTS);
        for place in places() {
            match self.by_site[place].key.load(Ordering::Acquire) {
                0 => break,
                found if found == key => return site_id(place),
                _ => {}
            }
        }
        // The lock makes this the only writer.
        let _taken = self.names.taken.lock().unwrap_or_else(PoisonError::into_inner);
        for place in places() {
            let slot = &self.by_site[place];
            match slot.key.load(Ordering::Relaxed) {
                0 => {
                    let _ = slot.location.set(site);
                    slot.key.store(key, Ordering::Release);
                    return site_id(place);
                }
                found if found == key => return site_id(place),
                _ => {}
            }
        }
        SiteId::NONE
    }
}

fn site_id(place: usize) -> SiteId {
    u16::try_from(place).map_or(SiteId::NONE, SiteId)
}

/// Locations are 24 bytes each and lie side by side: divide, then spread.
fn site_slot(address: usize) -> usize {
    ((address >> 3).wrapping_mul(0x9E37_79B9) >> 7) % SITE_SLOTS
}

/// `src/orders.rs:42`; of a path that is absolute, as those of dependencies are, only the end.
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
    fn a_name_keeps_its_id() {
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
    fn names_beyond_the_bound_are_other_and_only_the_first_is_reported() {
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
    fn a_call_site_is_named_by_file_and_line() {
        let operations = Operations::new();
        let site = Location::caller();
        let (id, place) = operations.by_site(site);
        let id = known(id);
        assert_eq!((Interned::Known(id), place), operations.by_site(site));
        assert_eq!(operations.location(place), Some(site));
        assert_eq!(operations.name(id), format!("src/telemetry/operations.rs:{}", site.line()));
    }

    #[test]
    fn a_call_site_of_a_named_operation_takes_no_name() {
        let operations = Operations::new();
        let site = Location::caller();
        let place = operations.site(site);
        assert_eq!(operations.location(place), Some(site));
        assert_eq!(operations.ids().count(), 1);
        assert_eq!(operations.by_site(site).1, place);
        assert_eq!(operations.ids().count(), 2);
        assert_eq!(operations.location(SiteId::NONE), None);
    }

    #[test]
    fn the_empty_name_and_other_are_other() {
        let operations = Operations::new();
        assert_eq!(known(operations.by_name("")), OperationId::OTHER);
        assert_eq!(known(operations.by_name("other")), OperationId::OTHER);
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let operations = Operations::new();
        let id = known(operations.by_name(&"é".repeat(100)));
        assert_eq!(operations.name(id), "é".repeat(60));
        assert_eq!(id, known(operations.by_name(&"é".repeat(61))));
    }

    #[test]
    fn threads_that_meet_a_name_together_get_one_id() {
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
