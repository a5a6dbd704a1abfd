//! The times of queries, by what they are.

use std::sync::OnceLock;

use super::histogram::{Histogram, OwnedHistogram};
use super::names::IDS;

/// What a query is, as an index into the table of summaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct QueryId(u16);

impl QueryId {
    pub(crate) const OTHER: Self = Self(0);

    pub(crate) const fn from_u16(id: u16) -> Self {
        Self(id)
    }

    pub(crate) const fn as_u16(self) -> u16 {
        self.0
    }

    pub(crate) const fn index(self) -> usize {
        let index = self.0 as usize;
        if index < IDS { index } else { 0 }
    }
}

/// Summaries are counted in groups, made when the first of a group is seen.
const GROUP: usize = 8;

/// How long the queries of one connection took that succeeded. Written by the connection's task alone.
#[derive(Debug)]
pub(super) struct QueryTimes {
    groups: [OnceLock<Box<[OwnedHistogram; GROUP]>>; IDS.div_ceil(GROUP)],
}

impl Default for QueryTimes {
    fn default() -> Self {
        Self { groups: [const { OnceLock::new() }; IDS.div_ceil(GROUP)] }
    }
}

impl QueryTimes {
    pub(super) fn observe(&self, query: QueryId, nanos: u64) {
        let index = query.index();
        self.groups[index / GROUP].get_or_init(Box::default)[index % GROUP].observe(nanos);
    }

    /// Adds them to `totals`, by id.
    pub(super) fn add_to(&self, totals: &mut [Histogram]) {
        for (group, totals) in self.groups.iter().zip(totals.chunks_mut(GROUP)) {
            let Some(group) = group.get() else { continue };
            for (histogram, total) in group.iter().zip(totals) {
                histogram.add_to(total);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_by_query_and_one_that_is_none_is_other() {
        let times = QueryTimes::default();
        let mut totals = vec![Histogram::default(); IDS];
        times.observe(QueryId::from_u16(9), 5);
        times.observe(QueryId::from_u16(200), 7);
        times.observe(QueryId::from_u16(u16::MAX), 11);
        times.add_to(&mut totals);
        times.add_to(&mut totals);
        let sums = [0, 9, 200].map(|id: usize| (totals[id].count(), totals[id].sum_nanos));
        assert_eq!(sums, [(2, 22), (2, 10), (2, 14)]);
        assert_eq!(totals.iter().map(Histogram::count).sum::<u64>(), 6);
    }
}
