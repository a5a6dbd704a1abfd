//! The shop's requests: when they come, and what becomes of them.
//!
//! Requests come whether or not the shop keeps up (an open loop): each kind at its own rate, at random, as a
//! Poisson process has it. A rush is many at once. What a request does stands in `shop`.

mod shop;

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use self::shop::Shop;
use crate::Pool;

/// How many requests may be under way at once; what comes beyond is turned away, as a server would.
const MAX_UNDER_WAY: usize = 1000;

/// The first rush comes after this time, the others that far apart.
const FIRST_RUSH: Duration = Duration::from_secs(4);
const BETWEEN_RUSHES: [f64; 2] = [12.0, 20.0];

/// How many come in a rush, and within which time. Every third one is large.
const RUSH: [usize; 2] = [14, 24];
const LARGE_RUSH: [usize; 2] = [85, 105];
const EVERY_THIRD: u32 = 3;
const RUSH_WITHIN: f64 = 0.4;

/// A kind of request.
#[derive(Clone, Copy, Debug)]
enum Request {
    GetProduct,
    ListOrders,
    PlaceOrder,
    UpdateStock,
    ReserveStock,
    MoveStock,
    SalesReport,
    CountCustomers,
    PrintInvoice,
    ArchiveOrders,
    CheckoutRush,
}

impl Request {
    /// What its span is called, and of which kind it is.
    const fn route(self) -> (&'static str, &'static str) {
        match self {
            Self::GetProduct => ("GET /products/{id}", "server"),
            Self::ListOrders => ("GET /orders", "server"),
            Self::PlaceOrder => ("POST /orders", "server"),
            Self::UpdateStock => ("PUT /products/{id}/stock", "server"),
            Self::ReserveStock => ("POST /reservations", "server"),
            Self::MoveStock => ("POST /moves", "server"),
            Self::SalesReport => ("GET /reports/sales", "server"),
            Self::CountCustomers => ("GET /customers/count", "server"),
            Self::PrintInvoice => ("GET /invoices/{id}", "server"),
            Self::ArchiveOrders => ("archive orders", "internal"),
            Self::CheckoutRush => ("POST /checkout", "server"),
        }
    }
}

/// What comes by itself, and how often on average, per second.
const RATES: [(Request, f64); 10] = [
    (Request::GetProduct, 16.0),
    (Request::ListOrders, 12.0),
    (Request::PlaceOrder, 5.0),
    (Request::UpdateStock, 3.0),
    (Request::ReserveStock, 6.0),
    (Request::MoveStock, 3.0),
    (Request::SalesReport, 0.7),
    (Request::CountCustomers, 0.8),
    (Request::PrintInvoice, 0.4),
    (Request::ArchiveOrders, 0.05),
];

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// Requests come.
    Open,
    /// None comes any more; those under way go on.
    Closing,
    /// Those under way end, too.
    Over,
}

/// Requests that come, until [`stop`](Self::stop).
#[derive(Debug)]
pub(super) struct Workload {
    course: watch::Sender<Course>,
    task: JoinHandle<()>,
}

impl Workload {
    /// Lets requests come from now on.
    pub(super) fn start(pool: &Pool) -> Self {
        let (course, is_at) = watch::channel(Course::Open);
        Self { task: tokio::spawn(receive(Shop::new(pool), is_at)), course }
    }

    /// From now on no request comes. Those under way go on.
    pub(super) fn stop(&self) {
        self.course.send_replace(Course::Closing);
    }

    /// Ends what is still under way, and waits until it has: what it has to tell is told by then.
    pub(super) async fn abort(self) {
        self.course.send_replace(Course::Over);
        let _ = self.task.await;
    }
}

/// Takes requests as they come, and looks after them.
async fn receive(shop: Shop, mut course: watch::Receiver<Course>) {
    let mut arrivals = Arrivals::new(Instant::now());
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            _ = course.wait_for(|course| *course != Course::Open) => break,
            Some(ended) = under_way.join_next() => report(ended),
            () = sleep_until(arrivals.next()) => {
                let now = Instant::now();
                arrivals.take(now, |request, at| {
                    if under_way.len() < MAX_UNDER_WAY {
                        let shop = shop.clone();
                        under_way.spawn(async move {
                            sleep_until(at).await;
                            shop.serve(request).await;
                        });
                    }
                });
            }
        }
    }
    loop {
        tokio::select! {
            _ = course.wait_for(|course| *course == Course::Over) => break,
            ended = under_way.join_next() => match ended {
                Some(ended) => report(ended),
                None => break,
            },
        }
    }
    under_way.shutdown().await;
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a request did not end");
    }
}

/// When the next request of each kind comes.
#[derive(Debug)]
struct Arrivals {
    due: [Instant; RATES.len()],
    rush: Instant,
    rushes: u32,
}

impl Arrivals {
    /// Each kind comes a first time within the first second.
    fn new(now: Instant) -> Self {
        let due = std::array::from_fn(|_| now + Duration::from_secs_f64(fastrand::f64()));
        Self { due, rush: now + FIRST_RUSH, rushes: 0 }
    }

    fn next(&self) -> Instant {
        self.due.iter().copied().fold(self.rush, Instant::min)
    }

    /// Hands out what is due, with the time at which it comes. Whoever was away for long is not overrun afterwards:
    /// of each kind one comes.
    fn take(&mut self, now: Instant, mut come: impl FnMut(Request, Instant)) {
        for (due, (request, rate)) in self.due.iter_mut().zip(RATES) {
            if *due <= now {
                come(request, now);
                *due = now + exponential(1.0 / rate);
            }
        }
        if self.rush <= now {
            self.rushes += 1;
            let [least, most] = if self.rushes.is_multiple_of(EVERY_THIRD) { LARGE_RUSH } else { RUSH };
            for _ in 0..fastrand::usize(least..=most) {
                come(Request::CheckoutRush, now + between([0.0, RUSH_WITHIN]));
            }
            self.rush = now + between(BETWEEN_RUSHES);
        }
    }
}

/// A time at random, with this mean in seconds, as far apart as things are that do not know of each other.
/// Five times the mean at most.
fn exponential(mean: f64) -> Duration {
    let factor = -(1.0 - fastrand::f64()).ln();
    Duration::from_secs_f64(mean * factor.min(5.0))
}

/// A time at random between two, in seconds.
fn between([least, most]: [f64; 2]) -> Duration {
    Duration::from_secs_f64(least + (most - least) * fastrand::f64())
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
            arrivals.take(now, |request, at| {
                assert!(at >= now);
                match request {
                    Request::GetProduct => products += 1,
                    Request::ArchiveOrders => archived += 1,
                    Request::CheckoutRush => *rushes.last_mut().unwrap() += 1,
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
        arrivals.take(now, |request, _| came += usize::from(!matches!(request, Request::CheckoutRush)));
        assert_eq!(came, RATES.len());
        assert!(arrivals.next() > now);
    }
}
