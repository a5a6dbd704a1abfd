//! Requests that are refused rather than left to wait.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use poolscope::labels::Outcome;
use poolscope::middleware::PoolLayer;
use tower::{Layer as _, Service, service_fn};

use super::super::backend::Scripted;
use super::super::harness::{Attempt, Rig, ms};
use super::{Answer, answer, cost, ended, get, layer, serve};

/// Holds a connection for 100 ms for each request, and counts how many come.
fn handler(
    rig: &Rig,
    came: &Arc<AtomicUsize>,
) -> impl Service<Request<Full<Bytes>>, Response = Answer, Error = Infallible, Future: Send> + Clone + Send + use<> {
    let (core, came) = (rig.core.clone(), Arc::clone(came));
    service_fn(move |_: Request<Full<Bytes>>| {
        let core = core.clone();
        came.fetch_add(1, SeqCst);
        async move {
            let mut answer = answer();
            match core.get().await {
                Ok(held) => {
                    tokio::time::sleep(ms(100)).await;
                    drop(held);
                }
                Err(_) => *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
            }
            Ok(answer)
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_request_behind_too_long_a_queue_is_refused_at_once() {
    let rig = Rig::new(1, 0);
    let came = Arc::default();
    let service = layer(&rig).shed_queue(2).layer(handler(&rig, &came));
    // One holds, and of those that wait the third finds two before it.
    let mut waiting: Vec<_> = (0..4).map(|_| serve(service.clone(), get("/orders")).stays()).collect();
    assert_eq!((rig.snapshot().queued, came.load(SeqCst)), (3, 4));
    let refused = serve(service.clone(), get("/orders")).poll().unwrap().unwrap();
    assert_eq!((refused.status(), refused.body().len()), (StatusCode::SERVICE_UNAVAILABLE, 0));
    assert_eq!(refused.headers()[RETRY_AFTER], "1");
    assert_eq!(came.load(SeqCst), 4, "the service was not asked");
    assert_eq!(ended(&rig, "/orders", Outcome::Shed), 1);
    assert_eq!(rig.outcomes("GET /orders", Outcome::Shed), 1, "a checkout, too");

    // There is room again.
    rig.advance(ms(100)).await;
    waiting[0].poll().unwrap().unwrap();
    assert!(waiting[1].poll().is_none());
    let served = serve(service, get("/orders")).stays();
    assert_eq!(came.load(SeqCst), 5);
    drop((served, waiting));
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_would_wait_too_long_is_refused_with_how_long() {
    let rig = Rig::new(1, 0);
    let service = layer(&rig).shed_wait(ms(350)).layer(handler(&rig, &Arc::default()));
    let mut waiting: Vec<_> = (0..4).map(|_| serve(service.clone(), get("/orders")).stays()).collect();
    // Nothing is known of the pace yet, but that nothing moves.
    for _ in 0..2 {
        rig.advance(ms(100)).await;
        waiting.retain_mut(|request| request.poll().is_none());
    }
    assert_eq!(waiting.len(), 2);
    // One is before it in the queue, each takes 100 ms: 200.
    let fourth = serve(service.clone(), get("/orders")).stays();
    // Two are: 300, and 60 for which nothing has moved.
    rig.advance(ms(60)).await;
    let layer = layer(&rig).shed_wait(ms(350));
    assert_eq!(
        layer.overload().unwrap().to_string(),
        "the pool is overloaded: 2 wait for a connection, and one more would for 360.0ms"
    );
    let refused = serve(service.clone(), get("/orders")).poll().unwrap().unwrap();
    assert_eq!(refused.headers()[RETRY_AFTER], "1");
    drop(fourth);
    assert!(layer.overload().is_none());
    let _served = serve(service, get("/orders")).stays();
}

#[tokio::test(start_paused = true)]
async fn by_default_nothing_is_refused() {
    let rig = Rig::new(1, 0);
    let service = layer(&rig).layer(handler(&rig, &Arc::default()));
    let _waiting: Vec<_> = (0..100).map(|_| serve(service.clone(), get("/orders")).stays()).collect();
    rig.advance(ms(900)).await;
    let _one_more = serve(service, get("/orders")).stays();
    assert_eq!(cost(&rig, "/orders").in_flight, 101);
    assert!(layer(&rig).overload().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_checkout_that_is_kept_and_not_polled_is_no_backlog_while_there_is_capacity() {
    let rig = Rig::new(2, 0);
    let held = rig.take_many("a", 2);
    let _parked = rig.checkout("parked").stays();
    let layer = layer(&rig).shed_queue(0).shed_wait(ms(100));
    rig.advance(ms(500)).await;
    assert!(layer.overload().is_some(), "both are out");
    drop(held);
    for _ in 0..5 {
        rig.advance(ms(100)).await;
        drop(rig.take("others"));
        assert_eq!(rig.snapshot().queued, 1);
        assert!(layer.overload().is_none(), "one is free for whoever asks");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_hour_is_forgotten() {
    let mut settings = super::super::harness::settings(1, 0);
    settings.checkout_timeout = ms(60_000);
    settings.pre_ping = false;
    settings.recycle_after = None;
    let rig = Rig::with(&settings);
    let layer = layer(&rig).shed_wait(ms(2_000));
    for held_for in [5_000, 1] {
        let held = rig.take("a");
        let mut queued = rig.checkout("b").stays();
        rig.advance(ms(held_for)).await;
        assert_eq!(layer.overload().is_some(), held_for > 2_000);
        drop(held);
        drop(queued.poll().unwrap().unwrap());
        rig.advance(ms(3_600_000)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_their_routes_share_are_a_queue_too_and_only_that_routes() {
    let rig = Rig::new(4, 0);
    let service = layer(&rig).route_share(50).shed_queue(1).layer(handler(&rig, &Arc::default()));
    let mut reports: Vec<_> = (0..4).map(|_| serve(service.clone(), get("/report")).stays()).collect();
    let refused = serve(service.clone(), get("/report")).poll().unwrap().unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let _login = serve(service.clone(), get("/login")).stays();
    assert_eq!((ended(&rig, "/report", Outcome::Shed), cost(&rig, "/login").in_flight), (1, 1));
    rig.advance(ms(100)).await;
    reports.retain_mut(|report| report.poll().is_none());
    assert_eq!(reports.len(), 2);
    let _report = serve(service, get("/report")).stays();
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_takes_no_name_of_an_operation() {
    let rig = Rig::new(1, 0);
    let _held = rig.take("a");
    let _queued = rig.checkout("b").stays();
    let service = layer(&rig).shed_queue(0).layer(handler(&rig, &Arc::default()));
    for route in 0..300 {
        serve(service.clone(), get(&format!("/{route}"))).poll().unwrap().unwrap();
    }
    let operations = rig.snapshot().operations;
    assert_eq!(operations.len(), 3, "other, a and b");
    assert_eq!(operations[0].outcomes[Outcome::Shed.index()], 300);
}

type Served = Attempt<Result<Response<Bytes>, Infallible>>;

/// What those who are served see, when for three seconds twice as many come as can be: the 99th percentile, and how many
/// were served and refused.
async fn overloaded(shed: impl FnOnce(PoolLayer<Scripted>) -> PoolLayer<Scripted>) -> (Duration, usize, usize) {
    let mut settings = super::super::harness::settings(4, 0);
    settings.checkout_timeout = ms(5_000);
    settings.pre_ping = false;
    let rig = Rig::with(&settings);
    let service = shed(layer(&rig)).layer(handler(&rig, &Arc::default()));
    let mut under_way: Vec<(u64, Served)> = Vec::new();
    let (mut served, mut refused) = (Vec::new(), 0);
    let mut millis = 0;
    while millis < 3_000 || !under_way.is_empty() {
        // The pool takes four each 100 ms, and eight come.
        if millis < 3_000 && millis % 25 == 0 {
            under_way.extend([(); 2].map(|()| (millis, serve(service.clone(), get("/orders")))));
        }
        under_way.retain_mut(|(came, request)| {
            let Some(answer) = request.is_woken().then(|| request.poll()).flatten() else { return true };
            match answer.unwrap().status() {
                StatusCode::OK => served.push(millis - *came),
                StatusCode::SERVICE_UNAVAILABLE => refused += 1,
                status => panic!("{status}"),
            }
            false
        });
        rig.advance(ms(5)).await;
        millis += 5;
    }
    served.sort_unstable();
    (ms(served[served.len() * 99 / 100]), served.len(), refused)
}

#[tokio::test(start_paused = true)]
async fn shedding_keeps_the_latency_of_those_who_are_served_flat() {
    let (without, all, none) = overloaded(|layer| layer).await;
    let (with, served, refused) = overloaded(|layer| layer.shed_wait(ms(200))).await;
    let (by_queue, ..) = overloaded(|layer| layer.shed_queue(7)).await;
    assert_eq!((all, none, served + refused), (240, 0, 240));
    // Without, each waits for all who came before; with, for 200 ms beside its own 100 and some.
    assert!(without >= ms(2_900), "{without:?}");
    assert!(with <= ms(350), "{with:?}");
    assert!(by_queue <= ms(350), "{by_queue:?}");
    // And the pool is not idle for that.
    assert!(served >= 120, "{served}");
}
