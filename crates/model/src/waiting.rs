//! The checkouts in flight, which threads begin and end in shards, against readers.

use loom::sync::Arc;
use loom::thread;

use crate::check;
use crate::labels::Phase;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use crate::telemetry::clock::Nanos;
use crate::telemetry::queue::{Queue, QueueReading};
use crate::telemetry::shards::{Entries, Sharded};

/// A checkout in flight, in two cells that have the same number; zero if there is none.
#[derive(Debug, Default)]
struct Entry {
    number: AtomicU64,
    copy: AtomicU64,
    is_queued: AtomicU64,
    is_suspended: AtomicU64,
}

/// What the threads of a shard have counted.
#[derive(Debug, Default)]
struct Totals {
    begun: usize,
    ended: usize,
}

#[derive(Debug)]
struct Ledger {
    waiting: Sharded<Entry, Totals>,
    queue: Queue,
    is_queued: AtomicBool,
}

/// What a reader has read up to now.
#[derive(Default)]
struct Reader {
    entries: Entries<Entry>,
    begun: usize,
    ended: usize,
}

impl Ledger {
    fn new() -> Self {
        Self { waiting: Sharded::new(2), queue: Queue::default(), is_queued: AtomicBool::default() }
    }

    /// Begins a checkout in the queue, as `Ledger::begin` does it.
    fn begin(&self, thread: usize, number: u64) -> usize {
        let mut shard = self.waiting.local(thread);
        let key = shard.take_key();
        let (entry, totals) = shard.entry(key).expect("it is in use");
        assert_eq!(entry.number.load(Relaxed), 0, "the entry is not vacant");
        entry.copy.store(number, Relaxed);
        entry.is_queued.store(1, Relaxed);
        entry.is_suspended.store(0, Relaxed);
        entry.number.store(number, Relaxed);
        totals.begun += 1;
        self.queue.change(None, Some(Phase::Queue), Nanos::from_nanos(number), &self.is_queued);
        key
    }

    /// Lets a queued checkout connect, or wait for a turn, as `Ledger::change_phase` does it.
    fn leave_queue(&self, thread: usize, key: usize, phase: Phase) {
        let mut shard = self.waiting.local(thread);
        let (entry, _) = shard.entry(key).expect("it is in use");
        entry.is_queued.store(0, Relaxed);
        entry.is_suspended.store(u64::from(phase == Phase::Suspended), Relaxed);
        self.queue.change(Some(Phase::Queue), Some(phase), Nanos::from_nanos(9), &self.is_queued);
    }

    /// Ends a checkout, with or without a connection, as `Ledger::finish` does it.
    fn finish(&self, thread: usize, key: usize, number: u64) {
        let mut shard = self.waiting.local(thread);
        let (entry, totals) = shard.entry(key).expect("it is in use");
        assert_eq!(entry.number.load(Relaxed), number, "the entry is that of another checkout");
        let left = match (entry.is_queued.load(Relaxed), entry.is_suspended.load(Relaxed)) {
            (0, 0) => Phase::Connect,
            (0, _) => Phase::Suspended,
            _ => Phase::Queue,
        };
        entry.number.store(0, Relaxed);
        totals.ended += 1;
        self.queue.change(Some(left), None, Nanos::from_nanos(9), &self.is_queued);
        shard.free_key(key);
    }

    /// Reads everything, as `Ledger::freeze` does it, and checks that it belongs to one moment.
    fn read(&self, reader: &mut Reader) -> QueueReading {
        let mut shards = self.waiting.all();
        for Totals { begun, ended } in shards.totals() {
            reader.begun += std::mem::take(begun);
            reader.ended += std::mem::take(ended);
        }
        let queue = self.queue.read();
        shards.read_entries(&mut reader.entries);
        let (mut in_flight, mut queued, mut turns) = (0, 0, 0);
        for (_, entry) in reader.entries.iter() {
            let number = entry.number.load(Relaxed);
            if number != 0 {
                assert_eq!(entry.copy.load(Relaxed), number, "the entry is half written");
                in_flight += 1;
                queued += usize::from(entry.is_queued.load(Relaxed) == 1);
                turns += usize::from(entry.is_suspended.load(Relaxed) == 1);
            }
        }
        assert_eq!(reader.begun, reader.ended + in_flight, "begun, and ended or in flight");
        assert_eq!((queue.queued, queue.turns), (queued, turns), "in the queues");
        assert_eq!(queue.saturated_since.is_some(), queued > 0);
        if in_flight == 0 {
            shards.free_beyond(0, &mut reader.entries);
        }
        queue
    }
}

/// Each checkout that a reader sees has begun, and has ended or is in flight, whichever threads begin and end it.
pub fn reader_sees_each_checkout_once() {
    check(|| {
        let ledger = Arc::new(Ledger::new());
        let first = ledger.begin(0, 1);
        let threads = [
            {
                let ledger = Arc::clone(&ledger);
                thread::spawn(move || {
                    // Begun by another thread, as when its task has been stolen.
                    ledger.leave_queue(1, first, Phase::Suspended);
                    ledger.finish(1, first, 1);
                })
            },
            {
                let ledger = Arc::clone(&ledger);
                thread::spawn(move || {
                    let second = ledger.begin(0, 2);
                    ledger.leave_queue(0, second, Phase::Connect);
                    ledger.finish(0, second, 2);
                })
            },
        ];
        let mut reader = Reader::default();
        ledger.read(&mut reader);
        for thread in threads {
            thread.join().expect("no panic");
        }
        let queue = ledger.read(&mut reader);
        assert_eq!((reader.begun, reader.ended, queue.queued), (2, 2, 0));
        assert!(!ledger.is_queued.load(SeqCst));
        // The memory of all entries was freed.
        let third = ledger.begin(0, 3);
        assert_eq!(ledger.read(&mut reader).queued, 1);
        ledger.finish(1, third, 3);
        assert_eq!(ledger.read(&mut reader).queued, 0);
    });
}

/// Two checkouts in flight never have the same key, whichever thread has freed it.
pub fn keys_are_used_once() {
    check(|| {
        let ledger = Arc::new(Ledger::new());
        let first = ledger.begin(0, 1);
        let thread = {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || {
                ledger.finish(1, first, 1);
                // Its entry is used again by this thread, or is that of the other thread's chunk.
                let third = ledger.begin(1, 3);
                ledger.finish(0, third, 3);
            })
        };
        let second = ledger.begin(0, 2);
        let fourth = ledger.begin(1, 4);
        assert_ne!(second, fourth);
        ledger.finish(1, second, 2);
        thread.join().expect("no panic");
        ledger.finish(0, fourth, 4);
        ledger.read(&mut Reader::default());
    });
}

/// Once nothing changes, the hint says whether the queue is empty.
pub fn hint_follows_the_queue() {
    for stays in [false, true] {
        check(move || {
            let ledger = Arc::new(Ledger::new());
            let threads = [false, stays].map(|stays| {
                let ledger = Arc::clone(&ledger);
                thread::spawn(move || {
                    let (queued, at) = (Some(Phase::Queue), Nanos::from_nanos(1));
                    ledger.queue.change(None, queued, at, &ledger.is_queued);
                    if !stays {
                        ledger.queue.change(queued, None, at, &ledger.is_queued);
                    }
                })
            });
            for thread in threads {
                thread.join().expect("no panic");
            }
            assert_eq!(ledger.is_queued.load(SeqCst), stays);
            assert_eq!(ledger.queue.read().queued, usize::from(stays));
        });
    }
}
