//! The load on the shop.
//!
//! Requests arrive independently of the shop's response times (an open loop). `arrivals` schedules them, and `customers`
//! sends them.

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
pub(super) use self::load::{Arrival, Bursts, Load};
use super::drain::DrainState;
use super::shop::{Handlers, Shop};

/// How many requests may be in flight; others are dropped. Each needs two sockets of this process.
const MAX_IN_FLIGHT: usize = 400;

/// The running load. Stopped by [`drain`](Self::drain), then [`abort`](Self::abort).
#[derive(Debug)]
pub(super) struct Workload {
    state: watch::Sender<DrainState>,
    load: watch::Sender<&'static Load>,
    task: JoinHandle<()>,
}

impl Workload {
    /// Starts to send requests to the shop.
    pub(super) fn start(shop: &Shop, load: &'static Load) -> Self {
        let (state, state_receiver) = watch::channel(DrainState::Running);
        let (load, load_receiver) = watch::channel(load);
        let sender = RequestSender { customers: Customers::new(shop.url()), jobs: shop.handlers() };
        Self { task: tokio::spawn(generate(sender, load_receiver, state_receiver)), load, state }
    }

    /// Returns the sender to change the load with.
    pub(super) fn load(&self) -> watch::Sender<&'static Load> {
        self.load.clone()
    }

    /// Stops sending requests. Those in flight continue.
    pub(super) fn drain(&self) {
        self.state.send_replace(DrainState::Draining);
    }

    /// Waits for the end of the requests in flight, after [`drain`](Self::drain). Cancel safe.
    pub(super) async fn drained(&self) {
        // The load and its requests have the receivers.
        self.state.closed().await;
    }

    /// Aborts the requests in flight, and waits for their end.
    pub(super) async fn abort(self) {
        self.state.send_replace(DrainState::Aborted);
        let _ = self.task.await;
    }
}

/// Sends requests until the workload is drained.
async fn generate(
    sender: RequestSender,
    mut loads: watch::Receiver<&'static Load>,
    mut state: watch::Receiver<DrainState>,
) {
    let mut load = *loads.borrow_and_update();
    let mut arrivals = Arrivals::new(load, Instant::now());
    let mut in_flight = JoinSet::new();
    loop {
        tokio::select! {
            () = DrainState::Draining.reached(&mut state) => break,
            Some(result) = in_flight.join_next() => log_failure(result),
            Ok(()) = loads.changed() => {
                load = *loads.borrow_and_update();
                arrivals = Arrivals::new(load, Instant::now());
            }
            () = next_arrival(&arrivals) => {
                let now = Instant::now();
                arrivals.take(now, |arrival, at| {
                    if in_flight.len() < MAX_IN_FLIGHT {
                        in_flight.spawn(send(sender.clone(), load.client_timeout, arrival, at, state.clone()));
                    }
                });
            }
        }
    }
    loop {
        tokio::select! {
            () = DrainState::Aborted.reached(&mut state) => break,
            result = in_flight.join_next() => match result {
                Some(result) => log_failure(result),
                None => break,
            },
        }
    }
    in_flight.shutdown().await;
}

/// Waits until the next arrival.
async fn next_arrival(arrivals: &Arrivals) {
    match arrivals.next() {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What executes arrivals.
#[derive(Clone, Debug)]
struct RequestSender {
    customers: Customers,
    jobs: Arc<Handlers>,
}

/// Executes an arrival at its time, unless the workload is drained before.
async fn send(
    sender: RequestSender,
    client_timeout: Option<Duration>,
    arrival: Arrival,
    at: Instant,
    mut state: watch::Receiver<DrainState>,
) {
    tokio::select! {
        biased;
        () = DrainState::Draining.reached(&mut state) => return,
        () = sleep_until(at) => {}
    }
    match arrival {
        Arrival::Customer(endpoint) => sender.customers.send(endpoint, client_timeout).await,
        Arrival::Archiving => sender.jobs.archive_orders().await,
    }
}

fn log_failure(result: Result<(), JoinError>) {
    if let Err(error) = result {
        tracing::error!(%error, "request task failed");
    }
}
