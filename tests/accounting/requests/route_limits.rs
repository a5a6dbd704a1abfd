//! How much of the pool a route may hold.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use poolscope::error::CheckoutError;
use poolscope::labels::{CloseReason, Outcome, Phase};
use poolscope::pool::Pool;
use tower::{Layer as _, service_fn};

use super::super::backend::Scripted;
use super::super::harness::{Attempt, Rig, ms, settle};
use super::{answer, cost, get, layer, serve};

type Served = Attempt<Result<http::Response<Bytes>, Infallible>>;

/// Requests that hold a connection for 100 ms each; and give up if they get none.
fn requests<'a>(rig: &'a Rig, percent: u8) -> impl Fn(&str) -> Served + 'a {
    let core = rig.core.clone();
    let handler = service_fn(move |_: Request<Full<Bytes>>| {
        let core = core.clone();
        async move {
            if let Ok(held) = core.get().await {
                tokio::time::sleep(ms(100)).await;
                drop(held);
            }
            Ok::<_, Infallible>(answer())
        }
    });
    let service = layer(rig).route_share(percent).layer(handler);
    move |path| serve(service.clone(), get(path))
}

#[tokio::test(start_paused = true)]
async fn a_hog_leaves_the_others_their_part_of_the_pool() {
    let rig = Rig::new(4, 0);
    let request = requests(&rig, 50);
    let mut hogs: Vec<_> = (0..6).map(|_| request("/report").stays()).collect();
    assert_eq!(rig.snapshot().connections.used, 2);
    let waiters = rig.snapshot().waiters;
    assert!(waiters.len() == 4 && waiters.iter().all(|waiter| waiter.phase == Phase::Share), "{waiters:?}");
    assert_eq!(rig.snapshot().queued, 0, "there is room in the pool");

    // The login does not wait at all.
    let mut login = request("/login").stays();
    assert_eq!(rig.snapshot().connections.used, 3);
    rig.advance(ms(100)).await;
    login.poll().unwrap().unwrap();
    assert_eq!(cost(&rig, "/login").wait_nanos, 0);

    for round in [2, 1, 0] {
        settle(&mut hogs, |_, _| ());
        assert_eq!(hogs.len(), 2 * round);
        rig.advance(ms(100)).await;
    }
    // Two waited for 100 ms, two for 200.
    assert_eq!(rig.phase(Phase::Share), ms(600));
    assert_eq!(cost(&rig, "/report").wait_nanos, 600_000_000);
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_the_hog_has_it_all() {
    let rig = Rig::new(4, 0);
    let request = requests(&rig, 100);
    let _hogs: Vec<_> = (0..6).map(|_| request("/report").stays()).collect();
    let mut login = request("/login").stays();
    rig.advance(ms(100)).await;
    assert!(login.poll().is_none(), "it is the seventh");
}

#[tokio::test(start_paused = true)]
async fn a_route_always_has_one_and_its_methods_share() {
    let rig = Rig::new(4, 0);
    let request = requests(&rig, 0);
    let _first = request("/report").stays();
    assert_eq!(rig.snapshot().connections.used, 1);
    let _second = request("/report").stays();
    assert_eq!(rig.snapshot().connections.used, 1);
    let _other = request("/login").stays();
    assert_eq!(rig.snapshot().connections.used, 2);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_its_share_meets_its_deadline_and_is_counted() {
    let rig = Rig::new(2, 0);
    let request = requests(&rig, 50);
    let held = request("/report").stays();
    let mut waiting = request("/report").stays();
    // Nobody polls the one that holds.
    rig.advance(ms(1000)).await;
    waiting.poll().unwrap().unwrap();
    assert_eq!(rig.outcomes("GET /report", Outcome::Timeout), 1);
    assert_eq!(rig.phase(Phase::Share), ms(1000));
    drop(held);
    let mut next = request("/report").stays();
    rig.advance(ms(100)).await;
    next.poll().unwrap().unwrap();
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn who_is_dropped_while_it_waits_for_its_share_leaves_its_place_to_the_next() {
    let rig = Rig::new(2, 0);
    let request = requests(&rig, 50);
    let mut held = request("/report").stays();
    let dropped = request("/report").stays();
    let mut next = request("/report").stays();
    rig.advance(ms(100)).await;
    held.poll().unwrap().unwrap();
    // It was called, and does not come any more.
    drop(dropped);
    assert_eq!(rig.outcomes("GET /report", Outcome::Cancelled), 1);
    assert!(next.is_woken() && next.poll().is_none());
    rig.advance(ms(100)).await;
    next.poll().unwrap().unwrap();
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn closing_the_pool_ends_the_wait_for_a_share() {
    let rig = Rig::new(2, 0);
    let core = rig.core.clone();
    let handler = service_fn(move |_: Request<Full<Bytes>>| {
        let core = core.clone();
        async move {
            match core.get().await {
                Ok(held) => {
                    tokio::time::sleep(ms(100)).await;
                    drop(held);
                }
                Err(error) => assert!(matches!(error, CheckoutError::Closed { .. }), "{error}"),
            }
            Ok::<_, Infallible>(answer())
        }
    });
    let service = layer(&rig).route_share(50).layer(handler);
    let mut held = serve(service.clone(), get("/report")).stays();
    let mut waiting = serve(service.clone(), get("/report")).stays();
    let core = rig.core.clone();
    let mut closing = Attempt::new(async move { core.close().await }).stays();
    assert!(waiting.is_woken());
    waiting.poll().unwrap().unwrap();
    serve(service, get("/late")).poll().unwrap().unwrap();
    rig.advance(ms(100)).await;
    held.poll().unwrap().unwrap();
    assert!(closing.poll().is_some());
    assert_eq!(rig.outcomes("GET /report", Outcome::Closed), 1);
    assert_eq!(rig.outcomes("GET /late", Outcome::Closed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_surplus_that_comes_back_is_kept_for_who_waits_for_its_share() {
    let rig = Rig::new(1, 2);
    let request = requests(&rig, 67);
    let others = rig.take("others");
    let mut first = request("/report").stays();
    let mut second = request("/report").stays();
    let mut waiting = [request("/report").stays(), request("/report").stays()];
    assert_eq!(rig.snapshot().connections.used, 3);
    drop(others);
    rig.advance(ms(100)).await;
    first.poll().unwrap().unwrap();
    second.poll().unwrap().unwrap();
    for third in &mut waiting {
        assert!(third.is_woken() && third.poll().is_none());
    }
    assert_eq!(rig.backend.opened(), 3, "they got what was there");
    rig.advance(ms(100)).await;
    for third in &mut waiting {
        third.poll().unwrap().unwrap();
    }
    assert_eq!(rig.closed(CloseReason::Overflow), 2);
    rig.works();
}

/// Looks, when it is woken, whether there is a connection to be had.
struct Looks {
    core: Pool<Scripted>,
    found: Mutex<Vec<bool>>,
}

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        // On a thread of its own, where no request is served that has a share.
        let found = std::thread::scope(|scope| {
            let look = || pin!(self.core.get()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
            scope.spawn(look).join().unwrap()
        });
        self.found.lock().unwrap().push(found);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_its_share_is_called_when_the_connection_is_back() {
    let rig = Rig::new(2, 0);
    let _others = rig.take("others");
    let request = requests(&rig, 50);
    let mut held = request("/report").stays();
    let looks = Arc::new(Looks { core: rig.core.clone(), found: Mutex::default() });
    let mut waiting = request("/report");
    assert!(waiting.poll_for(&Waker::from(Arc::clone(&looks))).is_none());
    rig.advance(ms(100)).await;
    held.poll().unwrap().unwrap();
    assert_eq!(*looks.found.lock().unwrap(), [true]);
}
