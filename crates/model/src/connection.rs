//! A connection's packed state and counters, against readers.

use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::check;
use crate::labels::ConnectionState;
use crate::telemetry::connection::State;
use crate::telemetry::owned::OwnedCounter;

/// The state keeps times in units of 1,024 ns.
const UNIT: u64 = 1_024;

/// How many uses the writer has. The first begins at time 1.
const USES: u64 = 2;

struct Connection {
    state: State,
    returned: OwnedCounter,
}

/// A use that is seen as ended in the counters is not seen as in progress in the state.
pub fn reader_counts_no_use_twice() {
    check(|| {
        let connection = Arc::new(Connection { state: State::idle(), returned: OwnedCounter::default() });
        let writer = {
            let connection = Arc::clone(&connection);
            thread::spawn(move || {
                for number in 1..=USES {
                    connection.state.set(ConnectionState::Used, number * UNIT);
                    // As a return does it.
                    connection.state.set(ConnectionState::Idle, number * UNIT);
                    State::before_counting();
                    connection.returned.add(1);
                }
            })
        };
        let mut before = 0;
        for _ in 0..2 {
            let returned = connection.returned.get();
            let state = connection.state.after_counters();
            let current = state.since.as_nanos() / UNIT;
            assert!(returned >= before, "a counter decreased");
            // The use of this number has ended.
            assert!(current >= returned, "use {current} is seen after the end of {returned}");
            assert!(!(state.is_used() && current == returned && returned > 0), "use {returned} is counted twice");
            before = returned;
        }
        writer.join().expect("no panic");
        assert_eq!(connection.returned.get(), USES);
    });
}

/// Writers that pass the connection on under a lock lose no increment, although none is atomic.
pub fn writers_take_turns() {
    check(|| {
        let connection = Arc::new(Mutex::new(()));
        let counter = Arc::new(OwnedCounter::default());
        let writers = [(); 2].map(|()| {
            let (connection, counter) = (Arc::clone(&connection), Arc::clone(&counter));
            thread::spawn(move || {
                let held = connection.lock().expect("no panic");
                counter.add(1);
                drop(held);
            })
        });
        let seen = counter.get();
        assert!(seen <= 2);
        for writer in writers {
            writer.join().expect("no panic");
        }
        assert_eq!(counter.get(), 2);
    });
}
