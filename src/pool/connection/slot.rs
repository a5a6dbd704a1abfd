//! A place of the pool: the object that deadpool counts, with or without a connection.
//!
//! deadpool's `create` returns a vacant slot at once, and the checkout connects afterwards. The slot counts against the
//! pool's maximum meanwhile, and it can outlive the checkout, which deadpool's own future cannot.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::super::backend::Backend;
use super::{Pooled, PooledConnection};

/// A place of the pool. Vacant only while a checkout connects.
pub(crate) struct Slot<M: Backend>(Option<Box<PooledConnection<M>>>);

impl<M: Backend> Slot<M> {
    pub(super) const VACANT: Self = Self(None);

    #[inline]
    pub(in crate::pool) fn is_vacant(&self) -> bool {
        self.0.is_none()
    }
}

impl<M: Backend> Deref for Slot<M> {
    type Target = PooledConnection<M>;

    #[inline]
    #[allow(clippy::expect_used, reason = "only a `Place` is vacant, and gives no access")]
    fn deref(&self) -> &PooledConnection<M> {
        self.0.as_ref().expect("the slot has a connection")
    }
}

impl<M: Backend> DerefMut for Slot<M> {
    #[inline]
    #[allow(clippy::expect_used, reason = "only a `Place` is vacant, and gives no access")]
    fn deref_mut(&mut self) -> &mut PooledConnection<M> {
        self.0.as_mut().expect("the slot has a connection")
    }
}

/// A vacant slot that was taken from deadpool's pool. Dropping it frees the place: a vacant slot is never idle.
pub(in crate::pool) struct Place<M: Backend>(Option<Pooled<M>>);

impl<M: Backend> Place<M> {
    pub(in crate::pool) fn new(vacant: Pooled<M>) -> Self {
        debug_assert!(vacant.is_vacant(), "it has a connection");
        Self(Some(vacant))
    }

    /// Returns the place of a connection that leaves the pool, and the connection.
    fn vacate(mut object: Pooled<M>) -> (Self, Option<Box<PooledConnection<M>>>) {
        let connection = object.0.take();
        (Self(Some(object)), connection)
    }

    /// Puts a connection into the place.
    #[allow(clippy::expect_used, reason = "only drop and this take the object")]
    pub(super) fn fill(mut self, connection: Box<PooledConnection<M>>) -> Pooled<M> {
        let mut object = self.0.take().expect("a place that is not dropped has its slot");
        object.0 = Some(connection);
        object
    }
}

impl<M: Backend> fmt::Debug for Place<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

/// Drops the connection of a place, after it was recorded as closed, and frees the place; or withholds the place, if the
/// pool has more than its maximum.
#[cold]
pub(in crate::pool) fn free_place<M: Backend>(object: Pooled<M>) {
    let pool = Pooled::pool(&object).filter(|pool| pool.manager().places().has_excess());
    let Some(pool) = pool else { return drop(Pooled::take(object)) };
    let (place, connection) = Place::vacate(object);
    if let Some(mut connection) = connection {
        pool.manager().backend().detach(&mut connection.connection);
    }
    drop(pool.manager().places().withhold(place));
}

impl<M: Backend> Drop for Place<M> {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Pooled::take(object));
        }
    }
}
