//! What requests cost: each checkout is its request's, and no other's.

mod bodies;
mod readiness;
mod route_limits;
mod scopes;
mod shedding;

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use poolscope::labels::{Activity, Outcome};
use poolscope::middleware::{Head, PoolLayer};
use poolscope::pool::Pool;
use poolscope::telemetry::{RequestMethod, RequestTotals, RequestWarning};
use tower::{Layer as _, Service, ServiceExt as _, service_fn};

use super::backend::Scripted;
use super::harness::{Attempt, Rig, ms};

/// A layer for which paths are routes.
fn layer(rig: &Rig) -> PoolLayer<Scripted> {
    fn route<'a>(head: Head<'a>) -> Option<Cow<'a, str>> {
        Some(head.uri.path().into())
    }
    PoolLayer::new(&rig.core).route_by(route)
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).unwrap()
}

type Answer = Response<Full<Bytes>>;

fn answer() -> Answer {
    Response::new(Full::from("done"))
}

/// Serves a request to its end.
fn serve<S, B, E>(service: S, request: Request<Full<Bytes>>) -> Attempt<Result<Response<Bytes>, E>>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = E, Future: Send> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Send,
    E: Send,
{
    Attempt::new(async move {
        let (head, body) = service.oneshot(request).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await.unwrap().to_bytes()))
    })
}

/// Serves one request, which checks out once.
pub(super) fn serve_one(rig: &Rig) {
    let core = rig.core.clone();
    let handler = service_fn(move |_| {
        let core = core.clone();
        async move { core.get().await.map(|_| answer()) }
    });
    serve(layer(rig).layer(handler), get("/orders")).poll().unwrap().unwrap();
}

/// What the requests of a route cost.
#[track_caller]
fn cost(rig: &Rig, route: &str) -> RequestTotals {
    let requests = rig.snapshot().requests;
    requests.into_iter().find(|totals| &*totals.route == route).unwrap_or_else(|| panic!("no route {route}"))
}

#[track_caller]
fn ended(rig: &Rig, route: &str, outcome: Outcome) -> u64 {
    cost(rig, route).durations[outcome.index()].count()
}

/// What this thread logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || log.clone());
        tracing::subscriber::set_default(lines.finish())
    }

    fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn idle(cost: &RequestTotals) -> Duration {
    Duration::from_nanos(cost.use_nanos[Activity::Idle.index()])
}

#[tokio::test(start_paused = true)]
async fn checkouts_waits_and_uses_are_their_requests() {
    let rig = Rig::new(1, 0);
    let held = rig.take("somebody else");
    let core = rig.core.clone();
    let handler = service_fn(move |_| {
        let core = core.clone();
        async move {
            for _ in 0..2 {
                let connection = core.get().await.unwrap();
                tokio::time::sleep(ms(10)).await;
                drop(connection);
            }
            Ok::<_, Infallible>(answer())
        }
    });
    let mut request = serve(layer(&rig).layer(handler), get("/orders")).stays();
    rig.advance(ms(30)).await;
    let so_far = cost(&rig, "/orders");
    assert_eq!((so_far.started, so_far.in_flight, so_far.checkouts, so_far.wait_nanos), (1, 1, 1, 0));
    drop(held);
    for _ in 0..2 {
        assert!(request.poll().is_none());
        rig.advance(ms(10)).await;
    }
    assert_eq!(request.poll().unwrap().unwrap().into_body(), "done");

    let cost = cost(&rig, "/orders");
    assert_eq!((cost.method, cost.started, cost.in_flight, cost.checkouts), (RequestMethod::Get, 1, 0, 2));
    assert_eq!((Duration::from_nanos(cost.wait_nanos), idle(&cost)), (ms(30), ms(20)));
    let took = &cost.durations[Outcome::Ok.index()];
    assert_eq!((took.count(), took.sum_nanos), (1, 50_000_000));
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn a_request_without_the_pool_costs_it_nothing_and_is_counted() {
    let rig = Rig::new(1, 0);
    let handler = service_fn(async |_| Ok::<_, Infallible>(answer()));
    serve(layer(&rig).layer(handler), get("/about")).poll().unwrap().unwrap();
    let cost = cost(&rig, "/about");
    assert_eq!((cost.started, cost.checkouts, cost.use_nanos), (1, 0, [0; Activity::COUNT]));
    assert_eq!(ended(&rig, "/about", Outcome::Ok), 1);
    assert_eq!(rig.backend.opened(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_checkout_that_fails_or_is_dropped_has_waited_for_its_request() {
    let rig = Rig::new(1, 0);
    let _held = rig.take("somebody else");
    let core = rig.core.clone();
    let handler = service_fn(move |_| {
        let core = core.clone();
        async move {
            // One is given up, one is in vain.
            let _ = tokio::time::timeout(ms(40), core.get()).await;
            core.get().await.map(|_| answer())
        }
    });
    let mut request = serve(layer(&rig).layer(handler), get("/orders")).stays();
    rig.advance(ms(40)).await;
    assert!(request.poll().is_none());
    rig.advance(ms(1000)).await;
    request.poll().unwrap().unwrap_err();
    let cost = cost(&rig, "/orders");
    assert_eq!((cost.checkouts, Duration::from_nanos(cost.wait_nanos)), (2, ms(1040)));
    assert_eq!(ended(&rig, "/orders", Outcome::Error), 1, "the service failed");
    assert_eq!(rig.outcomes("GET /orders", Outcome::Cancelled), 1);
    assert_eq!(rig.outcomes("GET /orders", Outcome::Timeout), 1);
}

#[tokio::test(start_paused = true)]
async fn what_has_no_name_is_named_after_the_route_and_what_has_one_keeps_it() {
    let rig = Rig::new(1, 0);
    let handler = |core: &Pool<Scripted>| {
        let core = core.clone();
        service_fn(move |_| {
            let core = core.clone();
            async move {
                drop(core.get().await.unwrap());
                drop(core.operation("named").get().await.unwrap());
                core.run(async |_| Ok::<_, Infallible>(())).await.unwrap();
                Ok::<_, Infallible>(answer())
            }
        })
    };
    serve(layer(&rig).layer(handler(&rig.core)), get("/orders/{id}")).poll().unwrap().unwrap();
    assert_eq!(rig.outcomes("GET /orders/{id}", Outcome::Ok), 2);
    assert_eq!(rig.outcomes("named", Outcome::Ok), 1);
    assert_eq!(rig.snapshot().operations.len(), 3, "with `other`");

    let place = |rig: &Rig| rig.snapshot().operations.iter().filter(|totals| totals.name.contains(".rs:")).count();
    serve(layer(&rig).name_operations(false).layer(handler(&rig.core)), get("/orders")).poll().unwrap().unwrap();
    assert_eq!(place(&rig), 2, "each by its place");
    serve(PoolLayer::new(&rig.core).layer(handler(&rig.core)), get("/whatever")).poll().unwrap().unwrap();
    assert_eq!(place(&rig), 2, "a route that is not known names nothing");
    assert_eq!(cost(&rig, "unknown").checkouts, 3);
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_the_request_and_leaves_no_trace_on_the_thread() {
    let rig = Rig::new(1, 0);
    let core = rig.core.clone();
    let handler = service_fn(move |_| {
        let core = core.clone();
        async move {
            let _held = core.get().await.unwrap();
            std::panic::resume_unwind(Box::new("scripted"));
            #[allow(unreachable_code, reason = "it has to say what it would have answered")]
            Ok::<_, Infallible>(answer())
        }
    });
    let mut request = serve(layer(&rig).layer(handler), get("/orders"));
    request.try_poll().unwrap_err();
    drop(request);
    assert_eq!(ended(&rig, "/orders", Outcome::Cancelled), 1);
    drop(rig.take("afterwards"));
    assert_eq!(cost(&rig, "/orders").checkouts, 1, "what comes after is nobody's");
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn many_checkouts_are_warned_of_with_their_places() {
    let log = Log::default();
    let _logged = log.start();
    let rig = Rig::new(1, 0);
    let core = rig.core.clone();
    let handler = service_fn(move |request: Request<Full<Bytes>>| {
        let core = core.clone();
        let times: u32 = request.uri().query().unwrap().parse().unwrap();
        async move {
            for _ in 0..times {
                drop(core.get().await.unwrap());
            }
            let held = core.get().await.unwrap();
            tokio::time::sleep(ms(1000)).await;
            drop(held);
            Ok::<_, Infallible>(answer())
        }
    });
    let service = layer(&rig).many_checkouts(10).layer(handler);
    for (times, many) in [(9, 0), (10, 1), (11, 2)] {
        let mut request = serve(service.clone(), get(&format!("/orders?{times}"))).stays();
        // The lines of a kind come a second apart at most.
        rig.advance(ms(1000)).await;
        request.poll().unwrap().unwrap();
        // What a connection does is not known where there is no wire.
        assert_eq!(cost(&rig, "/orders").warnings, [many, 0], "after {times} + 1");
    }
    // Of what other tests log too, tracing may not ask this thread: whether anybody listens is found out once for all.
    let lines: Vec<_> = log.lines().into_iter().filter(|line| line.contains("many checkouts")).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for part in ["route=\"/orders\"", "method=\"GET\"", "checkouts=11", "requests/mod.rs:", " ×10, "] {
        assert!(lines[0].contains(part), "{part} in {}", lines[0]);
    }
    let warnings = RequestWarning::ALL.iter().map(|warning| warning.as_str());
    assert!(warnings.eq(["many_checkouts", "held_elsewhere"]));
}

#[tokio::test(start_paused = true)]
async fn of_two_layers_of_one_pool_the_outer_one_counts() {
    let rig = Rig::new(1, 0);
    let core = rig.core.clone();
    let handler = service_fn(move |_| {
        let core = core.clone();
        async move { core.get().await.map(|_| answer()) }
    });
    let inner = PoolLayer::new(&rig.core).server_timing(true).layer(handler);
    let answer = serve(layer(&rig).layer(inner), get("/orders")).poll().unwrap().unwrap();
    assert_eq!((answer.headers().len(), answer.into_body()), (0, "done".into()));
    let requests = rig.snapshot().requests;
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!((&*requests[0].route, requests[0].started, requests[0].checkouts), ("/orders", 1, 1));
}
