//! What passes on the wire: read as it passes, never copied, delayed or changed.
//!
//! A [`Tap`] sits under tokio-postgres and above TLS. Its [`ProtocolObserver`] find the messages ([`frames`]), follow the
//! [`conversation`], and keep the connection's account. The connection's task runs with a [`DriverActivity`], by which the
//! pool knows whether everything that a holder asked for has reached the wire.

mod bodies;
mod conversation;
mod copying;
mod eyes;
mod fields;
mod frames;
mod hash;
mod listener;
mod patient;
mod prepared;
mod pulse;
mod requests;
mod statements;
mod summary;
mod tap;
mod texts;
#[cfg(feature = "tls")]
mod tls;
mod words;

#[cfg(fuzzing)]
pub(crate) use self::conversation::witness::exercise;
pub(crate) use self::eyes::ProtocolObserver;
pub(crate) use self::patient::Patient;
pub(crate) use self::pulse::{DriverActivity, DriverTask, Found};
pub(crate) use self::tap::Tap;
#[cfg(feature = "tls")]
pub(crate) use self::tls::Above;
