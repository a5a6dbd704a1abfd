//! Wraps connections as clients of deadpool-postgres.
//!
//! deadpool-postgres's `GenericClient` is sealed and implemented for its own pool's client. Code that is generic over
//! it, or that names the client in signatures, is to work with this pool's connections without a change. A pool of one
//! connection is therefore created for each, and dropped at once: its client keeps only a weak reference to it.

use std::future::{pending, ready};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use deadpool_postgres::{Client, Connect, Manager, ManagerConfig, Pool};
use tokio::task::JoinHandle;
use tokio_postgres::{Client as SessionClient, Config, Error};

/// A connection and the task that drives it.
type Session = (SessionClient, JoinHandle<()>);

/// Returns `client` as a client of deadpool-postgres. `task` drives the connection, and is aborted when the client is
/// dropped.
#[allow(clippy::expect_used, reason = "the pool needs a runtime for timeouts only, and connecting cannot fail")]
pub(super) async fn wrap(client: SessionClient, task: JoinHandle<()>) -> Client {
    let connect = Connected(Mutex::new(Some((client, task))));
    let manager = Manager::from_connect(Config::new(), connect, ManagerConfig::default());
    let pool = Pool::builder(manager).max_size(1).build().expect("a pool without timeouts");
    pool.get().await.expect("a connection that exists")
}

/// Provides one connection that is established already.
struct Connected(Mutex<Option<Session>>);

impl Connect for Connected {
    fn connect(&self, _: &Config) -> Pin<Box<dyn Future<Output = Result<Session, Error>> + Send + '_>> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(session) => Box::pin(ready(Ok(session))),
            // The pool connects once.
            None => Box::pin(pending()),
        }
    }
}
