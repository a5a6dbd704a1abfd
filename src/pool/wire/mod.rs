//! The bytes between tokio-postgres and the server, above TLS.

mod eyes;
mod patient;
mod tap;
#[cfg(feature = "tls")]
mod tls;

pub(crate) use self::eyes::Eyes;
pub(crate) use self::patient::Patient;
pub(crate) use self::tap::Tap;
#[cfg(feature = "tls")]
pub(crate) use self::tls::Above;
