//! The shop's load: when customers come, and what becomes of them.
//!
//! They come whether or not the shop keeps up (an open loop). When stands in `arrivals`, and what each does in
//! `customers`.

mod arrivals;
mod customers;
mod load;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use self::arrivals::Arrivals;
use self::customers::Customers;
pub(super) use self::load::{Arrival, Load, Rushes};
use super::course::Course;
use super::shop::{Handlers, Shop};

/// How many may be under way at once; what comes beyond is turned away. Each has a socket of the process's at either end.
const MAX_UNDER_WAY: usize = 400;

/// Customers who come, until [`stop`](Self::stop).
#[derive(Debug)]
pub(super) struct Workload {
    course: watch::Sender<Course>,
    load: watch::Sender<&'static Load>,
    task: JoinHandle<()>,
}

impl Workload {
    /// Lets customers come to the shop from now on.
    pub(super) fn start(shop: &Shop, load: &'static Load) -> Self {
        let (course, is_at) = watch::channel(Course::Open);
        let (load, loads) = watch::channel(load);
        let doings = Doings { customers: Customers::of(shop.url()), jobs: shop.handlers() };
        Self { task: tokio::spawn(receive(doings, loads, is_at)), load, course }
    }

    /// By which others say how many come from now on.
    pub(super) fn load(&self) -> watch::Sender<&'static Load> {
        self.load.clone()
    }

    /// From now on nobody comes. Those under way go on.
    pub(super) fn stop(&self) {
        self.course.send_replace(Course::Closing);
    }

    /// Ends what is still under way, and waits until it has: what it has to tell is told by then.
    pub(super) async fn abort(self) {
        self.course.send_replace(Course::Over);
        let _ = self.task.await;
    }
}

/// Takes customers as they come, and looks after them.
async fn receive(doings: Doings, mut loads: watch::Receiver<&'static Load>, mut course: watch::Receiver<Course>) {
    let mut load = *loads.borrow_and_update();
    let mut arrivals = Arrivals::new(load, Instant::now());
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            () = Course::Closing.reached(&mut course) => break,
            Some(ended) = under_way.join_next() => report(ended),
            Ok(()) = loads.changed() => {
                load = *loads.borrow_and_update();
                arrivals = Arrivals::new(load, Instant::now());
            }
            () = arrival(&arrivals) => {
                let now = Instant::now();
                arrivals.take(now, |arrival, at| {
                    if under_way.len() < MAX_UNDER_WAY {
                        under_way.spawn(arrive(doings.clone(), load.patience, arrival, at, course.clone()));
                    }
                });
            }
        }
    }
    loop {
        tokio::select! {
            () = Course::Over.reached(&mut course) => break,
            ended = under_way.join_next() => match ended {
                Some(ended) => report(ended),
                None => break,
            },
        }
    }
    under_way.shutdown().await;
}

/// Waits until the next comes.
async fn arrival(arrivals: &Arrivals) {
    match arrivals.next() {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Who comes, and what the shop does by itself.
#[derive(Clone, Debug)]
struct Doings {
    customers: Customers,
    jobs: Arc<Handlers>,
}

async fn arrive(
    doings: Doings,
    patience: Option<Duration>,
    arrival: Arrival,
    at: Instant,
    mut course: watch::Receiver<Course>,
) {
    tokio::select! {
        biased;
        // Whoever was still on the way turns round.
        () = Course::Closing.reached(&mut course) => return,
        () = sleep_until(at) => {}
    }
    match arrival {
        Arrival::Customer(endpoint) => doings.customers.ask(endpoint, patience).await,
        Arrival::Archiving => doings.jobs.archive_orders().await,
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a request did not end");
    }
}
