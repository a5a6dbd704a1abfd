//! A ledger while nothing in it changes, for readers.

use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;

use super::Ledger;
use super::in_flight::{Entry, ShardTotals, Ticket};
use super::shards::AllShards;
use super::state::LedgerState;
use crate::labels::Phase;
use crate::telemetry::clock::Nanos;

/// The number of entries that is kept while no checkout is in flight. Readers scan the vacant ones too.
pub(super) const MAX_SPARE_ENTRIES: usize = 1024;

/// How many of the oldest checkouts in the queue are remembered, so that not each of many timeouts scans all of them.
const OLDEST: usize = 128;

/// The state with the locks of all shards.
pub(super) struct Frozen<'a> {
    shards: AllShards<'a, Entry, ShardTotals>,
    state: MutexGuard<'a, LedgerState>,
}

impl Ledger {
    /// Locks everything that events change: the state, and then all shards. The state has all connections and checkouts in
    /// flight then, but of the totals of those that have ended only what [`LedgerState::read_load`] needs.
    pub(super) fn freeze(&self) -> Frozen<'_> {
        let mut state = self.state();
        let mut shards = self.waiting.all();
        for totals in shards.totals() {
            state.absorb_in_flight(totals);
        }
        state.queue = self.contended.queue.read();
        shards.read_entries(&mut state.in_flight);
        if state.in_flight_count == 0 {
            let max = shards.max_kept().max(MAX_SPARE_ENTRIES);
            shards.free_beyond(max, &mut state.in_flight);
        }
        Frozen { shards, state }
    }

    /// As [`Self::freeze`], and moves the totals of all shards to the state.
    pub(super) fn freeze_with_totals(&self) -> Frozen<'_> {
        let mut frozen = self.freeze();
        for totals in frozen.shards.totals() {
            frozen.state.absorb_totals(totals);
        }
        frozen
    }
}

impl LedgerState {
    /// Returns since when the first checkout in the queue has been waiting. Mostly does not scan all of them, because
    /// many may time out together and each calls this.
    pub(super) fn first_in_queue(&mut self) -> Option<Nanos> {
        if self.queue.queued == 0 {
            return None;
        }
        let mut oldest = std::mem::take(&mut self.oldest);
        // Those that joined the queue later are not older, unless they had waited for something else: see `absorb_in_flight`.
        oldest.retain(|(ticket, started)| {
            let checkout = self.checkout(*ticket).map(|(_, checkout)| checkout);
            checkout.is_some_and(|checkout| checkout.phase == Phase::Queue && checkout.started == *started)
        });
        if oldest.is_empty() {
            let queued = self.checkouts_by_ticket().filter(|(_, checkout)| checkout.phase == Phase::Queue);
            oldest.extend(queued.map(|(ticket, checkout)| (ticket, checkout.started)));
            let by_age = |(_, started): &(Ticket, Nanos)| *started;
            if oldest.len() > OLDEST {
                oldest.select_nth_unstable_by_key(OLDEST, by_age);
                oldest.truncate(OLDEST);
                oldest.shrink_to_fit();
            }
            oldest.sort_unstable_by_key(by_age);
        }
        let first = oldest.first().map(|(_, started)| *started);
        self.oldest = oldest;
        first
    }
}

impl Deref for Frozen<'_> {
    type Target = LedgerState;

    fn deref(&self) -> &LedgerState {
        &self.state
    }
}

impl DerefMut for Frozen<'_> {
    fn deref_mut(&mut self) -> &mut LedgerState {
        &mut self.state
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::super::Limits;
    use super::super::in_flight::InFlight;
    use super::*;
    use crate::labels::Outcome;
    use crate::telemetry::clock::Clock;

    fn ledger() -> Ledger {
        Ledger::new("test".into(), Limits::for_tests(), Clock::mock().0)
    }

    fn at(millis: u64) -> Nanos {
        Nanos::ZERO.after(Duration::from_millis(millis))
    }

    fn begin(ledger: &Ledger, at: Nanos) -> Ticket {
        ledger.begin(&InFlight::for_tests(1, at), None)
    }

    fn end(ledger: &Ledger, ticket: Ticket, outcome: Outcome, at: Nanos) {
        assert!(ledger.finish(ticket, (outcome, u64::MAX), None, at).is_none());
    }

    #[test]
    fn capacity_of_a_peak_is_not_kept() {
        let ledger = ledger();
        for _ in 0..2 {
            let tickets: Vec<_> = (0..5000).map(|_| begin(&ledger, Nanos::ZERO)).collect();
            assert!(ledger.freeze().in_flight.len() >= 5000);
            for ticket in tickets {
                end(&ledger, ticket, Outcome::Timeout, Nanos::ZERO);
            }
            let mut state = ledger.freeze();
            assert!(state.in_flight.len() <= MAX_SPARE_ENTRIES);
            assert_eq!((state.queue.queued, state.in_flight_count, state.first_in_queue()), (0, 0, None));
        }
    }

    #[test]
    fn entries_do_not_grow_with_the_number_of_checkouts() {
        let ledger = ledger();
        // Begun by one thread and ended by another: keys pass from one shard to the other.
        std::thread::scope(|scope| {
            let (tickets, ended) = std::sync::mpsc::sync_channel(64);
            let ledger = &ledger;
            scope.spawn(move || (0..20_000).for_each(|_| tickets.send(begin(ledger, Nanos::ZERO)).unwrap()));
            scope.spawn(move || {
                for ticket in ended {
                    end(ledger, ticket, Outcome::Cancelled, Nanos::ZERO);
                }
            });
        });
        let state = ledger.freeze_with_totals();
        assert_eq!((state.in_flight_count, state.waits[0].outcomes[Outcome::Cancelled.index()]), (0, 20_000));
        assert!(state.in_flight.len() <= 512, "{}", state.in_flight.len());
    }

    /// Reads the ledger, and checks that what it has read belongs to one moment. Returns the number of checkouts begun.
    fn begun(ledger: &Ledger) -> u64 {
        let state = ledger.freeze_with_totals();
        let in_flight: Vec<_> = state.checkouts().map(|(_, checkout)| checkout.phase).collect();
        assert_eq!(in_flight.len(), state.in_flight_count);
        assert_eq!(in_flight.iter().filter(|phase| **phase == Phase::Queue).count(), state.queue.queued);
        assert_eq!(in_flight.iter().filter(|phase| phase.is_wait_for_turn()).count(), state.queue.turns);
        let ended = state.waits[0].outcomes.iter().sum();
        assert_eq!((state.wait_time.count(), state.unserved), (ended, ended));
        ended + in_flight.len() as u64
    }

    #[test]
    fn reader_sees_changes_of_threads_as_a_whole() {
        const THREADS: usize = 3;
        const CHECKOUTS: u64 = 4000;
        let ledger = &ledger();
        std::thread::scope(|scope| {
            // Each thread ends what another has begun.
            let (begins, ends): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| std::sync::mpsc::sync_channel(16)).unzip();
            for begins in begins {
                scope.spawn(move || (0..CHECKOUTS).for_each(|_| begins.send(begin(ledger, at(1))).unwrap()));
            }
            let threads = ends.into_iter().map(|tickets| {
                scope.spawn(move || {
                    for (ticket, phases) in tickets.into_iter().zip([0, 1, 2].into_iter().cycle()) {
                        for phase in [Phase::Suspended, Phase::Connect].into_iter().take(phases) {
                            drop(ledger.change_phase(ticket, phase, at(2)));
                        }
                        end(ledger, ticket, Outcome::Timeout, at(3));
                    }
                })
            });
            let (threads, mut last): (Vec<_>, _) = (threads.collect(), 0);
            while !threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                let now = begun(ledger);
                assert!(now >= last, "{now} after {last}");
                last = now;
            }
        });
        assert_eq!((begun(ledger), ledger.freeze().in_flight_count), (THREADS as u64 * CHECKOUTS, 0));
        assert!(!ledger.hints.is_queued());
    }

    #[test]
    fn ticket_of_freed_memory_is_of_no_checkout() {
        let ledger = ledger();
        let tickets: Vec<_> = (0..=MAX_SPARE_ENTRIES).map(|_| begin(&ledger, Nanos::ZERO)).collect();
        let last = tickets[MAX_SPARE_ENTRIES];
        for ticket in tickets {
            end(&ledger, ticket, Outcome::Timeout, Nanos::ZERO);
        }
        drop(ledger.freeze());
        assert!(ledger.with_trace(last, |_, _, _| ()).is_none());
        assert!(!ledger.waits_for_turn(last));
        assert_eq!(ledger.wait_state(last).0, Phase::Queue);
        drop(ledger.change_phase(last, Phase::Connect, at(1)));
        end(&ledger, last, Outcome::Timeout, at(2));
        assert_eq!(ledger.freeze().in_flight_count, 0);
    }

    #[test]
    fn overload_is_read_without_the_locks_of_shards() {
        let limits = Limits { pool_size: 0, max_overflow: 0, ..Limits::for_tests() };
        let ledger = Ledger::new("test".into(), limits, Clock::mock().0);
        begin(&ledger, Nanos::ZERO);
        let shards = ledger.waiting.all();
        let (results, result) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| results.send((ledger.backlog().queued, ledger.has_surplus(), ledger.connections().idle)));
            let read = result.recv_timeout(Duration::from_secs(60));
            drop(shards);
            assert_eq!(read, Ok((1, false, 0)));
        });
    }

    #[test]
    fn first_in_queue_is_found_in_each_shard() {
        let ledger = ledger();
        let on_another_thread =
            |started: Nanos| std::thread::scope(|scope| scope.spawn(|| begin(&ledger, started)).join().unwrap());
        let tickets =
            [begin(&ledger, at(3)), on_another_thread(at(1)), begin(&ledger, at(4)), on_another_thread(at(2))];
        assert_eq!(ledger.freeze().first_in_queue(), Some(at(1)));
        end(&ledger, tickets[1], Outcome::Timeout, at(5));
        assert_eq!(ledger.freeze().first_in_queue(), Some(at(2)));
        drop(ledger.change_phase(tickets[3], Phase::Connect, at(6)));
        assert_eq!(ledger.freeze().first_in_queue(), Some(at(3)));
        end(&ledger, tickets[0], Outcome::Timeout, at(7));
        assert_eq!(ledger.freeze().first_in_queue(), Some(at(4)));
    }

    #[test]
    fn first_in_queue_of_many_is_found_after_each_end() {
        let ledger = ledger();
        let count = u64::try_from(3 * OLDEST).unwrap();
        let tickets: Vec<_> = (1..=count).map(|started| begin(&ledger, at(started))).collect();
        for (ticket, started) in tickets.into_iter().zip(1..) {
            assert_eq!(ledger.freeze().first_in_queue(), Some(at(started)));
            // A younger one takes the entry of an older one.
            end(&ledger, ticket, Outcome::Timeout, at(1000));
            begin(&ledger, at(1000));
        }
        assert_eq!(ledger.freeze().first_in_queue(), Some(at(1000)));
    }

    #[test]
    fn checkout_that_returns_to_the_queue_is_the_first() {
        let ledger = ledger();
        let suspended: Vec<_> = (1..=200).map(|started| begin(&ledger, at(started))).collect();
        for ticket in &suspended {
            drop(ledger.change_phase(*ticket, Phase::Suspended, at(300)));
        }
        assert_eq!(ledger.freeze().first_in_queue(), None);
        begin(&ledger, at(400));
        assert_eq!(ledger.freeze().first_in_queue(), Some(at(400)));
        drop(ledger.change_phase(suspended[150], Phase::Queue, at(500)));
        assert_eq!(ledger.freeze().first_in_queue(), Some(at(151)));
        drop(ledger.change_phase(suspended[3], Phase::Queue, at(500)));
        assert_eq!(ledger.freeze().first_in_queue(), Some(at(4)));
    }

    #[test]
    fn phases_and_saturated_time_add_up() {
        let ledger = ledger();
        let tickets = [begin(&ledger, at(10)), begin(&ledger, at(20))];
        drop(ledger.change_phase(tickets[0], Phase::Suspended, at(30)));
        end(&ledger, tickets[1], Outcome::Timeout, at(50));
        {
            let state = ledger.freeze();
            assert_eq!((state.queue.queued, state.queue.turns, state.in_flight_count), (0, 1, 1));
            assert_eq!(state.queue.saturated_nanos(at(90)), at(40).as_nanos());
        }
        drop(ledger.change_phase(tickets[0], Phase::Queue, at(60)));
        let state = ledger.freeze_with_totals();
        assert_eq!((state.queue.queued, state.queue.turns), (1, 0));
        assert_eq!(state.queue.saturated_since, Some(at(60)));
        assert_eq!(state.queue.saturated_nanos(at(90)), at(70).as_nanos());
        assert_eq!(state.phase_nanos[Phase::Queue.index()], at(50).as_nanos());
        assert_eq!(state.phase_nanos[Phase::Suspended.index()], at(30).as_nanos());
        assert!(ledger.hints.is_queued());
    }
}
