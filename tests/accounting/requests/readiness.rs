//! Readiness passes through, and the layer composes with tower's own layers.

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

use super::super::harness::{ManualFuture, TestPool, ms};
use super::{TestResponse, get, layer, request_count, response, totals};

#[tokio::test(start_paused = true)]
async fn readiness_of_inner_service_passes_through() {
    let test = TestPool::new(1, 0);
    let (mut service, mut handle) = mock::spawn_layer::<Request<Full<Bytes>>, TestResponse, _>(layer(&test));
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    handle.allow(1);
    assert!(service.poll_ready().is_ready());
    let mut call = manual(service.call(get("/orders")));
    let (request, respond) = handle.next_request().await.unwrap();
    assert_eq!(request.uri().path(), "/orders");
    assert!(service.poll_ready().is_pending(), "the only permit is in use");
    respond.send_response(response());
    assert!(call.poll().is_some());
    handle.send_error("scripted");
    assert!(matches!(service.poll_ready(), Poll::Ready(Err(_))), "errors of the inner service pass through");
}

fn manual<F>(future: F) -> ManualFuture<F::Output>
where
    F: Future<Output: 'static> + Send + 'static,
{
    ManualFuture::new(future)
}

#[tokio::test(start_paused = true)]
async fn shed_request_keeps_the_inner_readiness() {
    let test = TestPool::new(1, 0);
    let (mut service, mut handle) =
        mock::spawn_layer::<Request<Full<Bytes>>, TestResponse, _>(layer(&test).max_queue_len(0));
    handle.allow(1);
    let held = test.get("a");
    let queued = test.checkout("b").assert_pending();
    assert!(service.poll_ready().is_ready());
    let refused = ManualFuture::new(service.call(get("/orders"))).poll().unwrap().unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop((held, queued));

    // The permit was not used.
    assert!(service.poll_ready().is_ready());
    let mut call = ManualFuture::new(service.call(get("/orders")));
    assert!(call.poll().is_none());
    let (_, respond) = handle.next_request().await.unwrap();
    respond.send_response(response());
    assert_eq!(call.poll().unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!((request_count(&test, "/orders", Outcome::Shed), totals(&test, "/orders").started), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn composes_with_concurrency_limit() {
    for outside in [true, false] {
        let test = TestPool::new(4, 0);
        let pool = test.pool.clone();
        let handler = service_fn(move |_: Request<Full<Bytes>>| {
            let pool = pool.clone();
            async move {
                let held = pool.get().await.unwrap();
                tokio::time::sleep(ms(100)).await;
                drop(held);
                Ok::<_, Infallible>(response())
            }
        });
        let limit = ConcurrencyLimitLayer::new(2);
        let mut calls: Vec<_> = if outside {
            let service = ServiceBuilder::new().layer(limit).layer(layer(&test)).service(handler);
            (0..5).map(|_| ManualFuture::new(read(service.clone().oneshot(get("/orders"))))).collect()
        } else {
            let service = ServiceBuilder::new().layer(layer(&test)).layer(limit).service(handler);
            (0..5).map(|_| ManualFuture::new(read(service.clone().oneshot(get("/orders"))))).collect()
        };
        for round in [3, 1, 0] {
            calls.retain_mut(|call| call.poll().is_none());
            assert!(test.snapshot().connections.used <= 2);
            test.advance(ms(100)).await;
            calls.retain_mut(|call| call.poll().is_none());
            assert_eq!(calls.len(), round, "outside: {outside}");
        }
        assert_eq!((totals(&test, "/orders").checkouts, request_count(&test, "/orders", Outcome::Ok)), (5, 5));
        test.assert_usable();
    }
}

/// Reads a response to its end.
async fn read<B>(response: impl Future<Output = Result<http::Response<B>, Infallible>>)
where
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    http_body_util::BodyExt::collect(response.await.unwrap().into_body()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn composes_with_buffer() {
    let test = TestPool::new(2, 0);
    let pool = test.pool.clone();
    let handler = service_fn(move |_: Request<Full<Bytes>>| {
        let pool = pool.clone();
        async move {
            drop(pool.get().await.unwrap());
            Ok::<_, Infallible>(response())
        }
    });
    let service = Buffer::new(layer(&test).layer(handler), 8);
    let calls = (0..20).map(|_| {
        let service = service.clone();
        tokio::spawn(async move { service.oneshot(get("/orders")).await.unwrap().into_body() })
    });
    for call in calls.collect::<Vec<_>>() {
        http_body_util::BodyExt::collect(call.await.unwrap()).await.unwrap();
    }
    assert_eq!((totals(&test, "/orders").checkouts, request_count(&test, "/orders", Outcome::Ok)), (20, 20));
}

#[tokio::test(start_paused = true)]
async fn outer_timeout_cancels_the_request() {
    let test = TestPool::new(1, 0);
    let pool = test.pool.clone();
    let handler = service_fn(move |_: Request<Full<Bytes>>| {
        let pool = pool.clone();
        async move {
            let _held = pool.get().await.unwrap();
            std::future::pending::<()>().await;
            Ok::<_, Infallible>(response())
        }
    });
    let service = ServiceBuilder::new().layer(TimeoutLayer::new(ms(80))).layer(layer(&test)).service(handler);
    let mut call = ManualFuture::new(async move { service.oneshot(get("/orders")).await.is_err() }).assert_pending();
    test.advance(ms(80)).await;
    assert_eq!(call.poll(), Some(true));
    drop(call);
    assert_eq!(request_count(&test, "/orders", Outcome::Cancelled), 1);
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn pool_extension_is_inserted_unless_disabled() {
    let test = TestPool::new(1, 0);
    let pool_name = |request: Request<Full<Bytes>>| {
        let name = request
            .extensions()
            .get::<poolscope::pool::Pool<super::ScriptedBackend>>()
            .map(|pool| pool.name().to_owned());
        std::future::ready(Ok::<_, Infallible>(http::Response::new(Full::from(name.unwrap_or_default()))))
    };
    let inserting = layer(&test).layer(service_fn(pool_name));
    assert_eq!(super::serve(inserting, get("/")).poll().unwrap().unwrap().into_body(), "test");
    let not_inserting = layer(&test).insert_pool(false).layer(service_fn(pool_name));
    assert_eq!(super::serve(not_inserting, get("/")).poll().unwrap().unwrap().into_body(), "");
}
