//! Faults of the server.

use std::sync::Arc;
use std::time::Duration;

use poolscope_testing::server::{Server, Shutdown};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::demo::error::DemoError;
use crate::demo::schema::{SchemaManager, Session};

/// The time between two attempts to take the server's free slots.
const SLOT_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Locks the rows that reservations lock without waiting, until the end of the transaction.
const LOCK: &str = "BEGIN; SELECT FROM poolscope_demo.products WHERE id IN (1, 2) FOR UPDATE";

/// A fault of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerFault {
    None,
    /// The server is stopped.
    Stop,
    /// All slots are taken, including those that become free.
    Full,
    /// Each new connection takes a second.
    SlowConnect,
    /// A transaction has locked rows.
    LockedRows,
}

impl ServerFault {
    /// Describes the disruption of a server that others may use; `None` if there is none.
    pub(super) const fn disruption(self) -> Option<&'static str> {
        match self {
            Self::None | Self::LockedRows => None,
            Self::Stop => Some("stops the server"),
            Self::Full => Some("takes all slots of the server"),
            Self::SlowConnect => Some("changes the server's settings"),
        }
    }

    /// Injects the fault.
    pub(super) async fn inject(
        self,
        server: Option<&Arc<Server>>,
        schema: &Arc<SchemaManager>,
    ) -> Result<Injected, DemoError> {
        match (self, server) {
            (Self::Stop, Some(server)) => {
                server.stop(Shutdown::Fast).await.map_err(DemoError::Server)?;
                Ok(Injected::Stopped(Arc::clone(server)))
            }
            (Self::Full, Some(_)) => {
                let mut sessions = Vec::new();
                while let Ok(session) = schema.connect().await {
                    sessions.push(session);
                }
                Ok(Injected::Full(tokio::spawn(take_slots(sessions, Arc::clone(schema)))))
            }
            (Self::SlowConnect, Some(_)) => {
                let session = schema.connect().await?;
                session.run(&["ALTER SYSTEM SET pre_auth_delay = '1s'", RELOAD]).await?;
                Ok(Injected::SlowConnect(session))
            }
            (Self::LockedRows, _) => {
                let session = schema.connect().await?;
                session.run(&[LOCK]).await?;
                Ok(Injected::LockedRows(session))
            }
            // Disruptions of other than private servers were refused.
            _ => Ok(Injected::None),
        }
    }
}

const RELOAD: &str = "SELECT pg_reload_conf()";

/// An injected fault.
#[derive(Debug)]
pub(super) enum Injected {
    None,
    Stopped(Arc<Server>),
    Full(JoinHandle<()>),
    SlowConnect(Session),
    LockedRows(Session),
}

impl Injected {
    /// Removes the fault.
    pub(super) async fn remove(self) -> Result<(), DemoError> {
        match self {
            Self::None => {}
            Self::Stopped(server) => server.start().await.map_err(DemoError::Server)?,
            Self::Full(task) => {
                task.abort();
                // The task drops its connections.
                let _ = task.await;
            }
            Self::SlowConnect(session) => session.run(&["ALTER SYSTEM RESET pre_auth_delay", RELOAD]).await?,
            Self::LockedRows(session) => drop(session),
        }
        Ok(())
    }
}

/// Holds slots of the server, and takes those that become free. Never returns.
async fn take_slots(mut sessions: Vec<Session>, schema: Arc<SchemaManager>) {
    loop {
        match schema.connect().await {
            Ok(session) => sessions.push(session),
            Err(_) => sleep(SLOT_RETRY_INTERVAL).await,
        }
    }
}
