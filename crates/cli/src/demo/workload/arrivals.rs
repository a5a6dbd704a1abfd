//! When things come: each kind at its own rate, at random, as a Poisson process has it; and rushes, many at once.

use std::time::Duration;

use tokio::time::Instant;

use super::load::{Arrival, Load, Rushes};
use crate::demo::chance::{between, exponential};
use crate::demo::shop::Endpoint;

/// Which rushes are large.
const EVERY_THIRD: u32 = 3;

/// Within which time those of a rush come, in seconds.
const RUSH_WITHIN: [f64; 2] = [0.0, 0.4];

/// What each customer of a rush wants.
const RUSHING: Arrival = Arrival::Customer(Endpoint::CheckoutRush);

/// Something that comes again and again.
#[derive(Debug)]
struct Stream {
    arrival: Arrival,
    rate: f64,
    due: Instant,
}

/// When the next of each kind comes.
#[derive(Debug)]
pub(super) struct Arrivals {
    streams: Vec<Stream>,
    rushes: Option<Rushes>,
    rush: Option<Instant>,
    rushed: u32,
}

impl Arrivals {
    /// What comes with this load. Each kind comes a first time within the first second.
    pub(super) fn new(load: &Load, now: Instant) -> Self {
        let within_a_second = || now + Duration::from_secs_f64(fastrand::f64());
        let streams = load.rates().map(|(arrival, rate)| Stream { arrival, rate, due: within_a_second() }).collect();
        Self { streams, rushes: load.rushes, rush: load.rushes.map(|rushes| now + rushes.first), rushed: 0 }
    }

    /// When the next comes; `None` if nothing does.
    pub(super) fn next(&self) -> Option<Instant> {
        self.streams.iter().map(|stream| stream.due).chain(self.rush).min()
    }

    /// Hands out what is due, with the time at which it comes. Whoever was away for long is not overrun afterwards:
    /// of each kind one comes.
    pub(super) fn take(&mut self, now: Instant, mut come: impl FnMut(Arrival, Instant)) {
        for stream in self.streams.iter_mut().filter(|stream| stream.due <= now) {
            come(stream.arrival, now);
            stream.due = now + exponential(1.0 / stream.rate);
        }
        if let Some(rushes) = self.rushes
            && self.rush.is_some_and(|rush| rush <= now)
        {
            self.rushed += 1;
            let [least, most] = if self.rushed.is_multiple_of(EVERY_THIRD) { rushes.third } else { rushes.size };
            for _ in 0..fastrand::usize(least..=most) {
                come(RUSHING, now + between(RUSH_WITHIN));
            }
            self.rush = Some(now + between(rushes.apart));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load {
        rates: &[(Arrival::Customer(Endpoint::GetProduct), 16.0), (Arrival::Archiving, 0.05)],
        more: &[(Arrival::Customer(Endpoint::SalesReport), 0.7)],
        rushes: Some(Rushes { first: Duration::from_secs(4), apart: [12.0, 20.0], size: [14, 24], third: [85, 105] }),
        patience: None,
    };

    #[test]
    fn requests_come_at_their_rates_and_every_third_rush_is_large() {
        let begin = Instant::now();
        let (mut arrivals, mut now) = (Arrivals::new(&LOAD, begin), begin);
        let (mut products, mut reports, mut archived, mut rushes) = (0, 0, 0, vec![0]);
        while now < begin + Duration::from_secs(600) {
            now = arrivals.next().unwrap();
            arrivals.take(now, |arrival, at| {
                assert!(at >= now);
                match arrival {
                    Arrival::Archiving => archived += 1,
                    RUSHING => *rushes.last_mut().unwrap() += 1,
                    Arrival::Customer(Endpoint::GetProduct) => products += 1,
                    Arrival::Customer(_) => reports += 1,
                }
            });
            if rushes.last() != Some(&0) {
                rushes.push(0);
            }
        }
        assert!((8000..12000).contains(&products), "{products}");
        assert!((300..560).contains(&reports), "{reports}");
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
        let mut arrivals = Arrivals::new(&LOAD, begin);
        let mut came = 0;
        let now = begin + Duration::from_secs(3600);
        arrivals.take(now, |arrival, _| came += usize::from(arrival != RUSHING));
        assert_eq!(came, LOAD.rates().count());
        assert!(arrivals.next().is_some_and(|next| next > now));
    }

    #[test]
    fn nothing_comes_of_no_load() {
        let load = Load { rates: &[], more: &[], rushes: None, patience: None };
        assert_eq!(Arrivals::new(&load, Instant::now()).next(), None);
    }
}
