//! Sockets to a server, TLS, and the names and errors of both, whatever protocol is spoken over them.

pub(super) mod error_source;
mod failure;
#[cfg(feature = "redis")]
mod last_words;
pub(super) mod losses;
pub(super) mod peer;
pub(super) mod pool_name;
pub(super) mod socket;
pub(super) mod tcp_options;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
pub(super) mod tls;
#[cfg_attr(not(unix), path = "no_unix.rs")]
mod unix;

pub(super) use self::failure::{io_code, io_failure};
#[cfg(feature = "redis")]
pub(super) use self::last_words::LastWords;
