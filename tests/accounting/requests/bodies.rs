//! When a request ends, and with which outcome.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty, Full};
use poolscope::labels::Outcome;
use poolscope::pool::Pool;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _, service_fn};

use super::super::backend::ScriptedBackend;
use super::super::harness::{ManualFuture, TestPool, ms};
use super::{TestResponse, get, idle_time, layer, request_count, response, serve, totals};

/// The results of successive polls of a body; `None` is pending.
type Frames = VecDeque<Option<Result<Frame<Bytes>, &'static str>>>;

/// A body that checks out a connection for each frame, and does not know its end in advance.
struct StreamedBody {
    frames: Frames,
    pool: Pool<ScriptedBackend>,
    exact_size: Option<u64>,
}

impl Body for StreamedBody {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let pool = self.pool.clone();
        assert!(std::pin::pin!(pool.get()).poll(cx).is_ready());
        match self.frames.pop_front() {
            Some(Some(frame)) => Poll::Ready(Some(frame)),
            Some(None) => Poll::Pending,
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.exact_size.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn data(text: &'static str) -> Option<Result<Frame<Bytes>, &'static str>> {
    Some(Ok(Frame::data(Bytes::from_static(text.as_bytes()))))
}

/// Serves a request with such a body, and returns the body as wrapped by the layer.
fn serve_stream(
    test: &TestPool,
    frames: Frames,
    size: Option<u64>,
) -> impl Body<Data = Bytes, Error = &'static str> + Unpin {
    let pool = test.pool.clone();
    let handler = service_fn(move |_: Request<Full<Bytes>>| {
        let body = StreamedBody { frames: frames.clone_frames(), pool: pool.clone(), exact_size: size };
        std::future::ready(Ok::<_, Infallible>(Response::new(body)))
    });
    let service = layer(test).layer(handler);
    let response = ManualFuture::new(service.oneshot(get("/export"))).poll().unwrap().unwrap();
    response.into_body()
}

trait CloneFrames {
    fn clone_frames(&self) -> Self;
}

impl CloneFrames for Frames {
    fn clone_frames(&self) -> Self {
        let clone = |frame: &Result<Frame<Bytes>, &'static str>| match frame {
            Ok(frame) => Ok(match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => Frame::data(data.clone()),
                (_, trailers) => Frame::trailers(trailers.cloned().unwrap_or_default()),
            }),
            Err(error) => Err(*error),
        };
        self.iter().map(|frame| frame.as_ref().map(clone)).collect()
    }
}

type PolledFrame<B> = Poll<Option<Result<Frame<<B as Body>::Data>, <B as Body>::Error>>>;

/// Polls one frame.
fn poll_frame<B: Body + Unpin>(body: &mut B) -> PolledFrame<B> {
    Pin::new(body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn request_ends_with_its_body() {
    let test = TestPool::new(1, 0);
    let mut body = serve_stream(&test, [data("one"), None, data("two")].into(), None);
    assert!(poll_frame(&mut body).is_ready());
    test.advance(ms(50)).await;
    assert!(poll_frame(&mut body).is_pending());
    assert_eq!((totals(&test, "/export").in_flight, totals(&test, "/export").checkouts), (1, 2));
    assert!(poll_frame(&mut body).is_ready());
    assert!(matches!(poll_frame(&mut body), Poll::Ready(None)));
    let totals = totals(&test, "/export");
    assert_eq!((totals.in_flight, totals.checkouts), (0, 4));
    let duration = &totals.durations[Outcome::Ok.index()];
    assert_eq!((duration.count(), duration.sum_nanos), (1, 50_000_000));
    drop(body);
    assert_eq!(request_count(&test, "/export", Outcome::Cancelled), 0);
}

#[tokio::test(start_paused = true)]
async fn body_dropped_early_is_cancelled() {
    let test = TestPool::new(1, 0);
    for frames in [0, 1] {
        let mut body = serve_stream(&test, [data("one"), data("two")].into(), None);
        for _ in 0..frames {
            assert!(poll_frame(&mut body).is_ready());
        }
        drop(body);
        assert_eq!(request_count(&test, "/export", Outcome::Cancelled), frames + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn body_dropped_after_its_last_byte_is_ok() {
    let test = TestPool::new(1, 0);
    let mut body = serve_stream(&test, [data("one"), data("two")].into(), Some(6));
    assert!(poll_frame(&mut body).is_ready());
    assert!(poll_frame(&mut body).is_ready());
    drop(body);
    assert_eq!(request_count(&test, "/export", Outcome::Ok), 1);
    let mut body = serve_stream(&test, [data("one"), data("two")].into(), Some(6));
    assert!(poll_frame(&mut body).is_ready());
    drop(body);
    assert_eq!(request_count(&test, "/export", Outcome::Cancelled), 1);
}

#[tokio::test(start_paused = true)]
async fn failed_body_is_an_error() {
    let test = TestPool::new(1, 0);
    let mut body = serve_stream(&test, [data("one"), Some(Err("gone"))].into(), None);
    assert!(poll_frame(&mut body).is_ready());
    assert!(matches!(poll_frame(&mut body), Poll::Ready(Some(Err("gone")))));
    drop(body);
    assert_eq!(request_count(&test, "/export", Outcome::Error), 1);
}

#[tokio::test(start_paused = true)]
async fn trailers_end_a_request_with_grpc_status() {
    let test = TestPool::new(1, 0);
    for (status, outcome) in [("0", Outcome::Ok), ("5", Outcome::Ok), ("14", Outcome::Error)] {
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))]);
        let mut body = serve_stream(&test, [data("one"), Some(Ok(Frame::trailers(trailers)))].into(), None);
        let before = request_count(&test, "/export", outcome);
        assert!(poll_frame(&mut body).is_ready());
        assert!(poll_frame(&mut body).is_ready());
        drop(body);
        assert_eq!(request_count(&test, "/export", outcome), before + 1, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn response_status_determines_the_outcome() {
    let test = TestPool::new(1, 0);
    let statuses = [(200, Outcome::Ok), (404, Outcome::Ok), (500, Outcome::Error), (504, Outcome::Timeout)];
    for (status, outcome) in statuses {
        let handler = service_fn(move |_| async move {
            let mut response = response();
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok::<_, Infallible>(response)
        });
        let route = format!("/{status}");
        serve(layer(&test).layer(handler), get(&route)).poll().unwrap().unwrap();
        assert_eq!(request_count(&test, &route, outcome), 1, "{status}");
    }
}

/// As the documentation of the module recommends for layers that limit the time of requests.
#[tokio::test(start_paused = true)]
async fn time_limit_inside_the_layer_is_a_timeout() {
    let test = TestPool::new(1, 0);
    let pool = test.pool.clone();
    let handler = service_fn(move |_: Request<Full<Bytes>>| {
        let pool = pool.clone();
        async move {
            let _held = pool.get().await.unwrap();
            tokio::time::sleep(ms(1000)).await;
            Ok::<_, Infallible>(response())
        }
    });
    let limited = || {
        let into_response = |limited: Result<TestResponse, tower::BoxError>| {
            Ok::<_, tower::BoxError>(limited.unwrap_or_else(|_| {
                let mut response = response();
                *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
                response
            }))
        };
        ServiceBuilder::new().map_result(into_response).timeout(ms(50)).service(handler.clone())
    };
    let mut request = serve(layer(&test).layer(limited()), get("/inside")).assert_pending();
    test.advance(ms(50)).await;
    assert_eq!(request.poll().unwrap().unwrap().status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(request_count(&test, "/inside", Outcome::Timeout), 1);

    let outside = ServiceBuilder::new().timeout(ms(50)).layer(layer(&test)).service(handler.clone());
    let mut request = serve(outside, get("/outside")).assert_pending();
    test.advance(ms(50)).await;
    request.poll().unwrap().unwrap_err();
    assert_eq!(request_count(&test, "/outside", Outcome::Cancelled), 1, "the layer sees no response");
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn empty_and_head_responses_end_at_once() {
    let test = TestPool::new(1, 0);
    let empty = service_fn(async |_| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())));
    drop(ManualFuture::new(layer(&test).layer(empty).oneshot(get("/empty"))).poll().unwrap().unwrap());
    assert_eq!(request_count(&test, "/empty", Outcome::Ok), 1);

    let full = service_fn(async |_| Ok::<_, Infallible>(response()));
    let head = Request::head("/head").body(Full::<Bytes>::default()).unwrap();
    drop(ManualFuture::new(layer(&test).layer(full).oneshot(head)).poll().unwrap().unwrap());
    assert_eq!(request_count(&test, "/head", Outcome::Ok), 1);
    drop(ManualFuture::new(layer(&test).layer(full).oneshot(get("/get"))).poll().unwrap().unwrap());
    assert_eq!(request_count(&test, "/get", Outcome::Cancelled), 1, "its body was not read");
}

#[tokio::test(start_paused = true)]
async fn dropped_request_returns_its_connection() {
    let test = TestPool::new(1, 0);
    let pool = test.pool.clone();
    let handler = service_fn(move |_| {
        let pool = pool.clone();
        async move {
            let held = pool.get().await.unwrap();
            tokio::time::sleep(ms(1000)).await;
            drop(held);
            Ok::<_, Infallible>(response())
        }
    });
    let request = serve(layer(&test).layer(handler), get("/orders")).assert_pending();
    test.advance(ms(70)).await;
    drop(request);
    let totals = totals(&test, "/orders");
    assert_eq!((totals.started, totals.in_flight, idle_time(&totals)), (1, 0, ms(70)));
    assert_eq!(totals.durations[Outcome::Cancelled.index()].sum_nanos, 70_000_000);
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn unpolled_request_is_cancelled() {
    let test = TestPool::new(1, 0);
    let handler = service_fn(async |_: Request<Full<Bytes>>| Ok::<TestResponse, Infallible>(response()));
    drop(tower::Service::call(&mut layer(&test).layer(handler), get("/orders")));
    assert_eq!(request_count(&test, "/orders", Outcome::Cancelled), 1);
}

#[tokio::test(start_paused = true)]
async fn server_timing_is_appended_to_others() {
    let test = TestPool::new(1, 0);
    let pool = test.pool.clone();
    let handler = service_fn(move |request: Request<Full<Bytes>>| {
        let pool = pool.clone();
        async move {
            if request.uri().path() == "/orders" {
                for _ in 0..2 {
                    let held = pool.get().await.unwrap();
                    tokio::time::sleep(ms(7)).await;
                    drop(held);
                }
            }
            let mut response = response();
            response.headers_mut().insert("server-timing", HeaderValue::from_static("app;dur=1"));
            Ok::<_, Infallible>(response)
        }
    });
    let timings = |response: &Response<Bytes>| {
        let timings = response.headers().get_all("server-timing").iter();
        timings.map(|timing| timing.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let held = test.get("another task");
    let mut request = serve(layer(&test).server_timing(true).layer(handler.clone()), get("/orders")).assert_pending();
    test.advance(ms(25)).await;
    drop(held);
    for _ in 0..2 {
        assert!(request.poll().is_none());
        test.advance(ms(7)).await;
    }
    let response = request.poll().unwrap().unwrap();
    assert_eq!(timings(&response), ["app;dur=1", "pool-wait;dur=25.000;desc=\"2 checkouts\", pool-use;dur=14.000"]);

    let response =
        serve(layer(&test).server_timing(true).layer(handler.clone()), get("/about")).poll().unwrap().unwrap();
    assert_eq!(timings(&response), ["app;dur=1"], "no checkout");
    let mut request = serve(layer(&test).layer(handler), get("/orders")).assert_pending();
    for _ in 0..2 {
        test.advance(ms(7)).await;
        if let Some(response) = request.poll() {
            assert_eq!(timings(&response.unwrap()), ["app;dur=1"], "disabled");
            return;
        }
    }
    panic!("no response");
}

#[tokio::test(start_paused = true)]
async fn trailers_of_empty_body_count() {
    let test = TestPool::new(1, 0);
    let handler = service_fn(async |_: Request<Full<Bytes>>| {
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("13"))]);
        let body = Empty::<Bytes>::new().with_trailers(std::future::ready(Some(Ok::<_, Infallible>(trailers))));
        Ok::<_, Infallible>(Response::new(body))
    });
    serve(layer(&test).layer(handler), get("/grpc")).poll().unwrap().unwrap();
    assert_eq!(request_count(&test, "/grpc", Outcome::Error), 1);
}

#[tokio::test(start_paused = true)]
async fn body_size_hint_and_data_pass_through() {
    let test = TestPool::new(1, 0);
    let full = service_fn(async |_| Ok::<_, Infallible>(response()));
    let response = ManualFuture::new(layer(&test).layer(full).oneshot(get("/get"))).poll().unwrap().unwrap();
    assert_eq!((response.body().size_hint().exact(), response.body().is_end_stream()), (Some(4), false));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "done");
}
