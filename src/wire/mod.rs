//! The observers of wire protocols: they read the bytes of a connection as they pass, and never copy, delay or change
//! them.
//!
//! A [`Tap`] sits below the driver and above TLS, and shows everything that passes to its observer: for PostgreSQL a
//! [`ProtocolObserver`], for Redis that of `resp`. An observer splits the bytes into messages, follows the [`protocol`],
//! and updates the connection's statistics with a [`StatsWriter`](stats_writer::StatsWriter). A [`ServerGuard`] bounds
//! what a server may send before and beside that; the [`Tap`] then fails the read. The
//! connection's task is a [`DriverTask`] with a [`DriverActivity`], from which the pool learns whether everything that
//! a caller sent has reached the wire.

mod driver;
mod hash;
mod observer;
mod peer_close;
mod protocol;
#[cfg(feature = "redis")]
mod resp;
mod sql;
mod statements;
mod stats_writer;
mod tap;
mod transaction;

pub(crate) use self::driver::{DirtyCallback, DriverActivity, DriverTask};
#[cfg(feature = "proxy")]
pub(crate) use self::hash::FoldHasher;
pub(crate) use self::observer::ProtocolObserver;
pub(crate) use self::peer_close::AwaitPeerClose;
#[cfg(fuzzing)]
pub(crate) use self::protocol::checker::fuzz_protocol;
pub(crate) use self::protocol::{AnswerLimit, AuthenticationPolicy, LimitExceeded, ServerGuard};
#[cfg(feature = "proxy")]
pub(crate) use self::protocol::{ProtocolHandler, ProtocolState, RequestOutcome, StatementProblem};
#[cfg(all(fuzzing, feature = "redis"))]
pub(crate) use self::resp::checker::fuzz_resp;
#[cfg(feature = "redis")]
pub(crate) use self::resp::{RespObserver, SessionState};
#[cfg(feature = "proxy")]
pub(crate) use self::sql::{CommentNames, QueryRef, comment_of, summary};
pub(crate) use self::statements::StatementCaches;
pub(crate) use self::tap::Tap;
#[cfg(feature = "proxy")]
pub(crate) use self::transaction::TransactionStatus;
