//! Histograms of query durations, by query summary.

use std::sync::OnceLock;

use super::histogram::Histogram;
use super::names::NAME_IDS;
use super::owned::OwnedHistogram;

/// The index of a query summary in its pool's table.
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
        if index < NAME_IDS { index } else { 0 }
    }
}

/// Histograms are allocated in groups of this size, when the first query of a group is observed.
const GROUP: usize = 8;

/// The durations of one connection's successful queries. Written only by the connection's task.
#[derive(Debug)]
pub(super) struct QueryHistograms {
    groups: [OnceLock<Box<[OwnedHistogram; GROUP]>>; NAME_IDS.div_ceil(GROUP)],
}

impl Default for QueryHistograms {
    fn default() -> Self {
        Self { groups: [const { OnceLock::new() }; NAME_IDS.div_ceil(GROUP)] }
    }
}

impl QueryHistograms {
    pub(super) fn observe(&self, query: QueryId, nanos: u64) {
        let index = query.index();
        self.groups[index / GROUP].get_or_init(Box::default)[index % GROUP].observe(nanos);
    }

    /// Adds the observations to `totals`, by query id.
    pub(super) fn add_to(&self, totals: &mut [Histogram]) {
        for (group, totals) in self.groups.iter().zip(totals.chunks_mut(GROUP)) {
            let Some(group) = group.get() else { continue };
            for (histogram, total) in group.iter().zip(totals) {
                total.add(histogram);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_kept_by_query_id() {
        let histograms = QueryHistograms::default();
        let mut totals = vec![Histogram::default(); NAME_IDS];
        histograms.observe(QueryId::from_u16(9), 5);
        histograms.observe(QueryId::from_u16(200), 7);
        histograms.observe(QueryId::from_u16(u16::MAX), 11);
        histograms.add_to(&mut totals);
        histograms.add_to(&mut totals);
        let sums = [0, 9, 200].map(|id: usize| (totals[id].count(), totals[id].sum_nanos));
        assert_eq!(sums, [(2, 22), (2, 10), (2, 14)]);
        assert_eq!(totals.iter().map(Histogram::count).sum::<u64>(), 6);
    }
}
