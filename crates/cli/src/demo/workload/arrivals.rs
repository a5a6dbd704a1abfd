//! The times of arrivals: a Poisson process for each kind, and bursts.

use std::time::Duration;

use tokio::time::Instant;

use super::load::{Arrival, Bursts, Load};
use crate::demo::random::{between, exponential};
use crate::demo::shop::Endpoint;

/// Every how many bursts one is large.
const LARGE_BURST_PERIOD: u32 = 3;

/// The bounds of the delays of requests in a burst, in seconds.
const BURST_DELAY_SECONDS: [f64; 2] = [0.0, 0.4];

/// The request of a burst.
const BURST_ARRIVAL: Arrival = Arrival::Customer(Endpoint::CheckoutRush);

/// Arrivals of one kind.
#[derive(Debug)]
struct Stream {
    arrival: Arrival,
    rate: f64,
    due: Instant,
}

/// The next arrivals of all kinds.
#[derive(Debug)]
pub(super) struct Arrivals {
    streams: Vec<Stream>,
    bursts: Option<Bursts>,
    next_burst: Option<Instant>,
    burst_count: u32,
}

impl Arrivals {
    /// Schedules the arrivals of a load. The first of each kind is within a second.
    pub(super) fn new(load: &Load, now: Instant) -> Self {
        let within_a_second = || now + Duration::from_secs_f64(fastrand::f64());
        let streams = load.rates().map(|(arrival, rate)| Stream { arrival, rate, due: within_a_second() }).collect();
        Self { streams, bursts: load.bursts, next_burst: load.bursts.map(|bursts| now + bursts.first), burst_count: 0 }
    }

    /// Returns the time of the next arrival; `None` without load.
    pub(super) fn next(&self) -> Option<Instant> {
        self.streams.iter().map(|stream| stream.due).chain(self.next_burst).min()
    }

    /// Calls `arrive` with each arrival that is due and its time. After a long delay, only one of each kind is due.
    pub(super) fn take(&mut self, now: Instant, mut arrive: impl FnMut(Arrival, Instant)) {
        for stream in self.streams.iter_mut().filter(|stream| stream.due <= now) {
            arrive(stream.arrival, now);
            stream.due = now + exponential(1.0 / stream.rate);
        }
        if let Some(bursts) = self.bursts
            && self.next_burst.is_some_and(|at| at <= now)
        {
            self.burst_count += 1;
            let is_large = self.burst_count.is_multiple_of(LARGE_BURST_PERIOD);
            let [least, most] = if is_large { bursts.large_size } else { bursts.size };
            for _ in 0..fastrand::usize(least..=most) {
                arrive(BURST_ARRIVAL, now + between(BURST_DELAY_SECONDS));
            }
            self.next_burst = Some(now + between(bursts.interval_seconds));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load {
        rates: &[(Arrival::Customer(Endpoint::GetProduct), 16.0), (Arrival::Archiving, 0.05)],
        extra: &[(Arrival::Customer(Endpoint::SalesReport), 0.7)],
        bursts: Some(Bursts {
            first: Duration::from_secs(4),
            interval_seconds: [12.0, 20.0],
            size: [14, 24],
            large_size: [85, 105],
        }),
        client_timeout: None,
    };

    #[test]
    fn rates_hold_and_every_third_burst_is_large() {
        let begin = Instant::now();
        let (mut arrivals, mut now) = (Arrivals::new(&LOAD, begin), begin);
        let (mut products, mut reports, mut archived, mut bursts) = (0, 0, 0, vec![0]);
        while now < begin + Duration::from_secs(600) {
            now = arrivals.next().unwrap();
            arrivals.take(now, |arrival, at| {
                assert!(at >= now);
                match arrival {
                    Arrival::Archiving => archived += 1,
                    BURST_ARRIVAL => *bursts.last_mut().unwrap() += 1,
                    Arrival::Customer(Endpoint::GetProduct) => products += 1,
                    Arrival::Customer(_) => reports += 1,
                }
            });
            if bursts.last() != Some(&0) {
                bursts.push(0);
            }
        }
        assert!((8000..12000).contains(&products), "{products}");
        assert!((300..560).contains(&reports), "{reports}");
        assert!((10..60).contains(&archived), "{archived}");
        bursts.pop();
        assert!(bursts.len() > 25, "{bursts:?}");
        for (index, size) in bursts.iter().enumerate() {
            assert_eq!(index % 3 == 2, *size > 50, "{bursts:?}");
        }
    }

    #[test]
    fn missed_arrivals_are_skipped() {
        let begin = Instant::now();
        let mut arrivals = Arrivals::new(&LOAD, begin);
        let mut count = 0;
        let now = begin + Duration::from_secs(3600);
        arrivals.take(now, |arrival, _| count += usize::from(arrival != BURST_ARRIVAL));
        assert_eq!(count, LOAD.rates().count());
        assert!(arrivals.next().is_some_and(|next| next > now));
    }

    #[test]
    fn no_load_has_no_arrivals() {
        let load = Load { rates: &[], extra: &[], bursts: None, client_timeout: None };
        assert_eq!(Arrivals::new(&load, Instant::now()).next(), None);
    }
}
