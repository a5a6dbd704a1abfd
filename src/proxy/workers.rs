//! The threads that serve the sessions.
//!
//! Each has a runtime of its own, so that a session stays on its thread. In a runtime of several threads, a thread that
//! finds a session's socket ready wakes another one for the next, which costs more than to pass a query on.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::stream::Stream;

/// The threads. Dropping them ends their sessions.
#[derive(Debug)]
pub(super) struct Workers(Vec<Worker>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Cloned for each session, and so their count.
    sessions: Arc<()>,
    /// Dropped to end the thread.
    _end: oneshot::Sender<()>,
}

impl Workers {
    /// Starts this number of threads. Without any, sessions run on the caller's runtime.
    pub(super) fn start(number: usize) -> io::Result<Self> {
        (0..number).map(|_| Worker::start()).collect::<Result<_, _>>().map(Self)
    }

    /// Serves a client on the thread that has the fewest.
    pub(super) fn spawn<F>(&self, stream: Stream, serve: impl FnOnce(Stream) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(worker) = self.0.iter().min_by_key(|worker| Arc::strong_count(&worker.sessions)) else {
            tokio::spawn(serve(stream));
            return;
        };
        let session = Arc::clone(&worker.sessions);
        worker.runtime.spawn(async move {
            // An error leaves nothing to serve: the socket is closed.
            if let Ok(stream) = stream.moved_to_this_runtime() {
                serve(stream).await;
            }
            drop(session);
        });
    }
}

impl Worker {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name("poolscope-proxy".to_owned()).spawn(move || {
            let _ = runtime.block_on(ended);
            // Without waiting for a blocking thread that resolves a name.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, sessions: Arc::default(), _end: end })
    }
}
