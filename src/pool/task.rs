//! Which task runs, as a number.

use std::cell::Cell;
use std::hash::{Hash, Hasher};

/// Set in the numbers of threads, so that none is taken for a task's.
const THREAD: u64 = 1 << 63;

/// The number of the task that runs; outside of tasks, as in `block_on`, the thread's. Never zero.
#[inline]
pub(super) fn current() -> u64 {
    tokio::task::try_id().map_or_else(thread, |id| number(&id) & !THREAD)
}

fn thread() -> u64 {
    thread_local! {
        static NUMBER: Cell<u64> = const { Cell::new(0) };
    }
    // Threads that are at their end have no such memory any more; zero is nobody.
    NUMBER
        .try_with(|known| {
            if known.get() == 0 {
                known.set(number(&std::thread::current().id()) | THREAD);
            }
            known.get()
        })
        .unwrap_or(0)
}

/// Tokio and the standard library keep their numbers to themselves, but hash them.
#[inline]
fn number(id: &impl Hash) -> u64 {
    let mut number = Number(0);
    id.hash(&mut number);
    number.finish()
}

/// A hasher that leaves a number as it is.
struct Number(u64);

impl Hasher for Number {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_differ_and_a_task_stays_the_same() {
        let [first, second] =
            [tokio::spawn(async { (current(), current()) }), tokio::spawn(async { (current(), current()) })];
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert_eq!(first.0, first.1);
        assert_ne!(first.0, second.0);
        assert_ne!(first.0, 0);
    }

    #[test]
    fn threads_differ_and_are_no_tasks() {
        let here = current();
        assert_eq!(here, current());
        assert_ne!(here, std::thread::spawn(current).join().unwrap());
        assert_ne!(here & THREAD, 0);
    }
}
