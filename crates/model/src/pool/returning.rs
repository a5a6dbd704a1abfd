//! Connections that are returned beyond `pool_size`, and places of a pool whose maximum changes.

use loom::thread;

use crate::check;
use crate::pool::backend::NoBackend;
use crate::pool::connection::{Connection, ObjectPool, Place, Places, PoolState, Pooled, Wakes};
use crate::pool::release::return_connection;
use crate::pool::release::surplus::after_failed_checkout;
use crate::telemetry::ledger::Recorder;

type Shared<T> = std::sync::Arc<T>;

fn pool(pool_size: usize, max: usize) -> ObjectPool<NoBackend> {
    let state = PoolState { recorder: Recorder::new(pool_size, max), gate: Wakes };
    ObjectPool::new(&Shared::new(state), max)
}

/// Of the connections that are returned at once, those beyond `pool_size` are closed, and no other.
pub fn last_return_closes_the_surplus() {
    check(|| {
        let pool = pool(1, 2);
        let returned = [(); 2].map(|()| Pooled::new(Connection::open(pool.shared()), &pool));
        let threads = returned.map(|object| thread::spawn(move || return_connection(object)));
        for thread in threads {
            thread.join().expect("no panic");
        }
        assert_eq!((pool.idle(), pool.shared().recorder.ledger().surplus_closed()), (1, 1));
    });
}

/// A connection that is kept for a checkout in the queue is closed if that gives up.
pub fn cancelled_checkout_leaves_no_surplus() {
    check(|| {
        let pool = pool(1, 2);
        let ledger = pool.shared().recorder.ledger();
        ledger.set_queued(1);
        let returned = [(); 2].map(|()| Pooled::new(Connection::open(pool.shared()), &pool));
        let [first, second] = returned;
        return_connection(first);
        let returning = thread::spawn(move || return_connection(second));
        ledger.set_queued(0);
        after_failed_checkout(&pool);
        returning.join().expect("no panic");
        assert_eq!((pool.idle(), ledger.surplus_closed()), (1, 1));
    });
}

/// The same if another checkout is served meanwhile.
pub fn served_checkout_hides_no_surplus() {
    check(|| {
        let pool = pool(1, 4);
        let ledger = pool.shared().recorder.ledger();
        ledger.set_queued(2);
        for object in [(); 3].map(|()| Pooled::new(Connection::open(pool.shared()), &pool)) {
            return_connection(object);
        }
        let taken = pool.take().expect("an idle connection");
        let serving = {
            let pool = pool.clone();
            thread::spawn(move || {
                pool.shared().recorder.ledger().serve(&taken.meta.stats);
                taken
            })
        };
        ledger.give_up();
        after_failed_checkout(&pool);
        let taken = serving.join().expect("no panic");
        assert_eq!((pool.idle(), ledger.surplus_closed()), (1, 1));
        drop(taken);
    });
}

/// Frees two places in threads, as those of connections that are closed, while the maximum changes. Returns the pool and
/// its places.
fn free_places_while(
    resize: impl FnOnce(&ObjectPool<NoBackend>, &Places<NoBackend>),
) -> (ObjectPool<NoBackend>, Shared<Places<NoBackend>>) {
    let (pool, places) = (pool(2, 2), Shared::new(Places::with_maximum(2)));
    let taken = [(); 2].map(|()| pool.take_place().expect("a place"));
    let threads = taken.map(|place: Place<NoBackend>| {
        let places = Shared::clone(&places);
        thread::spawn(move || {
            if places.has_excess() {
                drop(places.withhold(place));
            }
        })
    });
    resize(&pool, &places);
    for thread in threads {
        thread.join().expect("no panic");
    }
    (pool, places)
}

/// When the maximum shrinks while places are freed, as many are withheld as are beyond it.
pub fn shrunk_pool_withholds_its_places() {
    check(|| {
        let (pool, places) = free_places_while(|pool, places| places.resize(pool, || 1));
        assert_eq!(pool.vacant(), 1 + usize::from(places.has_excess()));
    });
}

/// When the maximum shrinks and grows while places are freed, none is lost or doubled.
pub fn resized_pool_keeps_its_places() {
    check(|| {
        let (pool, places) = free_places_while(|pool, places| {
            places.resize(pool, || 1);
            places.resize(pool, || 2);
        });
        places.resize(&pool, || 3);
        assert_eq!((pool.vacant(), places.has_excess()), (3, false));
    });
}
