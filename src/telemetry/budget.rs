//! The retry budget of a pool: retries may be a fraction of its operations plus a fixed rate, so that they never
//! dominate the load.
//!
//! Works as Finagle's `RetryBudget` and tower's `TpsBudget`, whose values are the defaults: each operation deposits a
//! fraction of a token, each retry withdraws a token, deposits expire after [`WINDOW`], and a floor of retries per
//! second is always available. Neither of the two exposes its balance, which is a metric here.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::clock::{Nanos, nanos, to_f64};

/// How long deposits and withdrawals count.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);

/// The number of slots that the window is divided into.
const SLOTS: usize = 10;

/// The balance is kept in hundredths of a token.
const UNITS_PER_TOKEN: i64 = 100;

/// How a budget is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BudgetConfig {
    /// Retries per second that are always available.
    pub(crate) floor: usize,
    /// Retries per hundred operations.
    pub(crate) percent: usize,
}

/// A pool's budget.
#[derive(Debug)]
pub(crate) struct Budget {
    config: BudgetConfig,
    window: Mutex<Window>,
}

/// Deposits minus withdrawals, by the slot of the window in which they were made.
#[derive(Debug, Default)]
struct Window {
    slots: [i64; SLOTS],
    /// The number of the current slot, counted from the clock's origin.
    current: u64,
}

impl Window {
    /// Advances to the slot of `now` and clears the slots that have left the window.
    fn at(&mut self, now: Nanos) -> &mut Self {
        let slot = now.as_nanos() / (nanos(WINDOW) / SLOTS as u64);
        let passed = slot.saturating_sub(self.current);
        for expired in (0..passed).take(SLOTS) {
            self.slots[index(self.current + 1 + expired)] = 0;
        }
        self.current = self.current.max(slot);
        self
    }

    fn add(&mut self, units: i64) {
        self.slots[index(self.current)] += units;
    }

    fn sum(&self) -> i64 {
        self.slots.iter().sum()
    }
}

fn units(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn index(slot: u64) -> usize {
    usize::try_from(slot % SLOTS as u64).unwrap_or(0)
}

impl Budget {
    pub(crate) fn new(config: BudgetConfig) -> Self {
        Self { config, window: Mutex::default() }
    }

    /// Returns what the floor provides over the window.
    fn reserve(&self) -> i64 {
        units(self.config.floor).saturating_mul(UNITS_PER_TOKEN * i64::try_from(WINDOW.as_secs()).unwrap_or(0))
    }

    fn at<T>(&self, now: Nanos, work: impl FnOnce(&mut Window) -> T) -> T {
        work(self.window.lock().unwrap_or_else(PoisonError::into_inner).at(now))
    }

    /// Records that an operation with a retry policy has begun.
    pub(crate) fn deposit(&self, now: Nanos) {
        self.at(now, |window| window.add(units(self.config.percent)));
    }

    /// Withdraws a token for a retry. Returns whether one was available.
    pub(crate) fn withdraw(&self, now: Nanos) -> bool {
        self.at(now, |window| {
            let enough = window.sum() + self.reserve() >= UNITS_PER_TOKEN;
            if enough {
                window.add(-UNITS_PER_TOKEN);
            }
            enough
        })
    }

    /// Returns how many retries may be made now.
    pub(crate) fn balance(&self, now: Nanos) -> f64 {
        let units = self.at(now, |window| window.sum()) + self.reserve();
        to_f64(u64::try_from(units / UNITS_PER_TOKEN).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: BudgetConfig = BudgetConfig { floor: 10, percent: 20 };

    fn at(millis: u64) -> Nanos {
        Nanos::from_nanos(millis * 1_000_000)
    }

    fn spend(budget: &Budget, now: Nanos) -> usize {
        (0..100_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn floor_is_available_at_once_and_after_each_window() {
        let budget = Budget::new(CONFIG);
        assert_eq!((budget.balance(at(0)) as u32, spend(&budget, at(0))), (100, 100));
        assert_eq!((budget.balance(at(9_999)) as u32, spend(&budget, at(9_999))), (0, 0));
        assert_eq!(spend(&budget, at(10_000)), 100);
        // However long no retry was made.
        assert_eq!(spend(&budget, at(1_000_000_000)), 100);
    }

    #[test]
    fn operations_deposit_a_percentage() {
        let budget = Budget::new(BudgetConfig { floor: 0, ..CONFIG });
        assert!(!budget.withdraw(at(5)));
        for _ in 0..1000 {
            budget.deposit(at(5_500));
        }
        assert_eq!((budget.balance(at(6_000)) as u32, spend(&budget, at(6_000))), (200, 200));
        for _ in 0..1000 {
            budget.deposit(at(7_500));
        }
        // Deposits and withdrawals expire after the window, each in its turn.
        assert_eq!(budget.balance(at(15_500)) as u32, 0);
        assert_eq!(budget.balance(at(16_500)) as u32, 200);
        assert_eq!(budget.balance(at(17_500)) as u32, 0);
    }

    #[test]
    fn sustained_retry_rate_follows_the_deposits() {
        let budget = Budget::new(CONFIG);
        let mut spent = 0;
        for second in 0..60 {
            for _ in 0..100 {
                budget.deposit(at(second * 1000));
            }
            spent += spend(&budget, at(second * 1000));
        }
        // 60 times 20 for the operations, and 100 of the floor in each window.
        assert_eq!(spent, 1200 + 600);
    }

    #[test]
    fn clock_readings_may_go_backwards_slightly() {
        let budget = Budget::new(CONFIG);
        budget.deposit(at(20_000));
        assert!(budget.withdraw(at(19_000)));
        assert_eq!(budget.balance(at(20_000)) as u32, 99);
    }
}
