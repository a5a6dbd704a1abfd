//! A connection's task, against a caller that sends requests and returns the connection.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use loom::future::block_on;
use loom::sync::Mutex;
use loom::thread;

use crate::check;
use crate::driver::{DirtyCallback, DriverActivity, DriverTask};
use crate::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};
use crate::telemetry::connection::ConnectionStats;

// What wakers refer to has to be in the standard library's, as `std::task::Wake` requires.
type Shared<T> = std::sync::Arc<T>;

/// The channel between callers and the connection's task.
#[derive(Default)]
struct Channel(Mutex<Requests>);

#[derive(Default)]
struct Requests {
    waiting: bool,
    closed: bool,
    waker: Option<Waker>,
}

impl Channel {
    /// Changes the requests, and then wakes the task, as a channel does it.
    fn change(&self, change: impl FnOnce(&mut Requests)) {
        let mut requests = self.0.lock().expect("no panic");
        change(&mut requests);
        let waker = requests.waker.take();
        drop(requests);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn send(&self) {
        self.change(|requests| requests.waiting = true);
    }

    fn close(&self) {
        self.change(|requests| requests.closed = true);
    }
}

/// A connection: takes requests out of the channel, and sends them.
struct Connection {
    /// Whether it ends when it has sent a request, so that its task does not run again.
    ends: bool,
    channel: Shared<Channel>,
    sent: Shared<AtomicU8>,
    stats: Shared<ConnectionStats>,
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut requests = self.channel.0.lock().expect("no panic");
        if std::mem::take(&mut requests.waiting) {
            self.sent.store(1, SeqCst);
            self.stats.wire().set_dirty();
            requests.closed |= self.ends;
        }
        if requests.closed {
            return Poll::Ready(());
        }
        requests.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// A connection's task in a thread, and what its callers have.
struct Driven {
    activity: Shared<DriverActivity>,
    channel: Shared<Channel>,
    sent: Shared<AtomicU8>,
    stats: Shared<ConnectionStats>,
    /// Whether the task has found the connection dirty after its return.
    found_dirty: Shared<AtomicBool>,
    task: thread::JoinHandle<()>,
}

impl Driven {
    fn start(ends: bool) -> Self {
        let (activity, channel) = (Shared::new(DriverActivity::default()), Shared::new(Channel::default()));
        let (sent, stats) = (Shared::new(AtomicU8::default()), Shared::new(ConnectionStats::default()));
        let found_dirty = Shared::new(AtomicBool::default());
        let on_dirty = {
            let found_dirty = Shared::clone(&found_dirty);
            DirtyCallback(Shared::new(move || found_dirty.store(true, SeqCst)))
        };
        let connection = Connection {
            ends,
            channel: Shared::clone(&channel),
            sent: Shared::clone(&sent),
            stats: Shared::clone(&stats),
        };
        let task = DriverTask::new(connection, Shared::clone(&activity), Shared::clone(&stats), on_dirty);
        let task = thread::spawn(move || block_on(task));
        Self { activity, channel, sent, stats, found_dirty, task }
    }

    fn close(&self) {
        self.channel.close();
    }

    fn end(self) {
        self.task.join().expect("no panic");
    }
}

/// If the task has settled, everything that was sent before has left the channel.
pub fn settled_task_has_sent_everything() {
    check(|| {
        let driven = Driven::start(false);
        driven.channel.send();
        if driven.activity.is_settled() {
            assert_eq!(driven.sent.load(SeqCst), 1, "the task has settled, and a request is in the channel");
        }
        driven.close();
        driven.end();
    });
}

/// A connection that is returned before its task has settled is checked: by the caller, or by the task once it has.
pub fn deferred_check_is_made() {
    check(|| {
        let driven = Driven::start(false);
        driven.channel.send();
        let activity = &driven.activity;
        let checks = activity.is_settled() || activity.defer_check();
        let found_by_caller = checks && !driven.stats.wire().status().is_clean();
        let found_by_task = Shared::clone(&driven.found_dirty);
        // The run that this causes checks nothing, if an earlier run has regarded its check as the last.
        driven.close();
        driven.end();
        assert!(found_by_caller || found_by_task.load(SeqCst), "nobody has found the connection dirty");
    });
}

/// A caller that waits for the task sees its last run, and does not wait for ever.
pub fn wait_sees_the_last_run() {
    check(|| {
        let driven = Driven::start(true);
        driven.channel.send();
        let sent = Shared::clone(&driven.sent);
        block_on(pin!(driven.activity.wait_until(|| sent.load(SeqCst) == 1)));
        driven.end();
    });
}
