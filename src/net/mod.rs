//! Sockets to a server, TLS, and the names and errors of both, whatever protocol is spoken over them.

pub(crate) mod error_source;
mod failure;
#[cfg(feature = "redis")]
mod last_words;
pub(crate) mod losses;
pub(crate) mod peer;
pub(crate) mod pool_name;
pub(crate) mod socket;
pub(crate) mod tcp_options;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
pub(crate) mod tls;
#[cfg_attr(not(unix), path = "no_unix.rs")]
mod unix;

pub(crate) use self::failure::{io_code, io_failure};
#[cfg(feature = "redis")]
pub(crate) use self::last_words::LastWords;
