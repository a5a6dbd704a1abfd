//! What a pool holds right now and for whom: enough for an error message, and cheap however many wait.

use std::sync::Arc;
use std::time::Duration;

use super::books::LedgerState;
use super::{Connections, Ledger, Limits, Nanos};
use crate::labels::{Activity, ConnectionState};
use crate::telemetry::operations::OperationId;

/// How many connections there are, and how many are asked for.
///
/// For those who know SQLAlchemy's pool: [`size`](Self::size) is `size()`, [`idle`](Self::idle) is `checkedin()`,
/// [`used`](Self::used) is `checkedout()` and [`overflow`](Self::overflow) is `overflow()`, but never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// `pool_size`: how many connections may be idle.
    pub size: usize,
    /// `pool_size + max_overflow`: how many there may be at once.
    pub max: usize,
    /// In the pool.
    pub idle: usize,
    /// Held by callers, or being pinged for one.
    pub used: usize,
    /// Being established.
    pub creating: usize,
    /// Checkouts that wait for capacity.
    pub waiting: usize,
    /// Checkouts that have begun and not ended, whatever they wait for.
    pub in_flight: usize,
}

impl Status {
    /// How many connections there are.
    #[must_use]
    pub const fn live(&self) -> usize {
        self.idle + self.used + self.creating
    }

    /// How many there are beyond `pool_size`.
    #[must_use]
    pub const fn overflow(&self) -> usize {
        self.live().saturating_sub(self.size)
    }
}

/// The connections that one operation holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holding {
    /// The operation's name.
    pub operation: Arc<str>,
    /// How many it holds.
    pub connections: usize,
    /// For how long it has held the oldest of them.
    pub oldest: Duration,
    /// How many of them do what, by [`Activity::ALL`]; none where the wire is not read.
    pub activities: [usize; Activity::COUNT],
}

/// What a pool holds and for whom, as of one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolUsage {
    /// The pool's name.
    pub name: Arc<str>,
    /// How much of everything there is.
    pub status: Status,
    /// For how long the longest of those who wait for capacity has been waiting; zero if nobody does.
    pub longest_wait: Duration,
    /// Who holds it, those with most connections first.
    pub holdings: Vec<Holding>,
}

impl LedgerState {
    pub(super) fn status(&self, limits: &Limits) -> Status {
        self.status_with(limits, Connections::of(self.standings()))
    }

    fn status_with(&self, limits: &Limits, connections: Connections) -> Status {
        let Connections { creating, idle, used } = connections;
        let (size, max) = (limits.pool_size, limits.max());
        Status { size, max, idle, used, creating, waiting: self.queued, in_flight: self.in_flight.len() }
    }

    pub(super) fn usage(&mut self, ledger: &Ledger, now: Nanos) -> PoolUsage {
        let longest_wait = self.first_in_queue().map_or(Duration::ZERO, |started| now.duration_since(started));
        // Read once: those counted as used are to be those who are named.
        let standings: Vec<_> = self.seats.iter().map(|stats| (stats, stats.unpacked_state())).collect();
        let mut holdings: Vec<(OperationId, Holding)> = Vec::new();
        for (stats, unpacked_state) in
            standings.iter().filter(|(_, unpacked_state)| unpacked_state.state == ConnectionState::Used)
        {
            let age = now.duration_since(unpacked_state.since);
            let known = holdings.iter().position(|(operation, _)| *operation == unpacked_state.operation);
            let place = known.unwrap_or_else(|| {
                let operation = ledger.operations().shared_name(unpacked_state.operation);
                let holding = Holding { operation, connections: 0, oldest: age, activities: [0; Activity::COUNT] };
                holdings.push((unpacked_state.operation, holding));
                holdings.len() - 1
            });
            let (_, holding) = &mut holdings[place];
            holding.connections += 1;
            holding.oldest = age.max(holding.oldest);
            if let Some(activity) = stats.wire().status().activity() {
                holding.activities[activity.index()] += 1;
            }
        }
        let mut holdings: Vec<_> = holdings.into_iter().map(|(_, holding)| holding).collect();
        holdings.sort_by_key(|holding| std::cmp::Reverse((holding.connections, holding.oldest)));
        PoolUsage {
            name: Arc::clone(ledger.name()),
            status: self.status_with(
                ledger.limits(),
                Connections::of(standings.iter().map(|(_, unpacked_state)| *unpacked_state)),
            ),
            longest_wait,
            holdings,
        }
    }
}
