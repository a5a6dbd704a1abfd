//! What is done to the server, and undone.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::demo::error::DemoError;
use crate::demo::schema::{Keeper, Session};
use poolscope_testing::server::{Server, Shutdown};

/// How long to wait before slots that others have given back are looked for again.
const LOOK: Duration = Duration::from_millis(50);

/// The rows for which reservations do not wait, until the transaction ends.
const LOCK: &str = "BEGIN; SELECT FROM poolscope_demo.products WHERE id IN (1, 2) FOR UPDATE";

/// What is done to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    /// It is stopped.
    StopServer,
    /// All of its slots are taken, also those that come free.
    FillServer,
    /// Each new connection takes a second.
    DelayConnects,
    /// A transaction has locked rows.
    LockRows,
}

impl Act {
    /// What it does to a server that nobody else may be using, if it does that.
    pub(super) const fn needs_private_server(self) -> Option<&'static str> {
        match self {
            Self::Nothing | Self::LockRows => None,
            Self::StopServer => Some("stops the server"),
            Self::FillServer => Some("takes all of the server's slots"),
            Self::DelayConnects => Some("changes the server's settings"),
        }
    }

    /// Does it.
    pub(super) async fn perform(self, server: Option<&Arc<Server>>, keeper: &Arc<Keeper>) -> Result<Deed, DemoError> {
        match (self, server) {
            (Self::StopServer, Some(server)) => {
                server.stop(Shutdown::Fast).await.map_err(DemoError::Server)?;
                Ok(Deed::Stopped(Arc::clone(server)))
            }
            (Self::FillServer, Some(_)) => {
                let mut taken = Vec::new();
                while let Ok(session) = keeper.connect().await {
                    taken.push(session);
                }
                Ok(Deed::Filled(tokio::spawn(fill(taken, Arc::clone(keeper)))))
            }
            (Self::DelayConnects, Some(_)) => {
                let session = keeper.connect().await?;
                session.run(&["ALTER SYSTEM SET pre_auth_delay = '1s'", RELOAD]).await?;
                Ok(Deed::Delayed(session))
            }
            (Self::LockRows, _) => {
                let session = keeper.connect().await?;
                session.run(&[LOCK]).await?;
                Ok(Deed::Locked(session))
            }
            // A server of somebody's own is not touched: it was refused before.
            _ => Ok(Deed::Nothing),
        }
    }
}

const RELOAD: &str = "SELECT pg_reload_conf()";

/// What was done.
#[derive(Debug)]
pub(super) enum Deed {
    Nothing,
    Stopped(Arc<Server>),
    Filled(JoinHandle<()>),
    Delayed(Session),
    Locked(Session),
}

impl Deed {
    /// Undoes it.
    pub(super) async fn undo(self) -> Result<(), DemoError> {
        match self {
            Self::Nothing => {}
            Self::Stopped(server) => server.start().await.map_err(DemoError::Server)?,
            Self::Filled(task) => {
                task.abort();
                // Its connections go with it.
                let _ = task.await;
            }
            Self::Delayed(session) => {
                session.run(&["ALTER SYSTEM RESET pre_auth_delay", RELOAD]).await?;
                drop(session);
            }
            Self::Locked(session) => drop(session),
        }
        Ok(())
    }
}

/// Keeps those slots, and takes those that come free, as long as it runs.
async fn fill(mut taken: Vec<Session>, keeper: Arc<Keeper>) {
    loop {
        match keeper.connect().await {
            Ok(session) => taken.push(session),
            // There is none left, or not yet again.
            Err(_) => sleep(LOOK).await,
        }
    }
}
