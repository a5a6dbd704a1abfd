//! What the pool needs to know of the connections it holds.

use std::error::Error;

use deadpool::managed::Manager;

use crate::event::ErrorCode;

/// A deadpool [`Manager`] whose connections can be observed.
///
/// `create` connects. `recycle` is the pre-ping: the pool calls it only when a connection was not seen alive
/// lately, so it should do a round trip to the server. `detach` is called when a connection leaves the pool, sometimes
/// under deadpool's lock, so it should be brief; not when the last handle to the pool is dropped.
///
/// Any manager whose connections are `Send` and `Sync` will do: `impl Backend for MyManager {}`. The methods here tell the accounts more.
pub trait Backend: Manager<Type: Send + Sync, Error: Error + Send + Sync + 'static> + Send + Sync + 'static {
    /// Whether the connection is known to be of no more use, without asking the server. Called at each checkout and
    /// each return, so it must be cheap, and must not panic.
    fn is_broken(connection: &Self::Type) -> bool {
        let _ = connection;
        false
    }

    /// What an error says in the `sqlstate` label.
    fn code(error: &Self::Error) -> ErrorCode {
        let _ = error;
        ErrorCode::OTHER
    }
}
