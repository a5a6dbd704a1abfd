//! What belongs to a request. Requests never mix.

use std::convert::Infallible;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use poolscope::labels::{Outcome, RequestMethod};
use poolscope::middleware::{PoolLayer, RequestScope};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::super::harness::{TestPool, ms};
use super::{get, layer, request_count, response, serve, totals};

#[tokio::test(start_paused = true)]
async fn tasks_belong_to_a_request_only_with_its_scope() {
    let test = TestPool::new(4, 0);
    let pool = test.pool.clone();
    let handler = service_fn(move |_| {
        let pool = pool.clone();
        async move {
            let own = pool.clone();
            let on_its_own = tokio::spawn(async move { drop(own.get().await.unwrap()) });
            let own = pool.clone();
            let handed_on = tokio::spawn(RequestScope::current().scope(async move {
                drop(own.get().await.unwrap());
                // The scope is passed on once more.
                let scope = RequestScope::current();
                tokio::task::spawn_blocking(move || scope.in_scope(RequestScope::current)).await.unwrap()
            }));
            on_its_own.await.unwrap();
            let scope = handed_on.await.unwrap();
            scope.scope(async { drop(pool.get().await.unwrap()) }).await;
            Ok::<_, Infallible>(response())
        }
    });
    layer(&test).layer(handler).oneshot(get("/orders")).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(totals(&test, "/orders").checkouts, 2);
    assert_eq!(test.outcomes("GET /orders", Outcome::Ok), 2);
    let started: u64 = test.snapshot().operations.iter().map(|totals| totals.started).sum();
    assert_eq!(started, 3);
}

#[tokio::test(start_paused = true)]
async fn holders_and_waiters_have_their_request() {
    let test = TestPool::new(1, 0);
    let pool = test.pool.clone();
    let handler = service_fn(move |_| {
        let pool = pool.clone();
        async move {
            drop(pool.get().await.unwrap());
            let held = pool.get().await.unwrap();
            std::future::pending::<()>().await;
            drop(held);
            Ok::<_, Infallible>(response())
        }
    });
    let service = layer(&test).layer(handler);
    let mut holder = serve(service.clone(), get("/orders"));
    let mut waiter = serve(service, get("/items"));
    assert!(holder.poll().is_none() && waiter.poll().is_none());
    let snapshot = test.snapshot();
    let requests: Vec<_> = snapshot.holders.iter().map(|holder| holder.request.as_deref()).collect();
    assert_eq!(requests, [Some("GET /orders")]);
    let requests: Vec<_> = snapshot.waiters.iter().map(|waiter| waiter.request.as_deref()).collect();
    assert_eq!(requests, [Some("GET /items")]);

    drop((holder, waiter));
    let _held = test.pool.get().await.unwrap();
    assert_eq!(test.snapshot().holders[0].request, None, "the next holder serves no request");
}

#[tokio::test(start_paused = true)]
async fn task_outliving_its_request_counts_for_the_route() {
    let test = TestPool::new(1, 0);
    let pool = test.pool.clone();
    let (send, after) = tokio::sync::oneshot::channel::<()>();
    let mut task = Some(async move {
        after.await.unwrap();
        let held = pool.get().await.unwrap();
        tokio::time::sleep(ms(20)).await;
        drop(held);
    });
    let (spawned, left) = tokio::sync::oneshot::channel();
    let mut spawned = Some(spawned);
    let handler = service_fn(move |_| {
        let task = tokio::spawn(RequestScope::current().scope(task.take().unwrap()));
        spawned.take().unwrap().send(task).unwrap();
        std::future::ready(Ok::<_, Infallible>(response()))
    });
    serve(layer(&test).layer(handler), get("/orders")).poll().unwrap().unwrap();
    assert_eq!((totals(&test, "/orders").checkouts, request_count(&test, "/orders", Outcome::Ok)), (0, 1));
    send.send(()).unwrap();
    let left = left.await.unwrap();
    while !left.is_finished() {
        test.advance(ms(10)).await;
    }
    assert_eq!(totals(&test, "/orders").checkouts, 1);
}

#[tokio::test(start_paused = true)]
async fn scope_outside_requests_has_no_effect() {
    let test = TestPool::new(1, 0);
    let pool = test.pool.clone();
    RequestScope::current().scope(async move { drop(pool.operation("own").get().await.unwrap()) }).await;
    assert_eq!(test.outcomes("own", Outcome::Ok), 1);
    assert!(test.snapshot().requests.is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_pool_counts_its_own_checkouts() {
    let (orders, users) = (TestPool::new(1, 0), TestPool::new(1, 0));
    let pools = (orders.pool.clone(), users.pool.clone());
    let handler = service_fn(move |_: Request<Full<Bytes>>| {
        let (orders, users) = pools.clone();
        async move {
            drop(orders.get().await.unwrap());
            let task = RequestScope::current().scope(async move { drop(orders.get().await.unwrap()) });
            tokio::spawn(task).await.unwrap();
            drop(users.get().await.unwrap());
            Ok::<_, Infallible>(response())
        }
    });
    let service = layer(&orders).layer(layer(&users).layer(handler));
    service.oneshot(get("/both")).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!((totals(&orders, "/both").checkouts, totals(&users, "/both").checkouts), (2, 1));
    assert_eq!(orders.outcomes("GET /both", Outcome::Ok), 2);
}

#[tokio::test(start_paused = true)]
async fn outer_request_goes_on_after_an_inner_one() {
    let (orders, users) = (TestPool::new(1, 0), TestPool::new(1, 0));
    let (pool, inner) =
        (orders.pool.clone(), layer(&users).layer(service_fn(async |_| Ok::<_, Infallible>(response()))));
    let handler = service_fn(move |request: Request<Full<Bytes>>| {
        let (pool, inner) = (pool.clone(), inner.clone());
        async move {
            inner.oneshot(request).await?.into_body().collect().await.unwrap();
            drop(pool.get().await.unwrap());
            Ok::<_, Infallible>(response())
        }
    });
    serve(layer(&orders).layer(handler), get("/both")).poll().unwrap().unwrap();
    assert_eq!((totals(&orders, "/both").checkouts, totals(&users, "/both").checkouts), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn nested_scopes_count_once() {
    fn nested(
        times: u32,
        pool: poolscope::pool::Pool<super::ScriptedBackend>,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            match times.checked_sub(1) {
                Some(times) => RequestScope::current().scope(nested(times, pool)).await,
                None => drop(pool.get().await.unwrap()),
            }
        })
    }
    let test = TestPool::new(1, 0);
    let pool = test.pool.clone();
    let handler = service_fn(move |_| {
        let pool = pool.clone();
        async move {
            nested(64, pool).await;
            Ok::<_, Infallible>(response())
        }
    });
    serve(layer(&test).layer(handler), get("/orders")).poll().unwrap().unwrap();
    assert_eq!(totals(&test, "/orders").checkouts, 1);
}

/// Many requests on all threads, which wait for each other's connections and change tasks and threads at each await.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_never_mix() {
    let test = TestPool::with(&{
        let mut settings = super::super::harness::settings(3, 2);
        settings.checkout_timeout = std::time::Duration::from_secs(60);
        settings
    });
    let pool = test.pool.clone();
    // The n-th route checks out n times in each request, every other time in a task.
    let handler = service_fn(move |request: Request<Full<Bytes>>| {
        let pool = pool.clone();
        async move {
            let times: usize = request.uri().path().trim_start_matches('/').parse().unwrap();
            for time in 0..times {
                let pool = pool.clone();
                let work = async move {
                    let held = pool.get().await.unwrap();
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
            Ok::<_, Infallible>(response())
        }
    });
    let service = layer(&test).server_timing(true).layer(handler);
    let requests = (0..400).map(|request| {
        let (service, route) = (service.clone(), request % 8);
        tokio::spawn(async move {
            let response = service.oneshot(get(&format!("/{route}"))).await.unwrap();
            let timing = response.headers().get("server-timing").map(|timing| timing.to_str().unwrap().to_owned());
            response.into_body().collect().await.unwrap();
            // Each request reports its own checkouts, and no others.
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
        let totals = totals(&test, &format!("/{route}"));
        assert_eq!((totals.started, totals.in_flight, totals.checkouts), (50, 0, 50 * route), "/{route}");
    }
}

#[tokio::test(start_paused = true)]
async fn hostile_routes_are_bounded_and_escaped() {
    let test = TestPool::new(1, 0);
    let service = layer(&test).layer(service_fn(async |_| Ok::<_, Infallible>(response())));
    let hostile = ["/a\"b", "/a%0Ab", "/{}\\", "/é", &format!("/{}", "x".repeat(500))];
    for path in hostile {
        let request = Request::builder().uri("/").body(Full::<Bytes>::default()).unwrap();
        let path = path.to_owned();
        let by_path = PoolLayer::new(&test.pool).route_by(move |_| Some(path.clone().into()));
        serve(by_path.layer(service_fn(async |_| Ok::<_, Infallible>(response()))), request).poll().unwrap().unwrap();
    }
    for route in 0..1000 {
        serve(service.clone(), get(&format!("/{route}"))).poll().unwrap().unwrap();
    }
    let requests = test.snapshot().requests;
    assert_eq!(requests.len(), 201);
    assert!(requests.iter().all(|totals| totals.route.len() <= 120 && totals.method == RequestMethod::Get));
    let other = requests.iter().find(|totals| &*totals.route == "other").unwrap();
    assert_eq!(other.started, 1000 - (200 - hostile.len() as u64));
    assert!(requests.iter().any(|totals| &*totals.route == "/a\"b"));
    let registry = prometheus::Registry::new();
    registry.register(Box::new(test.collector.clone())).unwrap();
    let page = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert!(page.contains(r#"route="/a\"b""#) && page.contains(r#"route="/{}\\""#), "escaped");
}
