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
