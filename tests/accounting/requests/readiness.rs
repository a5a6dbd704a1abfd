//! Readiness passes through, and the layer works beside the others of tower's.

use std::convert::Infallible;
use std::task::Poll;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use poolscope::labels::Outcome;
use tower::buffer::Buffer;
use tower::limit::ConcurrencyLimitLayer;
use tower::timeout::TimeoutLayer;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_test::mock;

use super::super::harness::{Attempt, Rig, ms};
use super::{Answer, answer, cost, ended, get, layer};

#[tokio::test(start_paused = true)]
async fn it_is_ready_when_the_inner_service_is_and_asks_for_no_more_than_it_uses() {
    let rig = Rig::new(1, 0);
    let (mut service, mut handle) = mock::spawn_layer::<Request<Full<Bytes>>, Answer, _>(layer(&rig));
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    handle.allow(1);
    assert!(service.poll_ready().is_ready());
    let mut call = tokio_test_task(service.call(get("/orders")));
    let (request, respond) = handle.next_request().await.unwrap();
    assert_eq!(request.uri().path(), "/orders");
    assert!(service.poll_ready().is_pending(), "one was allowed, and is used");
    respond.send_response(answer());
    assert!(call.poll().is_some());
    handle.send_error("it broke");
    assert!(matches!(service.poll_ready(), Poll::Ready(Err(_))), "an error of the inner service is passed on");
}

fn tokio_test_task<F>(future: F) -> Attempt<F::Output>
where
    F: Future<Output: 'static> + Send + 'static,
{
    Attempt::new(future)
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_refused_leaves_the_inner_service_ready_for_the_next() {
    let rig = Rig::new(1, 0);
    let (mut service, mut handle) = mock::spawn_layer::<Request<Full<Bytes>>, Answer, _>(layer(&rig).shed_queue(0));
    handle.allow(1);
    let held = rig.take("a");
    let queued = rig.checkout("b").stays();
    assert!(service.poll_ready().is_ready());
    let refused = Attempt::new(service.call(get("/orders"))).poll().unwrap().unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop((held, queued));

    // What was allowed is still there.
    assert!(service.poll_ready().is_ready());
    let mut call = Attempt::new(service.call(get("/orders")));
    assert!(call.poll().is_none());
    let (_, respond) = handle.next_request().await.unwrap();
    respond.send_response(answer());
    assert_eq!(call.poll().unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!((ended(&rig, "/orders", Outcome::Shed), cost(&rig, "/orders").started), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn it_works_under_and_over_a_limit_of_concurrency() {
    for outside in [true, false] {
        let rig = Rig::new(4, 0);
        let core = rig.core.clone();
        let handler = service_fn(move |_: Request<Full<Bytes>>| {
            let core = core.clone();
            async move {
                let held = core.get().await.unwrap();
                tokio::time::sleep(ms(100)).await;
                drop(held);
                Ok::<_, Infallible>(answer())
            }
        });
        let limit = ConcurrencyLimitLayer::new(2);
        let mut calls: Vec<_> = if outside {
            let service = ServiceBuilder::new().layer(limit).layer(layer(&rig)).service(handler);
            (0..5).map(|_| Attempt::new(read(service.clone().oneshot(get("/orders"))))).collect()
        } else {
            let service = ServiceBuilder::new().layer(layer(&rig)).layer(limit).service(handler);
            (0..5).map(|_| Attempt::new(read(service.clone().oneshot(get("/orders"))))).collect()
        };
        for round in [3, 1, 0] {
            calls.retain_mut(|call| call.poll().is_none());
            assert!(rig.snapshot().connections.used <= 2);
            rig.advance(ms(100)).await;
            calls.retain_mut(|call| call.poll().is_none());
            assert_eq!(calls.len(), round, "outside: {outside}");
        }
        assert_eq!((cost(&rig, "/orders").checkouts, ended(&rig, "/orders", Outcome::Ok)), (5, 5));
        rig.works();
    }
}

/// Reads an answer to its end.
async fn read<B>(answer: impl Future<Output = Result<http::Response<B>, Infallible>>)
where
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    http_body_util::BodyExt::collect(answer.await.unwrap().into_body()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn it_works_within_a_buffer_whose_worker_is_another_task() {
    let rig = Rig::new(2, 0);
    let core = rig.core.clone();
    let handler = service_fn(move |_: Request<Full<Bytes>>| {
        let core = core.clone();
        async move {
            drop(core.get().await.unwrap());
            Ok::<_, Infallible>(answer())
        }
    });
    let service = Buffer::new(layer(&rig).layer(handler), 8);
    let calls = (0..20).map(|_| {
        let service = service.clone();
        tokio::spawn(async move { service.oneshot(get("/orders")).await.unwrap().into_body() })
    });
    for call in calls.collect::<Vec<_>>() {
        http_body_util::BodyExt::collect(call.await.unwrap()).await.unwrap();
    }
    assert_eq!((cost(&rig, "/orders").checkouts, ended(&rig, "/orders", Outcome::Ok)), (20, 20));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_meets_a_timeout_outside_is_cancelled() {
    let rig = Rig::new(1, 0);
    let core = rig.core.clone();
    let handler = service_fn(move |_: Request<Full<Bytes>>| {
        let core = core.clone();
        async move {
            let _held = core.get().await.unwrap();
            std::future::pending::<()>().await;
            Ok::<_, Infallible>(answer())
        }
    });
    let service = ServiceBuilder::new().layer(TimeoutLayer::new(ms(80))).layer(layer(&rig)).service(handler);
    let mut call = Attempt::new(async move { service.oneshot(get("/orders")).await.is_err() }).stays();
    rig.advance(ms(80)).await;
    assert_eq!(call.poll(), Some(true));
    drop(call);
    assert_eq!(ended(&rig, "/orders", Outcome::Cancelled), 1);
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn the_pool_is_in_the_request_unless_that_is_off() {
    let rig = Rig::new(1, 0);
    let found = |request: Request<Full<Bytes>>| {
        let name =
            request.extensions().get::<poolscope::pool::Pool<super::Scripted>>().map(|core| core.name().to_owned());
        std::future::ready(Ok::<_, Infallible>(http::Response::new(Full::from(name.unwrap_or_default()))))
    };
    let there = layer(&rig).layer(service_fn(found));
    assert_eq!(super::serve(there, get("/")).poll().unwrap().unwrap().into_body(), "rig");
    let not_there = layer(&rig).insert_pool(false).layer(service_fn(found));
    assert_eq!(super::serve(not_there, get("/")).poll().unwrap().unwrap().into_body(), "");
}
