//! Requests whose code panics, with a layer outside that catches panics.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::Full;
use poolscope::labels::Outcome;
use tower::{Layer as _, Service as _, service_fn};

use super::super::harness::{ManualFuture, TestPool, ms};
use super::{TestResponse, get, layer, request_count, response, totals};

/// Panics without invoking the panic hook.
fn scripted_panic() -> ! {
    resume_unwind(Box::new("scripted"))
}

/// A body that yields a frame and then panics.
struct PanickingBody {
    frames: u32,
}

impl Body for PanickingBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.frames == 0 {
            scripted_panic();
        }
        self.frames -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"one")))))
    }
}

/// Polls one frame, and catches panics.
fn try_poll_frame<B: Body + Unpin>(body: &mut B) -> std::thread::Result<bool> {
    let mut cx = Context::from_waker(Waker::noop());
    catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(&mut cx).is_ready()))
}

#[tokio::test(start_paused = true)]
async fn panicking_handler_is_an_error() {
    let test = TestPool::new(1, 0);
    let pool = test.pool.clone();
    let handler = service_fn(move |_: Request<Full<Bytes>>| {
        let pool = pool.clone();
        async move {
            let held = pool.get().await.unwrap();
            tokio::time::sleep(ms(10)).await;
            drop(held);
            scripted_panic();
            #[allow(unreachable_code, reason = "determines the type of the response")]
            Ok::<TestResponse, Infallible>(response())
        }
    });
    // Not an async block, which would drop the request while it unwinds.
    let mut request = ManualFuture::new(layer(&test).layer(handler).call(get("/orders"))).assert_pending();
    test.advance(ms(10)).await;
    request.try_poll().unwrap_err();
    assert_eq!(totals(&test, "/orders").in_flight, 1, "it has not been dropped");
    drop(request);
    assert_eq!(request_count(&test, "/orders", Outcome::Error), 1);
    assert_eq!(totals(&test, "/orders").in_flight, 0);
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn panic_before_the_handlers_future_is_an_error() {
    let test = TestPool::new(1, 0);
    let handler = service_fn(|_: Request<Full<Bytes>>| -> std::future::Ready<Result<TestResponse, Infallible>> {
        scripted_panic()
    });
    let mut service = layer(&test).layer(handler);
    catch_unwind(AssertUnwindSafe(|| drop(service.call(get("/orders"))))).unwrap_err();
    assert_eq!(request_count(&test, "/orders", Outcome::Error), 1);
}

#[tokio::test(start_paused = true)]
async fn panicking_body_is_an_error() {
    let test = TestPool::new(1, 0);
    let handler =
        service_fn(async |_: Request<Full<Bytes>>| Ok::<_, Infallible>(Response::new(PanickingBody { frames: 1 })));
    let mut request = ManualFuture::new(layer(&test).layer(handler).call(get("/export")));
    let mut body = request.poll().unwrap().unwrap().into_body();
    assert!(try_poll_frame(&mut body).unwrap());
    try_poll_frame(&mut body).unwrap_err();
    drop(body);
    assert_eq!(request_count(&test, "/export", Outcome::Error), 1);
    assert_eq!(request_count(&test, "/export", Outcome::Cancelled), 0);
}

#[tokio::test(start_paused = true)]
async fn request_dropped_by_another_panic_is_cancelled() {
    let test = TestPool::new(1, 0);
    let handler = service_fn(async |_: Request<Full<Bytes>>| {
        tokio::time::sleep(ms(1000)).await;
        Ok::<_, Infallible>(response())
    });
    let request = ManualFuture::new(layer(&test).layer(handler).call(get("/orders"))).assert_pending();
    catch_unwind(AssertUnwindSafe(move || {
        let _dropped_while_unwinding = request;
        scripted_panic();
    }))
    .unwrap_err();
    assert_eq!(request_count(&test, "/orders", Outcome::Cancelled), 1);
    assert_eq!(request_count(&test, "/orders", Outcome::Error), 0);
}
