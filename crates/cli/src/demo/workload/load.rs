//! How much comes, and of what.

use std::time::Duration;

use crate::demo::shop::Endpoint;

/// What comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::demo) enum Arrival {
    /// A customer, who asks the shop for something.
    Customer(Endpoint),
    /// The hour at which the shop archives orders.
    Archiving,
}

/// What comes, and how often.
#[derive(Debug)]
pub(in crate::demo) struct Load {
    /// What comes by itself, and how often on average, per second. What stands here twice comes as often as both say.
    pub(in crate::demo) rates: &'static [(Arrival, f64)],
    /// What comes on top of that.
    pub(in crate::demo) more: &'static [(Arrival, f64)],
    /// When many come at once, if ever.
    pub(in crate::demo) rushes: Option<Rushes>,
    /// How long a customer waits for the list of orders before leaving; `None` for as long as it takes.
    pub(in crate::demo) patience: Option<Duration>,
}

impl Load {
    /// All that comes by itself.
    pub(super) fn rates(&self) -> impl Iterator<Item = (Arrival, f64)> + use<> {
        self.rates.iter().chain(self.more).copied()
    }
}

/// When many come at once, all to check out.
#[derive(Clone, Copy, Debug)]
pub(in crate::demo) struct Rushes {
    /// The first one comes after this time.
    pub(in crate::demo) first: Duration,
    /// The others that far apart, in seconds.
    pub(in crate::demo) apart: [f64; 2],
    /// How many come.
    pub(in crate::demo) size: [usize; 2],
    /// How many in every third one.
    pub(in crate::demo) third: [usize; 2],
}
