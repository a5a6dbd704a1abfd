//! How many retries a pool may make: a share of its operations and a few more, so that retries never become the load.
//!
//! As in Finagle's `RetryBudget` and tower's `TpsBudget`, whose values are the defaults: each operation deposits a part
//! of a token, each retry withdraws a whole one, deposits are forgotten after [`WINDOW`], and a floor of so many retries a
//! second is there even where next to nothing is done. Neither of the two can be asked for its balance, which is a
//! metric here.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::clock::{Nanos, exact, nanos};

/// How long a deposit counts, and a withdrawal.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);

/// In how many steps the window moves on.
const STEPS: usize = 10;

/// A token, in the parts that are reckoned with: hundredths.
const TOKEN: i64 = 100;

/// How a budget is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Retries a second that are always there.
    pub(crate) floor: usize,
    /// Retries for each hundred operations.
    pub(crate) percent: usize,
}

/// A pool's budget.
#[derive(Debug)]
pub(crate) struct Budget {
    terms: Terms,
    account: Mutex<Account>,
}

/// Deposits less withdrawals, by the step of the window in which they were made.
#[derive(Debug, Default)]
struct Account {
    steps: [i64; STEPS],
    /// The step that is written to, counted from the clock's beginning.
    step: u64,
}

impl Account {
    /// Moves on to the step of this moment, and forgets what is out of the window.
    fn at(&mut self, now: Nanos) -> &mut Self {
        let step = now.as_nanos() / (nanos(WINDOW) / STEPS as u64);
        let passed = step.saturating_sub(self.step);
        for forgotten in (0..passed).take(STEPS) {
            self.steps[place(self.step + 1 + forgotten)] = 0;
        }
        self.step = self.step.max(step);
        self
    }

    fn add(&mut self, tokens: i64) {
        self.steps[place(self.step)] += tokens;
    }

    fn sum(&self) -> i64 {
        self.steps.iter().sum()
    }
}

fn parts(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn place(step: u64) -> usize {
    usize::try_from(step % STEPS as u64).unwrap_or(0)
}

impl Budget {
    pub(crate) fn new(terms: Terms) -> Self {
        Self { terms, account: Mutex::default() }
    }

    /// What is always there.
    fn reserve(&self) -> i64 {
        parts(self.terms.floor).saturating_mul(TOKEN * i64::try_from(WINDOW.as_secs()).unwrap_or(0))
    }

    fn on_account<T>(&self, now: Nanos, work: impl FnOnce(&mut Account) -> T) -> T {
        work(self.account.lock().unwrap_or_else(PoisonError::into_inner).at(now))
    }

    /// An operation that may be retried has begun.
    pub(crate) fn deposit(&self, now: Nanos) {
        self.on_account(now, |account| account.add(parts(self.terms.percent)));
    }

    /// Pays for a retry, if there is enough.
    pub(crate) fn withdraw(&self, now: Nanos) -> bool {
        self.on_account(now, |account| {
            let enough = account.sum() + self.reserve() >= TOKEN;
            if enough {
                account.add(-TOKEN);
            }
            enough
        })
    }

    /// How many retries may be made now.
    pub(crate) fn balance(&self, now: Nanos) -> f64 {
        let parts = self.on_account(now, |account| account.sum()) + self.reserve();
        exact(u64::try_from(parts / TOKEN).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { floor: 10, percent: 20 };

    fn at(millis: u64) -> Nanos {
        Nanos::from_nanos(millis * 1_000_000)
    }

    fn spend(budget: &Budget, now: Nanos) -> usize {
        (0..100_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn the_floor_is_there_at_once_and_comes_back_after_the_window() {
        let budget = Budget::new(TERMS);
        assert_eq!((budget.balance(at(0)) as u32, spend(&budget, at(0))), (100, 100));
        assert_eq!((budget.balance(at(9_999)) as u32, spend(&budget, at(9_999))), (0, 0));
        assert_eq!(spend(&budget, at(10_000)), 100);
        // However long nobody asked.
        assert_eq!(spend(&budget, at(1_000_000_000)), 100);
    }

    #[test]
    fn operations_pay_for_a_fifth_of_their_number() {
        let budget = Budget::new(Terms { floor: 0, ..TERMS });
        assert!(!budget.withdraw(at(5)));
        for _ in 0..1000 {
            budget.deposit(at(5_500));
        }
        assert_eq!((budget.balance(at(6_000)) as u32, spend(&budget, at(6_000))), (200, 200));
        for _ in 0..1000 {
            budget.deposit(at(7_500));
        }
        // A deposit is forgotten after the window, and so is what was paid, each in its turn.
        assert_eq!(budget.balance(at(15_500)) as u32, 0);
        assert_eq!(budget.balance(at(16_500)) as u32, 200);
        assert_eq!(budget.balance(at(17_500)) as u32, 0);
    }

    #[test]
    fn spending_goes_on_at_the_rate_of_what_comes_in() {
        let budget = Budget::new(TERMS);
        let mut spent = 0;
        for second in 0..60 {
            for _ in 0..100 {
                budget.deposit(at(second * 1000));
            }
            spent += spend(&budget, at(second * 1000));
        }
        // 60 times 20 for the operations, and the floor's 100 in each window.
        assert_eq!(spent, 1200 + 600);
    }

    #[test]
    fn a_clock_that_reads_a_moment_earlier_does_no_harm() {
        let budget = Budget::new(TERMS);
        budget.deposit(at(20_000));
        assert!(budget.withdraw(at(19_000)));
        assert_eq!(budget.balance(at(20_000)) as u32, 99);
    }
}
