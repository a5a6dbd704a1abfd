//! A subscriber that panics at every event.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};

use poolscope::RetryPolicy;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use super::backend::{Behavior, TRANSIENT_ERROR};
use super::harness::{ManualFuture, TestPool, ms};

/// Panics at every event, after it has kept its message.
#[derive(Clone, Default)]
struct PanickingLayer(Arc<Mutex<BTreeSet<String>>>);

struct Message<'a>(&'a mut BTreeSet<String>);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0.insert(format!("{value:?}"));
        }
    }
}

impl<S: Subscriber> Layer<S> for PanickingLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut Message(&mut self.0.lock().unwrap()));
        // Without the hook, which would print it.
        resume_unwind(Box::new("scripted"));
    }
}

#[tokio::test(start_paused = true)]
async fn panicking_subscriber_affects_no_checkout() {
    let layer = PanickingLayer::default();
    let _subscriber = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer.clone()));
    let test = TestPool::new(2, 1);

    // Connections are opened, closed as surplus, and expire.
    drop(test.get_many("ok", 3));
    test.advance(ms(11_000)).await;
    drop(test.get("ok"));
    // A checkout that times out, whose task holds a connection.
    let held = test.get_many("held", 3);
    let mut waiting = test.checkout("waits").assert_pending();
    test.advance(ms(1100)).await;
    assert!(waiting.poll().expect("it has timed out").is_err());
    drop(held);
    // Connecting and pinging fail.
    test.backend.set_connect(Behavior::Down);
    test.backend.set_ping(Behavior::Error);
    test.advance(ms(600)).await;
    assert!(test.checkout("fails").poll().expect("it fails at once").is_err());
    test.backend.set_connect(Behavior::Ok);
    test.backend.set_ping(Behavior::Ok);
    test.advance(ms(10_000)).await;
    drop(test.get("ok"));
    // An operation that is retried, and gives up.
    let operation = test.pool.operation("retried").retry(RetryPolicy::new().attempts(2).backoff(ms(0), ms(0)));
    let mut retried =
        ManualFuture::new(async move { operation.run(async |_: &mut _| Err::<(), _>(TRANSIENT_ERROR)).await.is_err() });
    while retried.poll().is_none() {
        test.advance(ms(1)).await;
    }

    let messages = layer.0.lock().unwrap().clone();
    for part in [
        "pool opened",
        "connection created",
        "connection closed",
        "checkout timed out",
        "possible self-deadlock",
        "connection error",
        "connecting failed",
        "connecting succeeded again",
        "operation failed",
    ] {
        assert!(messages.iter().any(|message| message.contains(part)), "{part} is not in {messages:#?}");
    }
    test.assert_usable();
}

#[cfg(feature = "otel")]
mod spans {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing::span::{Attributes, Id};
    use tracing::{Instrument as _, Subscriber, info_span};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt as _};
    use tracing_subscriber::registry::LookupSpan;

    use super::super::harness::{ManualFuture, TestPool, ms};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Event {
        New,
        Enter,
        Exit,
        Close,
    }

    /// Panics once, at an event of a span of the pool.
    struct PanickingAtSpan {
        event: Event,
        armed: Arc<AtomicBool>,
    }

    impl PanickingAtSpan {
        fn panic_at(&self, event: Event, target: &str) {
            let strikes = event == self.event && target.starts_with("poolscope");
            if strikes && !std::thread::panicking() && self.armed.swap(false, SeqCst) {
                // Without the hook, which would print it.
                resume_unwind(Box::new("scripted"));
            }
        }
    }

    impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for PanickingAtSpan {
        fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
            self.panic_at(Event::New, attributes.metadata().target());
        }

        fn on_enter(&self, id: &Id, context: Context<'_, S>) {
            self.panic_at(Event::Enter, context.metadata(id).map_or("", |span| span.target()));
        }

        fn on_exit(&self, id: &Id, context: Context<'_, S>) {
            self.panic_at(Event::Exit, context.metadata(id).map_or("", |span| span.target()));
        }

        fn on_close(&self, id: Id, context: Context<'_, S>) {
            self.panic_at(Event::Close, context.metadata(&id).map_or("", |span| span.target()));
        }
    }

    /// What a caller does when its span panics: it waits in the queue, connects, or runs an operation.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Work {
        Waits,
        Connects,
        Runs,
        IsCancelled,
    }

    /// The panic reaches the caller at most; the pool keeps its places, its counters and its locks.
    #[tokio::test(start_paused = true)]
    async fn panicking_subscriber_costs_the_pool_nothing() {
        let mut struck = 0;
        for event in [Event::New, Event::Enter, Event::Exit, Event::Close] {
            for work in [Work::Waits, Work::Connects, Work::Runs, Work::IsCancelled] {
                struck += u32::from(strikes(event, work).await);
            }
        }
        assert!(struck >= 8, "{struck} panics occurred");
    }

    /// Returns whether the subscriber has panicked.
    async fn strikes(event: Event, work: Work) -> bool {
        let armed = Arc::new(AtomicBool::new(false));
        let tracer = SdkTracerProvider::builder().build().tracer("test");
        let subscriber = tracing_subscriber::registry()
            .with(tracing_opentelemetry::layer().with_tracer(tracer))
            .with(PanickingAtSpan { event, armed: Arc::clone(&armed) });
        let _subscriber = tracing::subscriber::set_default(subscriber);
        let test = TestPool::new(1, 0);
        let mut held = (work != Work::Connects).then(|| test.get("holder"));

        let request = info_span!(parent: None, "request");
        let operation = test.pool.operation("traced");
        armed.store(true, SeqCst);
        let mut traced = ManualFuture::new(
            async move {
                if work == Work::Runs {
                    let _ = operation.run(async |_| Ok::<(), std::convert::Infallible>(())).await;
                } else {
                    drop(operation.get().await);
                }
            }
            .instrument(request),
        );
        let waits = matches!(traced.try_poll(), Ok(None));
        test.advance(ms(5)).await;
        if waits && work != Work::IsCancelled {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(held.take())));
            let _ = traced.try_poll();
        }
        let _ = catch_unwind(AssertUnwindSafe(|| drop(traced)));
        let _ = catch_unwind(AssertUnwindSafe(|| drop(held.take())));
        let panicked = !armed.swap(false, SeqCst);
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }

        let snapshot = test.snapshot();
        assert_eq!((snapshot.in_flight, snapshot.connections.used), (0, 0), "{event:?} while the caller {work:?}");
        test.assert_usable();
        panicked
    }
}
