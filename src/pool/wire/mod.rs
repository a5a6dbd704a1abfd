//! The observer of PostgreSQL's wire protocol: it reads the bytes of a connection as they pass, and never copies,
//! delays or changes them.
//!
//! A [`Tap`] sits below tokio-postgres and above TLS, and shows everything that passes to its [`ProtocolObserver`].
//! That splits the bytes into messages, follows the [`protocol`], and updates the connection's statistics.
//! A [`ServerGuard`] bounds what a server may send before and beside that; the [`Tap`] then fails the read. The
//! connection's task is a [`DriverTask`] with a [`DriverActivity`], from which the pool learns whether everything that
//! a caller sent has reached the wire.

mod driver;
mod hash;
mod observer;
mod peer_close;
mod protocol;
mod sql;
mod statements;
mod tap;
mod transaction;

pub(crate) use self::driver::{DirtyCallback, DriverActivity, DriverTask};
pub(crate) use self::observer::ProtocolObserver;
pub(crate) use self::peer_close::AwaitPeerClose;
#[cfg(fuzzing)]
pub(crate) use self::protocol::checker::fuzz_protocol;
pub(crate) use self::protocol::{AnswerLimit, AuthenticationPolicy, LimitExceeded, ServerGuard};
pub(crate) use self::statements::StatementCaches;
pub(crate) use self::tap::Tap;
