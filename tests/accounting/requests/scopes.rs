//! What belongs to a request, and that requests never mix.

use std::convert::Infallible;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use poolscope::labels::Outcome;
use poolscope::middleware::{PoolLayer, RequestScope};
use poolscope::telemetry::RequestMethod;
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::super::harness::{Rig, ms};
use super::{answer, cost, ended, get, layer, serve};

#[tokio::test(start_paused = true)]
async fn a_task_is_the_requests_only_if_its_scope_is_handed_on() {
    let rig = Rig::new(4, 0);
    let core = rig.core.clone();
    let handler = service_fn(move |_| {
        let core = core.clone();
        async move {
            let own = core.clone();
            let on_its_own = tokio::spawn(async move { drop(own.get().await.unwrap()) });
            let own = core.clone();
            let handed_on = tokio::spawn(RequestScope::current().scope(async move {
                drop(own.get().await.unwrap());
                // And from there to the next.
                let scope = RequestScope::current();
                tokio::task::spawn_blocking(move || scope.in_scope(RequestScope::current)).await.unwrap()
            }));
            on_its_own.await.unwrap();
            let scope = handed_on.await.unwrap();
            scope.scope(async { drop(core.get().await.unwrap()) }).await;
            Ok::<_, Infallible>(answer())
        }
    });
    layer(&rig).layer(handler).oneshot(get("/orders")).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(cost(&rig, "/orders").checkouts, 2);
    assert_eq!(rig.outcomes("GET /orders", Outcome::Ok), 2);
    let started: u64 = rig.snapshot().operations.iter().map(|totals| totals.started).sum();
    assert_eq!(started, 3);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_outlives_its_request_is_still_its_routes() {
    let rig = Rig::new(1, 0);
    let core = rig.core.clone();
    let (send, after) = tokio::sync::oneshot::channel::<()>();
    let mut task = Some(async move {
        after.await.unwrap();
        let held = core.get().await.unwrap();
        tokio::time::sleep(ms(20)).await;
        drop(held);
    });
    let (spawned, left) = tokio::sync::oneshot::channel();
    let mut spawned = Some(spawned);
    let handler = service_fn(move |_| {
        let task = tokio::spawn(RequestScope::current().scope(task.take().unwrap()));
        spawned.take().unwrap().send(task).unwrap();
        std::future::ready(Ok::<_, Infallible>(answer()))
    });
    serve(layer(&rig).layer(handler), get("/orders")).poll().unwrap().unwrap();
    assert_eq!((cost(&rig, "/orders").checkouts, ended(&rig, "/orders", Outcome::Ok)), (0, 1));
    send.send(()).unwrap();
    let left = left.await.unwrap();
    while !left.is_finished() {
        rig.advance(ms(10)).await;
    }
    assert_eq!(cost(&rig, "/orders").checkouts, 1);
}

#[tokio::test(start_paused = true)]
async fn outside_of_requests_a_scope_changes_nothing() {
    let rig = Rig::new(1, 0);
    let core = rig.core.clone();
    RequestScope::current().scope(async move { drop(core.operation("own").get().await.unwrap()) }).await;
    assert_eq!(rig.outcomes("own", Outcome::Ok), 1);
    assert!(rig.snapshot().requests.is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_of_two_pools_has_its_own_account_of_a_request() {
    let (orders, users) = (Rig::new(1, 0), Rig::new(1, 0));
    let cores = (orders.core.clone(), users.core.clone());
    let handler = service_fn(move |_: Request<Full<Bytes>>| {
        let (orders, users) = cores.clone();
        async move {
            drop(orders.get().await.unwrap());
            let task = RequestScope::current().scope(async move { drop(orders.get().await.unwrap()) });
            tokio::spawn(task).await.unwrap();
            drop(users.get().await.unwrap());
            Ok::<_, Infallible>(answer())
        }
    });
    let service = layer(&orders).layer(layer(&users).layer(handler));
    service.oneshot(get("/both")).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!((cost(&orders, "/both").checkouts, cost(&users, "/both").checkouts), (2, 1));
    assert_eq!(orders.outcomes("GET /both", Outcome::Ok), 2);
}

#[tokio::test(start_paused = true)]
async fn a_scope_within_itself_stays_one() {
    fn nested(
        times: u32,
        core: poolscope::pool::Pool<super::Scripted>,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            match times.checked_sub(1) {
                Some(times) => RequestScope::current().scope(nested(times, core)).await,
                None => drop(core.get().await.unwrap()),
            }
        })
    }
    let rig = Rig::new(1, 0);
    let core = rig.core.clone();
    let handler = service_fn(move |_| {
        let core = core.clone();
        async move {
            nested(64, core).await;
            Ok::<_, Infallible>(answer())
        }
    });
    serve(layer(&rig).layer(handler), get("/orders")).poll().unwrap().unwrap();
    assert_eq!(cost(&rig, "/orders").checkouts, 1);
}

/// Many at once, on all threads, that wait for each other's connections and change tasks and threads at each await.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_never_mix() {
    let rig = Rig::with(&{
        let mut settings = super::super::harness::settings(3, 2);
        settings.checkout_timeout = std::time::Duration::from_secs(60);
        settings
    });
    let core = rig.core.clone();
    // The n-th route makes n checkouts in each request, half of them in tasks.
    let handler = service_fn(move |request: Request<Full<Bytes>>| {
        let core = core.clone();
        async move {
            let times: usize = request.uri().path().trim_start_matches('/').parse().unwrap();
            for time in 0..times {
                let core = core.clone();
                let work = async move {
                    let held = core.get().await.unwrap();
                    tokio::task::yield_now().await;
                    drop(held);
                };
                if time % 2 == 0 {
                    tokio::spawn(RequestScope::current().scope(work)).await.unwrap();
                } else {
                    tokio::task::yield_now().await;
                    work.await;
                }
            }
            Ok::<_, Infallible>(answer())
        }
    });
    let service = layer(&rig).server_timing(true).layer(handler);
    let requests = (0..400).map(|request| {
        let (service, route) = (service.clone(), request % 8);
        tokio::spawn(async move {
            let answer = service.oneshot(get(&format!("/{route}"))).await.unwrap();
            let timing = answer.headers().get("server-timing").map(|timing| timing.to_str().unwrap().to_owned());
            answer.into_body().collect().await.unwrap();
            // Each request knows of its own checkouts, and of no others.
            match route {
                0 => assert_eq!(timing, None),
                1 => assert!(timing.unwrap().contains("desc=\"1 checkout\"")),
                _ => assert!(timing.unwrap().contains(&format!("desc=\"{route} checkouts\""))),
            }
        })
    });
    for request in requests.collect::<Vec<_>>() {
        request.await.unwrap();
    }
    for route in 0..8 {
        let cost = cost(&rig, &format!("/{route}"));
        assert_eq!((cost.started, cost.in_flight, cost.checkouts), (50, 0, 50 * route), "/{route}");
    }
}

#[tokio::test(start_paused = true)]
async fn hostile_routes_are_bounded_and_stay_text() {
    let rig = Rig::new(1, 0);
    let service = layer(&rig).layer(service_fn(async |_| Ok::<_, Infallible>(answer())));
    let hostile = ["/a\"b", "/a%0Ab", "/{}\\", "/é", &format!("/{}", "x".repeat(500))];
    for path in hostile {
        let request = Request::builder().uri("/").body(Full::<Bytes>::default()).unwrap();
        let path = path.to_owned();
        let by_path = PoolLayer::new(&rig.core).route_by(move |_| Some(path.clone().into()));
        serve(by_path.layer(service_fn(async |_| Ok::<_, Infallible>(answer()))), request).poll().unwrap().unwrap();
    }
    for route in 0..1000 {
        serve(service.clone(), get(&format!("/{route}"))).poll().unwrap().unwrap();
    }
    let requests = rig.snapshot().requests;
    assert_eq!(requests.len(), 201);
    assert!(requests.iter().all(|totals| totals.route.len() <= 120 && totals.method == RequestMethod::Get));
    let other = requests.iter().find(|totals| &*totals.route == "other").unwrap();
    assert_eq!(other.started, 1000 - (200 - hostile.len() as u64));
    assert!(requests.iter().any(|totals| &*totals.route == "/a\"b"));
    let registry = prometheus::Registry::new();
    registry.register(Box::new(rig.collector.clone())).unwrap();
    let page = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert!(page.contains(r#"route="/a\"b""#) && page.contains(r#"route="/{}\\""#), "escaped");
}
