//! The result of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::faults::Fault;
use super::load::Counts;
use super::observer::Observed;
use super::world::World;

#[derive(Default)]
pub(crate) struct Report {
    /// For each fault, the times after which both pools worked again.
    recovered: BTreeMap<Fault, Vec<Duration>>,
    agreed: Vec<Duration>,
}

impl Report {
    /// Records that both pools worked this long after two faults were over.
    pub(crate) fn recovered(&mut self, faults: [Fault; 2], after: Duration) {
        for fault in faults {
            self.recovered.entry(fault).or_default().push(after);
        }
    }

    /// Records how much later the server had as many connections as the pools.
    pub(crate) fn agreed(&mut self, after: Duration) {
        self.agreed.push(after);
    }

    pub(crate) fn text(
        &self,
        world: &World,
        counts: &Counts,
        observed: &Observed,
        drift: u64,
        took: Duration,
    ) -> String {
        let mut text = String::from("| fault | times | worked again after, median and most |\n|---|---|---|\n");
        for (fault, times) in &self.recovered {
            let _ = writeln!(text, "| {fault:?} | {} | {} |", times.len(), median_and_most(times));
        }
        let all: Vec<Duration> = self.recovered.values().flatten().copied().collect();
        let struck: u64 = world.targets.iter().map(|target| target.proxy.struck()).sum();
        let count = |count: &AtomicU64| count.load(Relaxed);
        let [once, never, unknown] = world.money.known();
        let _ = write!(
            text,
            "\nseed {}: {} faults in {took:.0?}, all survived; {struck} connections struck in the network\n\
             both pools worked again after {} (median, most); server and pools agreed {} later\n\
             work: {} succeeded, {} failed, of which {} panicked, {} cancelled\n\
             money: {once} known to have taken effect once, {never} never, {unknown} unknown; all balanced\n\
             {} scrapes, {} comparisons with the server, which had at most {} backends beyond the live connections\n\
             drift: {drift}",
            world.seed,
            all.len(),
            median_and_most(&all),
            median_and_most(&self.agreed),
            count(&counts.succeeded),
            count(&counts.failed),
            count(&counts.panicked),
            count(&counts.cancelled),
            observed.scrapes,
            observed.comparisons,
            observed.most_beyond,
        );
        text
    }
}

fn median_and_most(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |index: Option<usize>| index.and_then(|index| times.get(index)).map_or(0, Duration::as_millis);
    format!("{} ms, {} ms", at(Some(times.len() / 2)), at(times.len().checked_sub(1)))
}
