//! When a request has ended, and as what.

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
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::super::backend::Scripted;
use super::super::harness::{Attempt, Rig, ms};
use super::{Answer, answer, cost, ended, get, idle, layer, serve};

/// What a body says, one after the other; `None` to wait.
type Frames = VecDeque<Option<Result<Frame<Bytes>, &'static str>>>;

/// A body that checks out for each of its frames, and does not know when it ends.
struct Streamed {
    frames: Frames,
    core: Pool<Scripted>,
    knows_its_size: Option<u64>,
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let core = self.core.clone();
        assert!(std::pin::pin!(core.get()).poll(cx).is_ready());
        match self.frames.pop_front() {
            Some(Some(frame)) => Poll::Ready(Some(frame)),
            Some(None) => Poll::Pending,
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.knows_its_size.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn data(text: &'static str) -> Option<Result<Frame<Bytes>, &'static str>> {
    Some(Ok(Frame::data(Bytes::from_static(text.as_bytes()))))
}

/// The head of an answer with this body, and what the layer made of the body.
fn streamed(rig: &Rig, frames: Frames, size: Option<u64>) -> impl Body<Data = Bytes, Error = &'static str> + Unpin {
    let core = rig.core.clone();
    let handler = service_fn(move |_: Request<Full<Bytes>>| {
        let body = Streamed { frames: frames.clone_frames(), core: core.clone(), knows_its_size: size };
        std::future::ready(Ok::<_, Infallible>(Response::new(body)))
    });
    let service = layer(rig).layer(handler);
    let answer = Attempt::new(service.oneshot(get("/export"))).poll().unwrap().unwrap();
    answer.into_body()
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

type Read<B> = Poll<Option<Result<Frame<<B as Body>::Data>, <B as Body>::Error>>>;

/// Reads one frame.
fn read<B: Body + Unpin>(body: &mut B) -> Read<B> {
    Pin::new(body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn a_body_is_read_for_its_request_which_ends_with_it() {
    let rig = Rig::new(1, 0);
    let mut body = streamed(&rig, [data("one"), None, data("two")].into(), None);
    assert!(read(&mut body).is_ready());
    rig.advance(ms(50)).await;
    assert!(read(&mut body).is_pending());
    assert_eq!((cost(&rig, "/export").in_flight, cost(&rig, "/export").checkouts), (1, 2));
    assert!(read(&mut body).is_ready());
    assert!(matches!(read(&mut body), Poll::Ready(None)));
    let cost = cost(&rig, "/export");
    assert_eq!((cost.in_flight, cost.checkouts), (0, 4));
    let took = &cost.durations[Outcome::Ok.index()];
    assert_eq!((took.count(), took.sum_nanos), (1, 50_000_000));
    drop(body);
    assert_eq!(ended(&rig, "/export", Outcome::Cancelled), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_dropped_before_its_end_is_a_request_cancelled() {
    let rig = Rig::new(1, 0);
    for frames in [0, 1] {
        let mut body = streamed(&rig, [data("one"), data("two")].into(), None);
        for _ in 0..frames {
            assert!(read(&mut body).is_ready());
        }
        drop(body);
        assert_eq!(ended(&rig, "/export", Outcome::Cancelled), frames + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_which_all_that_was_announced_is_sent_may_be_dropped() {
    let rig = Rig::new(1, 0);
    let mut body = streamed(&rig, [data("one"), data("two")].into(), Some(6));
    assert!(read(&mut body).is_ready());
    assert!(read(&mut body).is_ready());
    drop(body);
    assert_eq!(ended(&rig, "/export", Outcome::Ok), 1);
    let mut body = streamed(&rig, [data("one"), data("two")].into(), Some(6));
    assert!(read(&mut body).is_ready());
    drop(body);
    assert_eq!(ended(&rig, "/export", Outcome::Cancelled), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_fails_is_a_request_that_failed() {
    let rig = Rig::new(1, 0);
    let mut body = streamed(&rig, [data("one"), Some(Err("gone"))].into(), None);
    assert!(read(&mut body).is_ready());
    assert!(matches!(read(&mut body), Poll::Ready(Some(Err("gone")))));
    drop(body);
    assert_eq!(ended(&rig, "/export", Outcome::Error), 1);
}

#[tokio::test(start_paused = true)]
async fn trailers_end_a_request_and_say_whether_grpc_failed() {
    let rig = Rig::new(1, 0);
    for (status, outcome) in [("0", Outcome::Ok), ("5", Outcome::Ok), ("14", Outcome::Error)] {
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))]);
        let mut body = streamed(&rig, [data("one"), Some(Ok(Frame::trailers(trailers)))].into(), None);
        let before = ended(&rig, "/export", outcome);
        assert!(read(&mut body).is_ready());
        assert!(read(&mut body).is_ready());
        drop(body);
        assert_eq!(ended(&rig, "/export", outcome), before + 1, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_tells_how_the_request_ended() {
    let rig = Rig::new(1, 0);
    let statuses = [(200, Outcome::Ok), (404, Outcome::Ok), (499, Outcome::Ok), (500, Outcome::Error)];
    for (status, outcome) in statuses {
        let handler = service_fn(move |_| async move {
            let mut answer = answer();
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok::<_, Infallible>(answer)
        });
        let route = format!("/{status}");
        serve(layer(&rig).layer(handler), get(&route)).poll().unwrap().unwrap();
        assert_eq!(ended(&rig, &route, outcome), 1, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_body_or_to_head_has_ended_when_it_is_there() {
    let rig = Rig::new(1, 0);
    let empty = service_fn(async |_| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())));
    drop(Attempt::new(layer(&rig).layer(empty).oneshot(get("/empty"))).poll().unwrap().unwrap());
    assert_eq!(ended(&rig, "/empty", Outcome::Ok), 1);

    let full = service_fn(async |_| Ok::<_, Infallible>(answer()));
    let head = Request::head("/head").body(Full::<Bytes>::default()).unwrap();
    drop(Attempt::new(layer(&rig).layer(full).oneshot(head)).poll().unwrap().unwrap());
    assert_eq!(ended(&rig, "/head", Outcome::Ok), 1);
    drop(Attempt::new(layer(&rig).layer(full).oneshot(get("/get"))).poll().unwrap().unwrap());
    assert_eq!(ended(&rig, "/get", Outcome::Cancelled), 1, "nobody read it");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_is_cancelled_and_gives_its_connection_back() {
    let rig = Rig::new(1, 0);
    let core = rig.core.clone();
    let handler = service_fn(move |_| {
        let core = core.clone();
        async move {
            let held = core.get().await.unwrap();
            tokio::time::sleep(ms(1000)).await;
            drop(held);
            Ok::<_, Infallible>(answer())
        }
    });
    let request = serve(layer(&rig).layer(handler), get("/orders")).stays();
    rig.advance(ms(70)).await;
    drop(request);
    let cost = cost(&rig, "/orders");
    assert_eq!((cost.started, cost.in_flight, idle(&cost)), (1, 0, ms(70)));
    assert_eq!(cost.durations[Outcome::Cancelled.index()].sum_nanos, 70_000_000);
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_never_polled_is_cancelled() {
    let rig = Rig::new(1, 0);
    let handler = service_fn(async |_: Request<Full<Bytes>>| Ok::<Answer, Infallible>(answer()));
    drop(tower::Service::call(&mut layer(&rig).layer(handler), get("/orders")));
    assert_eq!(ended(&rig, "/orders", Outcome::Cancelled), 1);
}

#[tokio::test(start_paused = true)]
async fn the_header_says_what_the_request_cost_so_far_and_stands_beside_others() {
    let rig = Rig::new(1, 0);
    let core = rig.core.clone();
    let handler = service_fn(move |request: Request<Full<Bytes>>| {
        let core = core.clone();
        async move {
            if request.uri().path() == "/orders" {
                for _ in 0..2 {
                    let held = core.get().await.unwrap();
                    tokio::time::sleep(ms(7)).await;
                    drop(held);
                }
            }
            let mut answer = answer();
            answer.headers_mut().insert("server-timing", HeaderValue::from_static("app;dur=1"));
            Ok::<_, Infallible>(answer)
        }
    });
    let timings = |answer: &Response<Bytes>| {
        let timings = answer.headers().get_all("server-timing").iter();
        timings.map(|timing| timing.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let held = rig.take("somebody else");
    let mut request = serve(layer(&rig).server_timing(true).layer(handler.clone()), get("/orders")).stays();
    rig.advance(ms(25)).await;
    drop(held);
    for _ in 0..2 {
        assert!(request.poll().is_none());
        rig.advance(ms(7)).await;
    }
    let answer = request.poll().unwrap().unwrap();
    assert_eq!(timings(&answer), ["app;dur=1", "pool-wait;dur=25.000;desc=\"2 checkouts\", pool-use;dur=14.000"]);

    let answer = serve(layer(&rig).server_timing(true).layer(handler.clone()), get("/about")).poll().unwrap().unwrap();
    assert_eq!(timings(&answer), ["app;dur=1"], "it did not ask the pool");
    let mut request = serve(layer(&rig).layer(handler), get("/orders")).stays();
    for _ in 0..2 {
        rig.advance(ms(7)).await;
        if let Some(answer) = request.poll() {
            assert_eq!(timings(&answer.unwrap()), ["app;dur=1"], "it is off");
            return;
        }
    }
    panic!("no answer");
}

#[tokio::test(start_paused = true)]
async fn what_an_empty_body_says_at_its_end_counts() {
    let rig = Rig::new(1, 0);
    let handler = service_fn(async |_: Request<Full<Bytes>>| {
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("13"))]);
        let body = Empty::<Bytes>::new().with_trailers(std::future::ready(Some(Ok::<_, Infallible>(trailers))));
        Ok::<_, Infallible>(Response::new(body))
    });
    serve(layer(&rig).layer(handler), get("/grpc")).poll().unwrap().unwrap();
    assert_eq!(ended(&rig, "/grpc", Outcome::Error), 1);
}

#[tokio::test(start_paused = true)]
async fn the_body_is_the_inner_ones() {
    let rig = Rig::new(1, 0);
    let full = service_fn(async |_| Ok::<_, Infallible>(answer()));
    let answer = Attempt::new(layer(&rig).layer(full).oneshot(get("/get"))).poll().unwrap().unwrap();
    assert_eq!((answer.body().size_hint().exact(), answer.body().is_end_stream()), (Some(4), false));
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "done");
}
