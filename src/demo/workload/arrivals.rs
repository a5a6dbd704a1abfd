//! When things come: each kind at its own rate, at random, as a Poisson process has it; and rushes, many at once.

use std::time::Duration;

use tokio::time::Instant;

use crate::demo::chance::{between, exponential};
use crate::demo::shop::Endpoint;

/// The first rush comes after this time, the others that far apart.
const FIRST_RUSH: Duration = Duration::from_secs(4);
const BETWEEN_RUSHES: [f64; 2] = [12.0, 20.0];

/// How many come in a rush, and within which time. Every third one is large.
const RUSH: [usize; 2] = [14, 24];
const LARGE_RUSH: [usize; 2] = [85, 105];
const EVERY_THIRD: u32 = 3;
const RUSH_WITHIN: f64 = 0.4;

/// What comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// A customer, who asks the shop for something.
    Customer(Endpoint),
    /// The hour at which the shop archives orders.
    Archiving,
}

/// What comes by itself, and how often on average, per second.
const RATES: [(Arrival, f64); 10] = [
    (Arrival::Customer(Endpoint::GetProduct), 16.0),
    (Arrival::Customer(Endpoint::ListOrders), 12.0),
    (Arrival::Customer(Endpoint::PlaceOrder), 5.0),
    (Arrival::Customer(Endpoint::UpdateStock), 3.0),
    (Arrival::Customer(Endpoint::ReserveStock), 6.0),
    (Arrival::Customer(Endpoint::MoveStock), 3.0),
    (Arrival::Customer(Endpoint::SalesReport), 0.7),
    (Arrival::Customer(Endpoint::CountCustomers), 0.8),
    (Arrival::Customer(Endpoint::PrintInvoice), 0.4),
    (Arrival::Archiving, 0.05),
];

/// What each customer of a rush wants.
const RUSHING: Arrival = Arrival::Customer(Endpoint::CheckoutRush);

/// When the next of each kind comes.
#[derive(Debug)]
pub(super) struct Arrivals {
    due: [Instant; RATES.len()],
    rush: Instant,
    rushes: u32,
}

impl Arrivals {
    /// Each kind comes a first time within the first second.
    pub(super) fn new(now: Instant) -> Self {
        let due = std::array::from_fn(|_| now + Duration::from_secs_f64(fastrand::f64()));
        Self { due, rush: now + FIRST_RUSH, rushes: 0 }
    }

    pub(super) fn next(&self) -> Instant {
        self.due.iter().copied().fold(self.rush, Instant::min)
    }

    /// Hands out what is due, with the time at which it comes. Whoever was away for long is not overrun afterwards:
    /// of each kind one comes.
    pub(super) fn take(&mut self, now: Instant, mut come: impl FnMut(Arrival, Instant)) {
        for (due, (arrival, rate)) in self.due.iter_mut().zip(RATES) {
            if *due <= now {
                come(arrival, now);
                *due = now + exponential(1.0 / rate);
            }
        }
        if self.rush <= now {
            self.rushes += 1;
            let [least, most] = if self.rushes.is_multiple_of(EVERY_THIRD) { LARGE_RUSH } else { RUSH };
            for _ in 0..fastrand::usize(least..=most) {
                come(RUSHING, now + between([0.0, RUSH_WITHIN]));
            }
            self.rush = now + between(BETWEEN_RUSHES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_at_their_rates_and_every_third_rush_is_large() {
        let begin = Instant::now();
        let (mut arrivals, mut now) = (Arrivals::new(begin), begin);
        let (mut products, mut archived, mut rushes) = (0, 0, vec![0]);
        while now < begin + Duration::from_secs(600) {
            now = arrivals.next();
            arrivals.take(now, |arrival, at| {
                assert!(at >= now);
                match arrival {
                    Arrival::Customer(Endpoint::GetProduct) => products += 1,
                    Arrival::Archiving => archived += 1,
                    RUSHING => *rushes.last_mut().unwrap() += 1,
                    _ => {}
                }
            });
            if rushes.last() != Some(&0) {
                rushes.push(0);
            }
        }
        assert!((8000..12000).contains(&products), "{products}");
        assert!((10..60).contains(&archived), "{archived}");
        rushes.pop();
        assert!(rushes.len() > 25, "{rushes:?}");
        for (index, size) in rushes.iter().enumerate() {
            assert_eq!(index % 3 == 2, *size > 50, "{rushes:?}");
        }
    }

    #[test]
    fn whoever_was_away_is_not_overrun() {
        let begin = Instant::now();
        let mut arrivals = Arrivals::new(begin);
        let mut came = 0;
        let now = begin + Duration::from_secs(3600);
        arrivals.take(now, |arrival, _| came += usize::from(arrival != RUSHING));
        assert_eq!(came, RATES.len());
        assert!(arrivals.next() > now);
    }
}
